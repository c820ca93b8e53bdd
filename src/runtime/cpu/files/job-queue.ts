/**
 * The queue between the main thread and the thread that reads and writes files, in shared words of its
 * own. The main thread fills the next slot and counts `submitted` up; the file thread does the jobs in
 * order and counts `completed` up. Jobs are numbered from 0; slots are used in turn.
 */

import { lookForChange } from '../waiting.ts';
import { loadAddress, storeAddress } from '../memory.ts';

/** Indices of words; those that different threads write lie on lines of their own. */
export const queueWord = {
  submitted: 0,
  workerSleeps: 16,
  completed: 32,
  exited: 33,
  mainSleeps: 48,
  slots: 64,
} as const;

/** `stop` ends the thread. */
export type JobKind = 'write' | 'read' | 'truncate' | 'stop';
const kinds: readonly JobKind[] = ['write', 'read', 'truncate', 'stop'];

const slotWords = 64;
const slotWord = {
  kind: 0,
  file: 1,
  /** Address in the backend's memory (low, high). */
  address: 2,
  bytes: 4,
  /** Bytes from the start of the file; for truncate: its length from then on. */
  position: 6,
  /** Not 0 when the main thread has lost interest. */
  cancelled: 8,
  /** Length of the failure's text, 0 for success; one word per UTF-16 unit follows. */
  failureLength: 9,
  failureText: 10,
} as const;

/** Jobs that can be under way at once. */
export const queueCapacity = 128;
const maxFailureLength = slotWords - slotWord.failureText;

/** Milliseconds after which a sleeping main thread checks that the file thread is still there. */
const patience = 1000;

export interface Job {
  readonly kind: JobKind;
  /** Descriptor of the open file, which all threads of a process share. */
  readonly file: number;
  readonly address: number;
  readonly bytes: number;
  readonly position: number;
}

/** What the file thread gets when it starts. */
export interface FileThreadStart {
  readonly memory: WebAssembly.Memory;
  readonly memory64: boolean;
  readonly words: Int32Array<SharedArrayBuffer>;
  /** A job to fail and the system code to fail it with, for tests; counted from 0 over jobs of its kind. */
  readonly fault?: { readonly kind: Job['kind']; readonly at: number; readonly code: string };
}

/** The shared words of one queue. */
export function queueWords(): Int32Array<SharedArrayBuffer> {
  const count = queueWord.slots + queueCapacity * slotWords;
  return new Int32Array(new SharedArrayBuffer(4 * count));
}

function slotOf(job: number): number {
  return queueWord.slots + (job % queueCapacity) * slotWords;
}

/** The main thread's side. */
export class JobQueue {
  readonly #words: Int32Array;
  readonly #checkThread: () => void;
  readonly #failures = new Map<number, string>();
  #submitted = 0;
  /** Jobs known to be over, whose failures have been noted. */
  #seen = 0;

  /** `checkThread` throws when the file thread has ended. */
  constructor(words: Int32Array, checkThread: () => void) {
    this.#words = words;
    this.#checkThread = checkThread;
  }

  /** Queues a job; its number. Waits while the queue is full. */
  submit(job: Job): number {
    const number = this.#submitted;
    if (number - this.#look() >= queueCapacity) this.wait(number - queueCapacity);
    const words = this.#words;
    const slot = slotOf(number);
    words[slot + slotWord.kind] = kinds.indexOf(job.kind);
    words[slot + slotWord.file] = job.file;
    storeAddress(words, slot + slotWord.address, job.address);
    storeAddress(words, slot + slotWord.bytes, job.bytes);
    storeAddress(words, slot + slotWord.position, job.position);
    words[slot + slotWord.failureLength] = 0;
    Atomics.store(words, slot + slotWord.cancelled, 0);
    this.#submitted++;
    Atomics.store(words, queueWord.submitted, this.#submitted | 0);
    if (Atomics.load(words, queueWord.workerSleeps) !== 0) {
      Atomics.notify(words, queueWord.submitted);
    }
    return number;
  }

  isDone(job: number): boolean {
    return job < this.#seen || job < this.#look();
  }

  wait(job: number): void {
    const words = this.#words;
    while (!this.isDone(job)) {
      const completed = this.#seen | 0;
      if (lookForChange(words, queueWord.completed, completed)) continue;
      Atomics.store(words, queueWord.mainSleeps, 1);
      const result = Atomics.wait(words, queueWord.completed, completed, patience);
      Atomics.store(words, queueWord.mainSleeps, 0);
      if (result === 'timed-out') this.#checkThread();
    }
  }

  /** The job need not be done any more; one that has begun is finished. */
  cancel(job: number): void {
    if (!this.isDone(job)) Atomics.store(this.#words, slotOf(job) + slotWord.cancelled, 1);
  }

  /** What a job that is over failed with: a system code such as ENOSPC, or a text. */
  failureOf(job: number): string | undefined {
    return this.#failures.get(job);
  }

  forget(job: number): void {
    this.#failures.delete(job);
  }

  /** Notes the failures of jobs that are over by now; their count. */
  #look(): number {
    const words = this.#words;
    const completed = Atomics.load(words, queueWord.completed);
    for (; (this.#seen | 0) !== completed; this.#seen++) {
      const slot = slotOf(this.#seen);
      const length = words[slot + slotWord.failureLength] ?? 0;
      if (length === 0) continue;
      const text = words.subarray(
        slot + slotWord.failureText,
        slot + slotWord.failureText + length,
      );
      this.#failures.set(this.#seen, String.fromCharCode(...text));
    }
    return this.#seen;
  }
}

/** The file thread's side: does jobs until one says stop; `run` returns the text of a failure. */
export function serveJobs(words: Int32Array, run: (job: Job) => string | undefined): void {
  for (let number = 0; ; number++) {
    while (Atomics.load(words, queueWord.submitted) === (number | 0)) {
      if (lookForChange(words, queueWord.submitted, number | 0)) break;
      Atomics.store(words, queueWord.workerSleeps, 1);
      Atomics.wait(words, queueWord.submitted, number | 0);
      Atomics.store(words, queueWord.workerSleeps, 0);
    }
    const slot = slotOf(number);
    const job: Job = {
      kind: kinds[words[slot + slotWord.kind] ?? 0] ?? 'read',
      file: words[slot + slotWord.file] ?? -1,
      address: loadAddress(words, slot + slotWord.address),
      bytes: loadAddress(words, slot + slotWord.bytes),
      position: loadAddress(words, slot + slotWord.position),
    };
    if (job.kind === 'stop') return;
    const cancelled = Atomics.load(words, slot + slotWord.cancelled) !== 0;
    const failure = cancelled ? undefined : run(job);
    const text = failure?.slice(0, maxFailureLength) ?? '';
    for (let i = 0; i < text.length; i++) {
      words[slot + slotWord.failureText + i] = text.charCodeAt(i);
    }
    words[slot + slotWord.failureLength] = text.length;
    Atomics.store(words, queueWord.completed, (number + 1) | 0);
    if (Atomics.load(words, queueWord.mainSleeps) !== 0) Atomics.notify(words, queueWord.completed);
  }
}
