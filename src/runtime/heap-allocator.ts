/**
 * The Allocator over a Heap: what the CPU backend (over real memory) and the null backend (over none)
 * use. Freed chunks stay in the heap for reuse.
 */

import { ArgumentError, invariant } from '../core/errors.ts';
import {
  type Allocator,
  alignBytes,
  type Block,
  type MemoryCategory,
  type MemoryEvent,
  MemoryLedger,
  type MemoryStats,
} from './allocator.ts';
import type { Chunk, Heap } from './heap.ts';

export interface HeapAllocatorOptions {
  readonly heap: Heap;
  /** What bounds the heap, for the out-of-memory error. */
  readonly limitName: string;
  /** Gives the pages of free chunks back to the system where that is possible. */
  readonly release?: (chunks: Iterable<Chunk>) => void;
}

class HeapBlock implements Block {
  readonly id: number;
  readonly address: number;
  readonly bytes: number;
  category: MemoryCategory;
  /** Undefined for an empty block and after the block was freed. */
  chunk: Chunk | undefined;
  live = true;

  constructor(id: number, address: number, bytes: number, category: MemoryCategory) {
    this.id = id;
    this.address = address;
    this.bytes = bytes;
    this.category = category;
  }
}

export class HeapAllocator implements Allocator {
  readonly #heap: Heap;
  readonly #limitName: string;
  readonly #release: ((chunks: Iterable<Chunk>) => void) | undefined;
  readonly #ledger = new MemoryLedger();
  #nextId = 1;

  constructor(options: HeapAllocatorOptions) {
    this.#heap = options.heap;
    this.#limitName = options.limitName;
    this.#release = options.release;
  }

  alloc(bytes: number, category: MemoryCategory): Block {
    checkBytes(bytes);
    const size = alignBytes(bytes);
    this.#ledger.check(size, category);
    const chunk = size === 0 ? undefined : this.#heap.alloc(size);
    if (size > 0 && chunk === undefined) {
      const limit = this.#heap.limit - this.#heap.start;
      throw this.#ledger.outOfMemory(size, category, limit, this.#limitName);
    }
    const block = new HeapBlock(this.#nextId++, chunk?.address ?? this.#heap.start, size, category);
    block.chunk = chunk;
    this.#ledger.add(block);
    return block;
  }

  free(block: Block): void {
    invariant(
      block instanceof HeapBlock && block.live,
      () => `free: block ${block.id} was freed already or is of another allocator`,
    );
    block.live = false;
    if (block.chunk) this.#heap.free(block.chunk);
    block.chunk = undefined;
    this.#ledger.remove(block);
  }

  recategorize(block: Block, category: MemoryCategory): void {
    this.#ledger.recategorize(block, category);
  }

  stats(): MemoryStats {
    return this.#ledger.stats(this.#heap.reserved);
  }

  resetPeak(): void {
    this.#ledger.resetPeak();
  }

  get capacity(): number {
    return Math.min(this.#ledger.limit, this.#heap.limit - this.#heap.start);
  }

  setLimit(bytes: number | undefined): void {
    this.#ledger.setLimit(bytes);
  }

  observe(listener: (event: MemoryEvent) => void): () => void {
    return this.#ledger.observe(listener);
  }

  /** WebAssembly memory never shrinks: its pages are given back, its addresses stay reserved. */
  trim(): void {
    this.#release?.(this.#heap.chunks());
  }
}

/** Throws ArgumentError unless `bytes` is a size that a block can have. */
export function checkBytes(bytes: number): void {
  if (!Number.isSafeInteger(bytes) || bytes < 0) {
    throw new ArgumentError(`alloc: the size of a block is not a byte count (got ${bytes}).`, {
      bytes,
    });
  }
}
