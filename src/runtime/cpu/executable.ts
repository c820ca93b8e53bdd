/** Codes and executables of the CPU backend, and how many threads each is worth. */

import type { ComputeType } from '../../ir/expr.ts';
import type { Executable } from '../backend.ts';
import type { CodeKind } from './code-store.ts';
import { storeAddress } from './memory.ts';

/** Code by its key. While it has no number (`id` -1) it is not in the code table. */
export interface Code {
  readonly key: string;
  readonly kind: CodeKind;
  readonly bytes: () => Uint8Array;
  id: number;
  /** Programs that hold the number: it must stay. */
  pins: number;
}

export interface CpuExecutable extends Executable {
  readonly code: Code;
  /** Most threads that it keeps busy. */
  readonly threads: number;
  /** Whether it is worth waking threads that sleep. */
  readonly wakes: boolean;
  /** Types of the run-time scalars. */
  readonly scalars: readonly ComputeType[];
  /** Bytes of scratch per thread; its slot comes after the operands when not 0. */
  readonly scratchBytes: number;
  /** Fixed values in the slots after operands and scratch. */
  readonly values: readonly { readonly type: ComputeType; readonly value: number }[];
  /** What to say when it traps; see WasmRoutine. */
  readonly trap?: string | undefined;
}

/** Vector instructions that are worth a thread which is awake: some microseconds. */
const parallelCost = 8192;

/** Vector instructions that are worth waking a thread: about 0.1 ms. */
export const wakingCost = 400_000;

/** Threads that a generated kernel keeps busy, at most `threads`. */
export function kernelThreads(
  { units, cost }: { readonly units: number; readonly cost: number },
  threads: number,
): number {
  return Math.max(1, Math.min(threads, units, Math.floor(cost / parallelCost)));
}

/** Argument slots of an executable: operands, scratch, scalars, fixed values. */
export function slotCount({ operands, scratchBytes, scalars, values }: CpuExecutable): number {
  return operands + (scratchBytes > 0 ? 1 : 0) + scalars.length + values.length;
}

/** Writes run-time scalars and fixed values into their slots; the arguments begin at `firstSlot`. */
export function storeValues(
  { operands, scratchBytes, scalars: types, values }: CpuExecutable,
  scalars: readonly number[],
  words: Int32Array,
  floats: Float32Array,
  firstSlot: number,
): void {
  let slot = firstSlot + operands + (scratchBytes > 0 ? 1 : 0);
  for (let i = 0; i < types.length; i++) {
    storeScalar(words, floats, slot++, types[i]!, scalars[i]!);
  }
  for (const { type, value } of values) storeScalar(words, floats, slot++, type, value);
}

/** A float32 goes into the low 4 bytes of its slot, an integer into both halves. */
function storeScalar(
  words: Int32Array,
  floats: Float32Array,
  slot: number,
  type: ComputeType,
  value: number,
): void {
  if (type === 'f32') floats[2 * slot] = value;
  else storeAddress(words, 2 * slot, value);
}

/** A cache that keeps the `capacity` most recently used entries that `drop` agrees to lose. */
export class RecentCache<V> {
  readonly #entries = new Map<string, V>();
  readonly #capacity: number;
  /** Called for the least recently used entry; false keeps it (it counts as used). */
  readonly #drop: (value: V) => boolean;

  constructor(capacity: number, drop: (value: V) => boolean) {
    this.#capacity = capacity;
    this.#drop = drop;
  }

  get size(): number {
    return this.#entries.size;
  }

  get(key: string): V | undefined {
    const value = this.#entries.get(key);
    if (value === undefined) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, value);
    return value;
  }

  add(key: string, value: V): void {
    this.#entries.set(key, value);
    for (const [oldKey, old] of this.#entries) {
      if (this.#entries.size <= this.#capacity || old === value) return;
      this.#entries.delete(oldKey);
      if (!this.#drop(old)) this.#entries.set(oldKey, old);
    }
  }
}
