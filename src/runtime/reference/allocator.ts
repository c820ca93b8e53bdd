/**
 * The allocator of the reference backend: an array of float64 slots per block, one slot per byte, so
 * that byte offsets mean the same as elsewhere. Statistics count the bytes that a real device would
 * hold; nothing is cached.
 */

import { invariant } from '../../core/errors.ts';
import {
  type Allocator,
  alignBytes,
  type Block,
  type MemoryCategory,
  type MemoryEvent,
  MemoryLedger,
  type MemoryStats,
} from '../allocator.ts';
import { checkBytes } from '../heap-allocator.ts';

export class ReferenceBlock implements Block {
  readonly id: number;
  readonly address = 0;
  readonly bytes: number;
  category: MemoryCategory;
  /** An element of byte width w whose first byte is b lies in slot b; the w - 1 after it are unused. */
  slots: Float64Array;
  live = true;

  constructor(id: number, bytes: number, category: MemoryCategory) {
    this.id = id;
    this.bytes = bytes;
    this.category = category;
    this.slots = new Float64Array(bytes);
  }
}

export class ReferenceAllocator implements Allocator {
  readonly #ledger = new MemoryLedger();
  #nextId = 1;

  alloc(bytes: number, category: MemoryCategory): Block {
    checkBytes(bytes);
    const size = alignBytes(bytes);
    this.#ledger.check(size, category);
    const block = this.#create(size, category);
    this.#ledger.add(block);
    return block;
  }

  free(block: Block): void {
    invariant(
      block instanceof ReferenceBlock && block.live,
      () => `free: block ${block.id} was freed already or is of another allocator`,
    );
    block.live = false;
    block.slots = new Float64Array(0);
    this.#ledger.remove(block);
  }

  recategorize(block: Block, category: MemoryCategory): void {
    this.#ledger.recategorize(block, category);
  }

  stats(): MemoryStats {
    const stats = this.#ledger.stats(0);
    return { ...stats, reserved: stats.live };
  }

  resetPeak(): void {
    this.#ledger.resetPeak();
  }

  get capacity(): number {
    return this.#ledger.limit;
  }

  setLimit(bytes: number | undefined): void {
    this.#ledger.setLimit(bytes);
  }

  observe(listener: (event: MemoryEvent) => void): () => void {
    return this.#ledger.observe(listener);
  }

  trim(): void {}

  #create(size: number, category: MemoryCategory): ReferenceBlock {
    try {
      return new ReferenceBlock(this.#nextId++, size, category);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      const limit = this.#ledger.stats(0).live;
      throw this.#ledger.outOfMemory(size, category, limit, 'what the system gives');
    }
  }
}
