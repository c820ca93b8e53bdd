/**
 * The first bytes of the shared memory: how threads talk to each other. Indices count 32-bit words;
 * words that different threads write often lie on lines of their own (16 words).
 *
 * A command is one code run by the first `threads` threads: the main thread fills in the command
 * words, sets `pending` to the number of workers that take part and changes `signal` of each of them.
 * A worker runs its share and takes one from `pending`. Since the main thread waits for zero before
 * it returns, a command's words never change while somebody reads them.
 */

export const word = {
  /** Workers that have started. */
  ready: 0,
  /** Counts codes that were taken out of the table, so that threads drop theirs. */
  removals: 1,
  /** Not 0 once a thread has failed in the present command. */
  failed: 2,
  /** Pages of the memory after the last growth. */
  pages: 3,
  /** How matrix multiply works: address (low, high) and length of a JSON text. */
  matmulAddress: 4,
  matmulBytes: 6,
  /** The program step that failed; -1 outside programs. */
  failedStep: 7,
  pending: 16,
  mainSleeps: 17,
  arrived: 32,
  phase: 48,
  phaseSleepers: 49,
  commandCode: 64,
  commandArgs: 65,
  commandThreads: 67,
  /** Not 0 when a program shall meet after every step, for profiles. */
  commandStepwise: 68,
  workers: 128,
} as const;

/** Words of one worker, from `word.workers + worker * workerWords`. */
export const workerWords = 16;
export const workerWord = { signal: 0, sleeps: 1, exited: 2 } as const;

/** Threads that the control area has room for, the main one included. */
export const maxThreads = 256;

/** A code number that stands for "leave". */
export const stopCode = -1;

/** Text of the first failure: a word with the length, then one word per UTF-16 unit. */
export const failureStart = 20480;
export const maxFailureLength = 1000;

/** Arguments of a kernel that is launched alone. */
export const launchArgsStart = 24576;
export const launchSlots = 1024;

/** The code table: `codeEntryWords` words per code. */
export const codeTableStart = 65536;
export const codeCapacity = 16384;
export const codeEntryWords = 8;
export const codeEntry = {
  /** Address of the bytes (low, high). */
  address: 0,
  bytes: 2,
  kind: 3,
  /** Changes whenever the number is given to another code. */
  generation: 4,
  /** Workers that have loaded it. */
  loaded: 5,
} as const;

/** Meaning of the bytes of a code. */
export const codeKind = { none: 0, module: 1, gemm: 2, program: 3 } as const;

export const heapStart = codeTableStart + codeCapacity * codeEntryWords * 4;
