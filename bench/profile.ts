/**
 * Where a training step's time goes: a table of kernels (compiled) or of ops (eager), with the bytes
 * and FLOPs they get done a second.
 *
 *   node bench/profile.ts S|L|smollm2-2l|smollm2-30l [--checkpointing <way>] [--eager] [--shapes] [--runs <n>]
 *
 * Ways: none (default), full, op, or a budget such as budget:50% or budget:79MiB+int8.
 * --shapes keeps launches of different shapes apart. Reads RETUNE_MATMUL and RETUNE_THREADS (default 2).
 */

import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { createCpuBackend } from '../src/runtime/registry.ts';
import { setBackend } from '../src/tensor/backend.ts';
import { configs, findConfig } from './configs.ts';
import type { Checkpointing } from './driver/protocol.ts';
import { median } from './driver/statistics.ts';
import { writeMaterials } from './materials.ts';
import { compiledLaunches, eagerLaunches, type Launch } from './retune/launches.ts';
import { TrainingJob } from './retune/training-job.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    checkpointing: { type: 'string', default: 'none' },
    eager: { type: 'boolean', default: false },
    shapes: { type: 'boolean', default: false },
    runs: { type: 'string', default: '5' },
  },
});

const [name] = positionals;
if (name === undefined) {
  console.log(`usage: node bench/profile.ts ${configs.map((config) => config.name).join('|')}`);
} else {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'retune-profile-'));
  try {
    await profile(name, folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function profile(configName: string, folder: string): Promise<void> {
  const config = findConfig(configName);
  const threads = Number(process.env.RETUNE_THREADS ?? 2);
  const backend = createCpuBackend({ threads });
  setBackend(backend);
  while (backend.readyWorkers < threads - 1) await sleep(5);
  const job = new TrainingJob(config, writeMaterials(config, folder));
  const variant = {
    compiled: !values.eager,
    checkpointing: values.checkpointing as Checkpointing,
  };
  const runs = Number(values.runs);
  for (let i = 0; i < 3; i++) job.step(variant);
  const { ms } = job.steps(variant, 0, runs);
  const collect = values.eager ? eagerLaunches : compiledLaunches;
  const samples = Array.from({ length: runs }, () => collect(job, variant));
  const launches = (samples[0] ?? []).map((launch, i) => ({
    ...launch,
    ms: median(samples.map((sample) => sample[i]?.ms ?? Number.NaN)),
  }));
  const sum = total(launches, (launch) => launch.ms);
  console.log(
    `${configName}, ${values.eager ? 'eager' : 'compiled'}, checkpointing ${variant.checkpointing}, ` +
      `${backend.info.matmul}, ${threads} threads: step ${median(ms).toFixed(1)} ms, ` +
      `${launches.length} launches of ${sum.toFixed(1)} ms in all`,
  );
  printGroups('part', launches, (launch) => launch.part, sum);
  printGroups(
    values.eager ? 'op' : 'kernel',
    launches,
    values.shapes ? (launch) => `${launch.label}  ${launch.shapes}` : (launch) => launch.label,
    sum,
  );
  backend.dispose();
}

function printGroups(
  title: string,
  launches: readonly Launch[],
  key: (launch: Launch) => string,
  sum: number,
): void {
  console.log(`\n      ms      %  times    GB/s GFLOP/s  ${title}`);
  const groups = [...Map.groupBy(launches, key)].map(([text, members]) => ({
    text,
    count: members.length,
    ms: total(members, (launch) => launch.ms),
    bytes: total(members, (launch) => launch.bytes),
    flops: total(members, (launch) => launch.flops),
  }));
  for (const { text, count, ms, bytes, flops } of groups.toSorted((a, b) => b.ms - a.ms)) {
    const cells = [
      ms.toFixed(2).padStart(8),
      ((100 * ms) / sum).toFixed(1).padStart(6),
      String(count).padStart(6),
      (bytes / ms / 1e6).toFixed(1).padStart(7),
      (flops / ms / 1e6).toFixed(1).padStart(7),
    ];
    console.log(`${cells.join(' ')}  ${text}`);
  }
}

function total(launches: readonly Launch[], of: (launch: Launch) => number): number {
  return launches.reduce((sum, launch) => sum + of(launch), 0);
}
