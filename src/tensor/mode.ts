/**
 * Modes: who runs an op. Exactly one is current; a mode delegates by calling the one it was entered
 * over. Eager, trace, shape-only, op log and FLOP count are modes.
 */

import { InternalError } from '../core/errors.ts';
import type { HostTensor } from '../core/host-tensor.ts';
import type { Aval } from '../ir/aval.ts';
import type { AnyOp, Params } from '../ir/op.ts';
import type { MemoryCategory } from '../runtime/allocator.ts';
import type { TensorData } from './data.ts';
import type { Generator } from './generator.ts';
import type { Tensor } from './tensor.ts';

export interface Mode {
  /** Whether ops are recorded into a graph instead of run: checkpoint regions become tags there. */
  readonly tracing: boolean;
  /** Runs one op; the caller owns the returned data, one per output aval. */
  run(
    op: AnyOp,
    inputs: readonly Tensor[],
    params: Params,
    outputs: readonly Aval[],
  ): readonly TensorData[];
  /** Brings a host tensor in. */
  fromHost(tensor: HostTensor, category: MemoryCategory): TensorData;
  /** Reads a tensor's values; modes without values throw CompileError that says where. */
  toHost(tensor: Tensor): Uint8Array;
  toHostAsync(tensor: Tensor): Promise<Uint8Array>;
  /**
   * Host work that belongs to every run of the present step, such as writing this step's learning rate
   * into a tensor: eager modes do it now, a trace keeps it and does it before each run.
   */
  onEachRun(work: () => void): void;
  /** State tensor (uint32[4]) and draw number of the next draw of `generator`. */
  drawState(generator: Generator): { readonly state: Tensor; readonly draw: number };
}

let current: Mode | undefined;
let fallback: (() => Mode) | undefined;

/** Sets what makes the mode used when none was entered: the eager mode. */
export function setBaseMode(make: () => Mode): void {
  fallback = make;
}

export function currentMode(): Mode {
  if (current) return current;
  if (!fallback) throw new InternalError('no base mode was set');
  return fallback();
}

/** Whether some mode other than eager is current. */
export function inMode(): boolean {
  return current !== undefined;
}

/** Runs `body` under the mode that `make` builds over the current one. */
export function withMode<T>(make: (inner: Mode) => Mode, body: () => T): T {
  const before = current;
  current = make(currentMode());
  try {
    return body();
  } finally {
    current = before;
  }
}
