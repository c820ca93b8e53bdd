/**
 * Waiting between threads: look for a while (a change is seen in about 0.1 us), then sleep (waking
 * takes tens of microseconds, but a sleeping thread costs nothing).
 */

import { word, workerWord } from './control.ts';

/** Time that a thread looks before it sleeps, in milliseconds. */
export const lookTime = 0.08;

/** Milliseconds after which a sleeping main thread checks that the workers are still there. */
const patience = 1000;

/** Reads of a word between two looks at the clock. */
const burst = 64;

/** Waits until the word is not `value`, at most `lookTime`; whether it changed. */
export function lookForChange(words: Int32Array, index: number, value: number): boolean {
  const end = performance.now() + lookTime;
  do {
    for (let i = 0; i < burst; i++) if (Atomics.load(words, index) !== value) return true;
  } while (performance.now() < end);
  return false;
}

/** Worker side: waits until `signal` (word index of its mailbox) is not `seen`; its value then. */
export function waitForSignal(words: Int32Array, signal: number, seen: number): number {
  const sleeps = signal - workerWord.signal + workerWord.sleeps;
  while (!lookForChange(words, signal, seen)) {
    Atomics.store(words, sleeps, 1);
    Atomics.wait(words, signal, seen);
    Atomics.store(words, sleeps, 0);
  }
  return Atomics.load(words, signal);
}

/** Main side: sends the worker whose mailbox is at `signal` a signal. */
export function sendSignal(words: Int32Array, signal: number): void {
  Atomics.add(words, signal, 1);
  rouse(words, signal);
}

/** Whether the worker sleeps, or is about to. */
export function isAsleep(words: Int32Array, signal: number): boolean {
  return Atomics.load(words, signal - workerWord.signal + workerWord.sleeps) !== 0;
}

/** Wakes the worker if it sleeps; without a signal it looks for one and then sleeps again. */
export function rouse(words: Int32Array, signal: number): void {
  if (isAsleep(words, signal)) Atomics.notify(words, signal);
}

/** Main side: waits until every worker has finished the command. */
export function waitForWorkers(words: Int32Array, checkWorkers: () => void): void {
  for (;;) {
    const left = Atomics.load(words, word.pending);
    if (left === 0) return;
    if (lookForChange(words, word.pending, left)) continue;
    Atomics.store(words, word.mainSleeps, 1);
    const now = Atomics.load(words, word.pending);
    const result = now === 0 ? 'ok' : Atomics.wait(words, word.pending, now, patience);
    Atomics.store(words, word.mainSleeps, 0);
    if (result === 'timed-out') checkWorkers();
  }
}

/** Worker side: says that its share of the command is done. */
export function finishShare(words: Int32Array): void {
  if (Atomics.sub(words, word.pending, 1) === 1 && Atomics.load(words, word.mainSleeps) !== 0) {
    Atomics.notify(words, word.pending);
  }
}

/**
 * Returns when all `threads` threads have called it. The last one to arrive starts the next phase.
 * What a thread wrote before is visible to every thread after.
 */
export function barrier(words: Int32Array, threads: number, checkWorkers: () => void): void {
  const phase = Atomics.load(words, word.phase);
  if (Atomics.add(words, word.arrived, 1) === threads - 1) {
    Atomics.store(words, word.arrived, 0);
    Atomics.add(words, word.phase, 1);
    if (Atomics.load(words, word.phaseSleepers) !== 0) Atomics.notify(words, word.phase);
    return;
  }
  while (!lookForChange(words, word.phase, phase)) {
    Atomics.add(words, word.phaseSleepers, 1);
    const result = Atomics.wait(words, word.phase, phase, patience);
    Atomics.sub(words, word.phaseSleepers, 1);
    if (result === 'timed-out') checkWorkers();
  }
}
