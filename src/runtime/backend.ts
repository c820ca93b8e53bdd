/**
 * What a device must offer. A backend owns memory (blocks from its allocator) and runs kernels on it;
 * it knows nothing of tensors or gradients. Two ways to run: `launch` for one kernel now (eager), and
 * `createProgram` for a fixed list of kernels that is run many times (compiled).
 */

import type { DType } from '../core/dtype.ts';
import type { KernelSpec } from '../ir/kernel.ts';
import type { Operand, Params, Routine } from '../ir/op.ts';
import type { Allocator, Block, BlockRef } from './allocator.ts';
import type { CostCache } from './cost-cache.ts';
import type { BlockTransfer, TransferPlace } from './transfer.ts';

export type { BlockRef };

/** A kernel with its layouts, ready to be turned into code. Operands are inputs, then outputs. */
export type Lowered =
  | { readonly kind: 'kernel'; readonly spec: KernelSpec; readonly scalars: readonly number[] }
  | {
      readonly kind: 'routine';
      readonly name: string;
      // biome-ignore lint/suspicious/noExplicitAny: the params type belongs to the routine.
      readonly routine: Routine<any>;
      readonly inputs: readonly Operand[];
      readonly outputs: readonly Operand[];
      readonly params: Params;
    };

/** Compiled code for one Lowered; position independent, cached by the backend. */
export interface Executable {
  readonly key: string;
  /** Number of operand pointers it takes. */
  readonly operands: number;
}

export interface LaunchStep {
  readonly kind?: 'launch';
  readonly executable: Executable;
  /** Values of the run-time scalars, as in Lowered. */
  readonly scalars: readonly number[];
  /** For each operand: which of the blocks given to `run`, and the byte offset inside it. */
  readonly operands: readonly { readonly slot: number; readonly byteOffset: number }[];
  /** Bytes to copy instead of a kernel, when set: from operand 0 to operand 1. */
  readonly copyBytes?: number;
  /** What to say of this step in errors and profiles. */
  readonly label: string;
}

/**
 * Moving a buffer out of memory and back in between kernels, in four steps. From `store` to `stored` the bytes must stay
 * as they are and in place; from `fetch` on the target must be live, and from `fetched` on it holds the bytes.
 */
export interface TransferStep {
  readonly kind: 'store' | 'stored' | 'fetch' | 'fetched';
  /** Which of the run's parcels: one `store` and one `stored`, then any number of fetches. */
  readonly parcel: number;
  readonly slot: number;
  readonly byteOffset: number;
  readonly bytes: number;
  readonly label: string;
}

export type ProgramStep = LaunchStep | TransferStep;

export interface Program {
  /**
   * Runs all steps in order on these blocks; returns when their effects are visible to `read`. Throws FileError when a
   * transfer fails: the steps from there on have not run. No parcel is left either way.
   */
  run(blocks: readonly Block[]): void;
  /** As `run`, timing each step; milliseconds, in step order. */
  profile(blocks: readonly Block[]): readonly number[];
  dispose(): void;
}

export interface Backend {
  readonly name: 'cpu' | 'reference' | 'null' | 'webgpu';
  readonly allocator: Allocator;
  /** Short facts for `retune info`: threads, matmul library, SIMD features, device name. */
  readonly info: Readonly<Record<string, string>>;
  /** Whether `read` may be called synchronously. */
  readonly synchronous: boolean;
  /**
   * Copies bytes to the device. `dtype` says what they are: the reference backend, which stores
   * numbers instead of bytes, needs it; the others do not look at it.
   */
  write(target: BlockRef, data: Uint8Array, dtype?: DType): void;
  /** Copies bytes to the host. The null backend returns zeros. For `dtype` see `write`. */
  read(source: BlockRef, bytes: number, dtype?: DType): Uint8Array;
  readAsync(source: BlockRef, bytes: number, dtype?: DType): Promise<Uint8Array>;
  fillZero(target: BlockRef, bytes: number): void;
  /** Code for a kernel, from the cache when an equal one was prepared before. */
  prepare(lowered: Lowered): Executable;
  /** Queues one kernel after everything queued before it. */
  launch(executable: Executable, scalars: readonly number[], operands: readonly BlockRef[]): void;
  /** `place`: where transfers go, one of `transferPlaces`; it is opened by the first run that moves something. */
  createProgram(steps: readonly ProgramStep[], place?: TransferPlace): Program;
  /** What work was found to cost on this device, in other processes too where there is a place to keep it. */
  readonly costs: CostCache;
  /** Places that blocks can be moved to; the first is the usual one. */
  readonly transferPlaces: readonly TransferPlace['to'][];
  /**
   * Copies of blocks at this place, one of `transferPlaces`; the backend closes it. Throws FileError
   * when the place cannot be used.
   */
  openTransfer(place: TransferPlace): BlockTransfer;
  /** Stops threads and releases device memory. */
  dispose(): void;
}
