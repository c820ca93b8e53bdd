/**
 * What the CPU backend asks of the JavaScript host. Node's modules are fetched at run time, so that
 * this folder loads in a browser too.
 */

import { UnsupportedError } from '../../core/errors.ts';
import type { FileThreadStart } from './files/job-queue.ts';

/** What a worker gets when it starts. */
export interface WorkerStart {
  readonly memory: WebAssembly.Memory;
  readonly memory64: boolean;
  /** Number of the worker, from 0; its thread number is one more. */
  readonly worker: number;
}

/** Cores that this process may use. */
export function availableThreads(): number {
  const os = nodeModule('node:os');
  return os?.availableParallelism() ?? globalThis.navigator?.hardwareConcurrency ?? 1;
}

/** Whether threads can be started, so that more than one thread makes sense. */
export function hasWorkers(): boolean {
  return nodeModule('node:worker_threads') !== undefined;
}

/**
 * Starts a thread that runs worker.ts. It does not keep the process alive. `onFailure` is called
 * when it ends by an error, with what is known about it.
 */
export function startWorker(start: WorkerStart, onFailure: (error: unknown) => void): void {
  const threads = nodeModule('node:worker_threads');
  if (threads === undefined) {
    throw new UnsupportedError('startWorker: this host has no worker threads. Use 1 thread.');
  }
  const worker = new threads.Worker(new URL('./worker.ts', import.meta.url), {
    workerData: start,
    name: `retune-${start.worker + 1}`,
    // Options of this process such as --eval and --import are not for the worker.
    execArgv: [],
  });
  worker.on('error', onFailure);
  worker.unref();
}

/** Starts the thread of files/file-thread.ts, with the same care. */
export function startFileThread(start: FileThreadStart, onFailure: (error: unknown) => void): void {
  const threads = nodeModule('node:worker_threads');
  if (threads === undefined) {
    throw new UnsupportedError(
      'offloadActivations: this host has no worker threads. Turn offloading off.',
    );
  }
  const worker = new threads.Worker(new URL('./files/file-thread.ts', import.meta.url), {
    workerData: start,
    name: 'retune-files',
    execArgv: [],
  });
  worker.on('error', onFailure);
  worker.unref();
}

/** Worker side: what `startWorker` was given. */
export function receiveStart(): WorkerStart {
  const data: unknown = nodeModule('node:worker_threads')?.workerData;
  if (typeof data !== 'object' || data === null) {
    throw new UnsupportedError('worker: it was not started by a CPU backend.');
  }
  return data as WorkerStart;
}

/** Worker side: calls `listener` when this thread ends for whatever reason. */
export function onThreadExit(listener: () => void): void {
  globalThis.process?.on('exit', listener);
}

/** Operating system and processor, in Node's words; 'browser' outside Node. */
export function hostPlatform(): { readonly system: string; readonly processor: string } {
  const { platform, arch } = globalThis.process ?? {};
  return { system: platform ?? 'browser', processor: arch ?? 'unknown' };
}

/** The processor's name, where the host tells it. */
export function processorModel(): string {
  return nodeModule('node:os')?.cpus()[0]?.model.trim() ?? hostPlatform().processor;
}

/** An optional package of this installation; undefined when it is not there. */
export function requirePackage(name: string): unknown {
  const modules = nodeModule('node:module');
  if (modules === undefined) return undefined;
  try {
    return modules.createRequire(import.meta.url)(name);
  } catch {
    return undefined;
  }
}

interface Builtins {
  'node:crypto': typeof import('node:crypto');
  'node:fs': typeof import('node:fs');
  'node:path': typeof import('node:path');
  'node:os': typeof import('node:os');
  'node:worker_threads': typeof import('node:worker_threads');
  'node:module': typeof import('node:module');
}

/** One of Node's own modules; undefined in a browser. */
export function nodeModule<N extends keyof Builtins>(name: N): Builtins[N] | undefined {
  return globalThis.process?.getBuiltinModule?.(name) as Builtins[N] | undefined;
}
