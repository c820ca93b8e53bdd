/**
 * The code table, which the main thread alone writes: gives codes their numbers, puts their bytes
 * into shared memory, and takes the bytes away again when every thread has loaded them.
 */

import { invariant } from '../../core/errors.ts';
import { alignBytes } from '../allocator.ts';
import type { Chunk, Heap } from '../heap.ts';
import { codeCapacity, codeEntry, codeKind, word } from './control.ts';
import { type SharedMemory, storeAddress } from './memory.ts';
import { entryIndex } from './thread-code.ts';

export type CodeKind = Exclude<keyof typeof codeKind, 'none'>;

/** Additions between two looks for bytes that are not needed any more. */
const sweepEvery = 64;

export class CodeStore {
  readonly #memory: SharedMemory;
  readonly #heap: Heap;
  readonly #workers: number;
  readonly #bytes = new Map<number, Chunk>();
  readonly #freeIds: number[] = [];
  #nextId = 0;
  #added = 0;

  constructor(memory: SharedMemory, heap: Heap, workers: number) {
    this.#memory = memory;
    this.#heap = heap;
    this.#workers = workers;
  }

  /** Number of codes whose bytes are still in shared memory. */
  get waiting(): number {
    return this.#bytes.size;
  }

  /** The number of a fresh code; threads load it when they first run it. */
  add(kind: CodeKind, bytes: Uint8Array): number {
    if (++this.#added % sweepEvery === 0) this.sweep();
    const id = this.#freeIds.pop() ?? this.#nextId++;
    invariant(id < codeCapacity, () => `CodeStore: more than ${codeCapacity} codes at once`);
    const chunk = this.#heap.alloc(Math.max(alignBytes(bytes.length), alignBytes(1)));
    invariant(chunk, () => `CodeStore: no memory for ${bytes.length} bytes of code`);
    this.#memory.view(chunk.address, bytes.length).set(bytes);
    this.#bytes.set(id, chunk);
    const control = this.#memory.control;
    const entry = entryIndex(id);
    storeAddress(control, entry + codeEntry.address, chunk.address);
    control[entry + codeEntry.bytes] = bytes.length;
    control[entry + codeEntry.kind] = codeKind[kind];
    Atomics.store(control, entry + codeEntry.loaded, 0);
    return id;
  }

  /** Frees the number; every thread drops the function before it looks at its next command. */
  remove(id: number): void {
    this.#release(id);
    const control = this.#memory.control;
    const entry = entryIndex(id);
    control[entry + codeEntry.kind] = codeKind.none;
    control[entry + codeEntry.generation]!++;
    Atomics.add(control, word.removals, 1);
    this.#freeIds.push(id);
  }

  /** Frees the bytes of codes that every worker has loaded. */
  sweep(): void {
    for (const id of [...this.#bytes.keys()]) {
      const loaded = Atomics.load(this.#memory.control, entryIndex(id) + codeEntry.loaded);
      if (loaded >= this.#workers) this.#release(id);
    }
  }

  #release(id: number): void {
    const chunk = this.#bytes.get(id);
    if (chunk) this.#heap.free(chunk);
    this.#bytes.delete(id);
  }
}
