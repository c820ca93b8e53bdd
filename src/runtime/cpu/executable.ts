/** Codes and executables of the CPU backend, and how many threads each is worth. */

import type { ComputeType } from '../../ir/expr.ts';
import type { KernelSpec } from '../../ir/kernel.ts';
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
  /** Most threads that are worth waking. */
  readonly threads: number;
  /** Types of the run-time scalars. */
  readonly scalars: readonly ComputeType[];
  /** Bytes of scratch per thread; its slot comes after the operands when not 0. */
  readonly scratchBytes: number;
  /** Fixed values in the slots after operands and scratch. */
  readonly values: readonly { readonly type: ComputeType; readonly value: number }[];
}

/** Points of a kernel's space from which a second thread is worth waking, and for each further. */
const parallelPoints = 16384;

/** Threads that a kernel keeps busy: by its size, and never more than there are kept points. */
export function kernelThreads(spec: KernelSpec, threads: number): number {
  let points = 1;
  let kept = 1;
  spec.space.forEach((size, axis) => {
    points *= size;
    if (!spec.reduced.includes(axis)) kept *= size;
  });
  if (points < parallelPoints) return 1;
  return Math.max(1, Math.min(threads, kept, Math.floor((2 * points) / parallelPoints)));
}

/** Writes a scalar into a slot: a float32 into its low 4 bytes, an integer into both halves. */
export function storeScalar(
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
