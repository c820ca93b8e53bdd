/** The machine: what it is, and how busy it has been. */

import { existsSync, readFileSync } from 'node:fs';
import os from 'node:os';

export interface MachineFacts {
  /** As the operating system names it. */
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly system: string;
  /** Release of the kernel. */
  readonly kernel: string;
  readonly node: string;
  readonly v8: string;
}

export function machineFacts(): MachineFacts {
  const cores = os.cpus();
  return {
    cpu: (cores[0]?.model ?? 'unknown').replace(/\s+/g, ' ').trim(),
    cores: cores.length,
    memoryGiB: Math.round(os.totalmem() / 2 ** 30),
    system: `${os.type()} ${os.arch()}`,
    kernel: os.release(),
    node: process.versions.node,
    v8: process.versions.v8,
  };
}

/**
 * Seconds that all cores together have worked since the machine started, time taken by other guests
 * of the host included where the system tells (the `steal` column of /proc/stat).
 */
export function busySeconds(): number {
  if (existsSync('/proc/stat')) return busyFromProcStat(readFileSync('/proc/stat', 'utf8'));
  let ms = 0;
  for (const { times } of os.cpus()) ms += times.user + times.nice + times.sys + times.irq;
  return ms / 1000;
}

/** Ticks of /proc/stat are hundredths of a second on every Linux that Node runs on. */
export function busyFromProcStat(text: string): number {
  const [, ...columns] = (text.split('\n')[0] ?? '').trim().split(/\s+/);
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = columns.map(Number);
  return (user + nice + system + irq + softirq + steal) / 100;
}
