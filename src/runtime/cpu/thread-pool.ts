/**
 * The threads of a CPU backend, seen from the main one, which is thread 0 and takes part in the work.
 * Workers start in the background; until all are there the main thread works alone. They do not keep
 * the process alive.
 */

import { DisposedError, InternalError, RetuneError } from '../../core/errors.ts';
import { stopCode, word, workerWord, workerWords } from './control.ts';
import { reportFailure, takeFailure, type Failure } from './failure.ts';
import { type SharedMemory, storeAddress } from './memory.ts';
import { startWorker } from './platform.ts';
import { CodeThread } from './thread-code.ts';
import { isAsleep, lookTime, rouse, sendSignal, waitForWorkers } from './waiting.ts';

/** How many threads a command wants. */
export interface Crew {
  readonly threads: number;
  /** Whether workers that sleep shall be woken; otherwise the main thread works alone. */
  readonly wakes: boolean;
}

export class ThreadPool {
  readonly threads: number;
  readonly #memory: SharedMemory;
  readonly #main: CodeThread;
  #state: 'running' | 'lost' | 'disposed' = 'running';
  #loss = '';
  /** When a command was last run alone because workers slept. */
  #missed = Number.NEGATIVE_INFINITY;

  /** `setUpMatmul` is called before the first code that multiplies matrices is loaded. */
  constructor(memory: SharedMemory, threads: number, setUpMatmul: () => void) {
    this.threads = threads;
    this.#memory = memory;
    this.#main = new CodeThread(memory, 0, () => this.#checkWorkers(), setUpMatmul);
    for (let worker = 0; worker < threads - 1; worker++) {
      const start = { memory: memory.memory, memory64: memory.memory64, worker };
      startWorker(start, (error) => this.#lose(worker, error));
    }
  }

  /** Workers that take commands by now. */
  get ready(): number {
    return Atomics.load(this.#memory.control, word.ready);
  }

  /** Makes the main thread forget functions of removed codes. */
  catchUp(): void {
    this.#main.catchUp();
  }

  /** Loads a code on the main thread, so that an invalid one is found when it is made. */
  load(code: number): void {
    this.#main.code(code);
  }

  /**
   * Runs a code and returns when all threads are done. A failure of any thread is thrown as
   * InternalError, with the text of `describe`, or as the error that `describe` gives.
   */
  run(
    code: number,
    args: number,
    wanted: Crew,
    describe: (failure: Failure) => string | RetuneError,
    stepDone?: (step: number) => void,
  ): void {
    const { control } = this.#memory;
    if (this.#state !== 'running') throw this.#stopped();
    const crew = this.#crew(wanted);
    control[word.commandStepwise] = stepDone ? 1 : 0;
    if (crew > 1) {
      control[word.commandCode] = code;
      storeAddress(control, word.commandArgs, args);
      control[word.commandThreads] = crew;
      Atomics.store(control, word.pending, crew - 1);
      for (let worker = 0; worker < crew - 1; worker++) {
        sendSignal(control, signalOf(worker));
      }
    }
    if (stepDone) this.#main.stepDone = stepDone;
    try {
      this.#main.code(code)(args, 0, crew);
    } catch (error) {
      if (this.#loss !== '') throw error;
      reportFailure(control, 0, -1, error);
    }
    if (crew > 1) waitForWorkers(control, this.#main.checkWorkers);
    const failure = takeFailure(control);
    if (!failure) return;
    const reason = describe(failure);
    throw reason instanceof RetuneError ? reason : new InternalError(`${reason}: ${failure.text}`);
  }

  /** Threads that take part: all that are wanted, or the main one alone. */
  #crew({ threads, wakes }: Crew): number {
    const crew = Math.min(threads, this.threads);
    if (crew === 1 || this.ready < this.threads - 1) return 1;
    if (wakes) return crew;
    for (let worker = 0; worker < crew - 1; worker++) {
      if (!isAsleep(this.#memory.control, signalOf(worker))) continue;
      this.#rouse(crew);
      return 1;
    }
    return crew;
  }

  /**
   * Wakes workers without giving them work when commands that could use them come thick and fast, so
   * that they look for one of the next.
   */
  #rouse(crew: number): void {
    const now = performance.now();
    if (now - this.#missed < lookTime) {
      for (let worker = 0; worker < crew - 1; worker++) {
        rouse(this.#memory.control, signalOf(worker));
      }
    }
    this.#missed = now;
  }

  /** Tells the workers to leave. */
  dispose(): void {
    if (this.#state === 'running') {
      const { control } = this.#memory;
      control[word.commandCode] = stopCode;
      for (let worker = 0; worker < this.threads - 1; worker++) {
        sendSignal(control, signalOf(worker));
      }
    }
    this.#state = 'disposed';
  }

  /** While waiting: whether every worker is still there. */
  #checkWorkers(): void {
    for (let worker = 0; worker < this.threads - 1; worker++) {
      const exited = word.workers + worker * workerWords + workerWord.exited;
      if (Atomics.load(this.#memory.control, exited) === 0) continue;
      this.#lose(worker, 'it exited');
      throw this.#stopped();
    }
  }

  #lose(worker: number, reason: unknown): void {
    if (this.#state !== 'running') return;
    this.#state = 'lost';
    this.#loss = `thread ${worker + 1} ended: ${reason instanceof Error ? reason.message : reason}`;
  }

  #stopped(): Error {
    return this.#state === 'disposed'
      ? new DisposedError('cpu backend: it was disposed. Create another one.')
      : new InternalError(`cpu backend: ${this.#loss}`);
  }
}

function signalOf(worker: number): number {
  return word.workers + worker * workerWords + workerWord.signal;
}
