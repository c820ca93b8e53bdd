/** What the codes that a thread runs have in common. */

import type { SharedMemory } from './memory.ts';

/**
 * One thread's share of a code. `args` is the address of the argument slots; the same call is made
 * on threads 0 to threads - 1.
 */
export type ThreadCode = (args: number, thread: number, threads: number) => void;

/** The running thread, as its codes see it. */
export interface Thread {
  readonly memory: SharedMemory;
  /** 0 is the main thread. */
  readonly thread: number;
  /** The function of a code, which is loaded when it is not yet. */
  code(id: number): ThreadCode;
  /** Throws when a thread has ended that others wait for; called now and then while waiting. */
  checkWorkers(): void;
  /** Called after each step of a program that runs stepwise. */
  stepDone(step: number): void;
}
