/** Programs of the CPU backend, on the main thread: argument slots, and the runs. Transfers are done between segments of launches. */

import { ArgumentError, DisposedError, invariant, type RetuneError } from '../../core/errors.ts';
import { alignBytes, alignment, type Block } from '../allocator.ts';
import type { LaunchStep, Program, ProgramStep, TransferStep } from '../backend.ts';
import type { Chunk } from '../heap.ts';
import { type ProgramTransfers, isTransfer } from '../program-transfers.ts';
import { type CpuExecutable, slotCount, storeValues } from './executable.ts';
import { type Failure, trapError } from './failure.ts';
import { type SharedMemory, storeAddress } from './memory.ts';
import type { CodeStep } from './program-code.ts';

/** A place in the argument slots that holds an address inside a block. */
export interface SlotPatch {
  /** Word index in the program's argument area. */
  readonly word: number;
  readonly byteOffset: number;
}

/** What a program's steps become in shared memory. */
export interface ProgramLayout {
  readonly codeSteps: readonly CodeStep[];
  /** Per slot of the blocks given to `run`: where its address is written. */
  readonly patches: readonly (readonly SlotPatch[])[];
  /** Words that hold the address of the scratch memory. */
  readonly scratchWords: readonly number[];
}

/** Launches that follow each other, by the number of the first and the one after the last; or a transfer. */
export type Piece =
  | { readonly kind: 'segment'; readonly from: number; readonly to: number }
  | TransferStep;

/** The steps of a program, launches between transfers taken together. */
export function piecesOf(steps: readonly ProgramStep[]): {
  readonly launches: readonly LaunchStep[];
  readonly pieces: readonly Piece[];
} {
  const launches: LaunchStep[] = [];
  const pieces: Piece[] = [];
  let from = 0;
  const close = (): void => {
    if (launches.length > from) pieces.push({ kind: 'segment', from, to: launches.length });
    from = launches.length;
  };
  for (const step of steps) {
    if (!isTransfer(step)) {
      launches.push(step);
      continue;
    }
    close();
    pieces.push(step);
  }
  close();
  return { launches, pieces };
}

export interface ProgramParts extends ProgramLayout {
  readonly launches: readonly LaunchStep[];
  readonly pieces: readonly Piece[];
  readonly transfers: ProgramTransfers;
  readonly memory: SharedMemory;
  /** The argument slots of all steps. */
  readonly args: Chunk;
  /** Address of the scratch memory now; it moves when it has to grow. */
  readonly scratch: () => number;
  /** Runs a segment, counted from 0. */
  readonly execute: (
    segment: number,
    describe: (failure: Failure) => string | RetuneError,
    stepDone?: (launch: number) => void,
  ) => void;
  readonly release: () => void;
}

/** Bytes of argument slots that the steps need. */
export function programArgsBytes(executables: readonly CpuExecutable[]): number {
  const bytes = executables.reduce((sum, executable) => sum + argsBytes(executable), 0);
  return Math.max(bytes, alignment);
}

/** Writes what does not change from run to run into `args`; the codes must be registered. */
export function layOutProgram(
  steps: readonly LaunchStep[],
  executables: readonly CpuExecutable[],
  args: Chunk,
  memory: SharedMemory,
): ProgramLayout {
  const words = memory.words(args.address, args.bytes / 4);
  const floats = new Float32Array(memory.buffer, args.address, args.bytes / 4);
  const patches: SlotPatch[][] = [];
  const scratchWords: number[] = [];
  const codeSteps: CodeStep[] = [];
  let start = 0;
  steps.forEach((step, i) => {
    const executable = executables[i]!;
    const { code, threads, operands, scratchBytes } = executable;
    const firstWord = start / 4;
    step.operands.forEach(({ slot, byteOffset }, operand) => {
      while (patches.length <= slot) patches.push([]);
      patches[slot]!.push({ word: firstWord + 2 * operand, byteOffset });
    });
    storeValues(executable, step.scalars, words, floats, firstWord / 2);
    if (scratchBytes > 0) scratchWords.push(firstWord + 2 * operands);
    codeSteps.push({ code: code.id, args: args.address + start, threads });
    start += argsBytes(executable);
  });
  return { codeSteps, patches, scratchWords };
}

export class CpuProgram implements Program {
  readonly #parts: ProgramParts;
  readonly #words: Int32Array;
  readonly #addresses: number[];
  #scratch = -1;
  #disposed = false;

  constructor(parts: ProgramParts) {
    this.#parts = parts;
    this.#words = parts.memory.words(parts.args.address, parts.args.bytes / 4);
    this.#addresses = parts.patches.map(() => -1);
  }

  run(blocks: readonly Block[]): void {
    this.#run(blocks, undefined);
  }

  profile(blocks: readonly Block[]): readonly number[] {
    const times: number[] = [];
    let last = performance.now();
    this.#run(blocks, () => {
      const now = performance.now();
      times.push(now - last);
      last = now;
    });
    return times;
  }

  /** `stepDone` is called after each launch and each transfer. */
  #run(blocks: readonly Block[], stepDone: (() => void) | undefined): void {
    this.#bind(blocks);
    const { pieces, transfers, execute } = this.#parts;
    let segment = 0;
    try {
      for (const piece of pieces) {
        if (piece.kind === 'segment') {
          execute(segment++, this.#describe, stepDone);
        } else {
          transfers.perform(piece, blocks);
          stepDone?.();
        }
      }
    } finally {
      transfers.end();
    }
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#parts.release();
  }

  /** Writes the addresses that changed since the last run. */
  #bind(blocks: readonly Block[]): void {
    if (this.#disposed) throw new DisposedError('Program.run: the program was disposed.');
    const { patches, scratchWords } = this.#parts;
    if (blocks.length < patches.length) {
      throw new ArgumentError(
        `Program.run: too few blocks (got ${blocks.length} for ${patches.length} slots). ` +
          'Give one block per slot.',
      );
    }
    for (let slot = 0; slot < patches.length; slot++) {
      const { address } = blocks[slot]!;
      if (address === this.#addresses[slot]) continue;
      this.#addresses[slot] = address;
      for (const patch of patches[slot]!) {
        storeAddress(this.#words, patch.word, address + patch.byteOffset);
      }
    }
    const scratch = this.#parts.scratch();
    if (scratch === this.#scratch) return;
    this.#scratch = scratch;
    for (const at of scratchWords) storeAddress(this.#words, at, scratch);
  }

  readonly #describe = (failure: Failure): string | RetuneError => {
    const step = this.#parts.launches[failure.step];
    invariant(step || failure.step < 0, () => `Program: no step ${failure.step}`);
    if (!step) return 'Program.run: the program failed';
    const executable = step.executable as CpuExecutable | undefined;
    return (
      trapError(executable, failure) ?? `Program.run: step ${failure.step} (${step.label}) failed`
    );
  };
}

/** Arguments of two steps never share a cache line. */
function argsBytes(executable: CpuExecutable): number {
  return alignBytes(slotCount(executable) * 8);
}
