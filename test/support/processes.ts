/** Runs the command line as a child process, the way a user does. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const entry = fileURLToPath(new URL('../../bin/retune.mjs', import.meta.url));

export interface Finished {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  readonly child: ChildProcess;
  /** Resolves when stdout or stderr holds `text`; rejects when the process ends first. */
  shows(text: string): Promise<void>;
  readonly finished: Promise<Finished>;
}

/** Starts `retune <args>` in `cwd`, on one thread so that tests do not fight for cores. */
export function startRetune(args: readonly string[], cwd: string): Running {
  const child = spawn(process.execPath, [entry, ...args], {
    cwd,
    env: { ...process.env, RETUNE_THREADS: '1' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  const waiting = new Set<() => void>();
  const wake = (): void => {
    for (const check of waiting) check();
  };
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    stdout += chunk;
    wake();
  });
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    stderr += chunk;
    wake();
  });
  const finished = once(child, 'close').then(
    ([code, signal]): Finished => ({ code, signal, stdout, stderr }),
  );
  const shows = (text: string): Promise<void> =>
    new Promise((resolve, reject) => {
      const check = (): void => {
        if (!stdout.includes(text) && !stderr.includes(text)) return;
        waiting.delete(check);
        resolve();
      };
      waiting.add(check);
      check();
      finished.then(() =>
        reject(new Error(`it ended without showing '${text}':\n${stdout}${stderr}`)),
      );
    });
  return { child, shows, finished };
}

/** Runs `retune <args>` to its end. */
export function retune(args: readonly string[], cwd: string): Promise<Finished> {
  return startRetune(args, cwd).finished;
}
