/**
 * Runs an entry file under a Node that is new enough. Plain JavaScript that Node 20 can read.
 * Retune needs Node 24: it runs TypeScript directly and uses memory64 and relaxed SIMD.
 */

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

export const requiredMajor = 24;

/** Whether a version such as '20.11.1' is below what Retune needs. */
export function isTooOld(version) {
  return Number.parseInt(version, 10) < requiredMajor;
}

/** Path of the Node that the `node` package brought; undefined when it is not installed. */
export function findBundledNode(fromUrl) {
  try {
    const manifest = createRequire(fromUrl).resolve('node/package.json');
    const name = process.platform === 'win32' ? 'node.exe' : 'node';
    const binary = path.join(path.dirname(manifest), 'bin', name);
    return existsSync(binary) ? binary : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Runs `binary` with `argv` and becomes it as far as a parent can: same standard streams, signals
 * passed on, same exit code or signal at the end.
 *
 * Ctrl-C in a terminal already reaches both processes; passing it on would deliver it twice, and a
 * second Ctrl-C means "stop now". So SIGINT is passed on only when there is no terminal.
 */
export function becomeChild(binary, argv) {
  const child = spawn(binary, argv, { stdio: 'inherit' });
  const forward = (signal) => {
    if (signal === 'SIGINT' && process.stdin.isTTY) return;
    child.kill(signal);
  };
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR2'];
  for (const signal of signals) process.on(signal, forward);
  child.on('error', (error) => {
    console.error(`retune: cannot start ${binary} (got ${error.message}).`);
    process.exitCode = 1;
  });
  child.on('exit', (code, signal) => {
    for (const name of signals) process.off(name, forward);
    if (signal === null) process.exitCode = code ?? 1;
    else process.kill(process.pid, signal);
  });
}
