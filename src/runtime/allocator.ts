/**
 * Memory accounting shared by all backends, and the interface of their allocators. Statistics are
 * exact: bytes handed out, rounded up to `alignment`, by category. A caching allocator keeps freed
 * blocks for reuse; `reserved` counts those too, `live` does not.
 */

import { formatBytes } from '../core/bytes.ts';
import { OutOfMemoryError } from '../core/errors.ts';

export type MemoryCategory =
  | 'parameter'
  | 'gradient'
  | 'optimizer'
  | 'activation'
  | 'temporary'
  | 'input';

export const memoryCategories: readonly MemoryCategory[] = [
  'parameter',
  'gradient',
  'optimizer',
  'activation',
  'temporary',
  'input',
];

/** Every block starts at a multiple of this many bytes and its size is rounded up to it. */
export const alignment = 64;

export function alignBytes(bytes: number): number {
  return Math.ceil(bytes / alignment) * alignment;
}

/** A piece of device memory. Made and freed only by its allocator. */
export interface Block {
  readonly id: number;
  /** Byte address in the backend's memory; meaning is the backend's. */
  readonly address: number;
  /** Rounded up to `alignment`. */
  readonly bytes: number;
  category: MemoryCategory;
}

/** Where an operand lies in a block: its pointer is the block's start plus `byteOffset`. */
export interface BlockRef {
  readonly block: Block;
  /** Bytes; layout offsets are not included here: they are part of the lowered kernel. */
  readonly byteOffset: number;
}

export interface MemoryEvent {
  readonly kind: 'alloc' | 'free' | 'recategorize';
  readonly block: number;
  readonly bytes: number;
  readonly category: MemoryCategory;
  /** Live bytes after the event. */
  readonly live: number;
  /** Milliseconds, performance.now(). */
  readonly time: number;
}

export interface MemoryStats {
  /** Bytes in blocks that are in use. */
  readonly live: number;
  /** Highest `live` since the last resetPeak. */
  readonly peak: number;
  /** Bytes taken from the system, cached free blocks included. */
  readonly reserved: number;
  readonly byCategory: Readonly<Record<MemoryCategory, number>>;
  /** Live bytes of each category at the moment of `peak`. */
  readonly peakByCategory: Readonly<Record<MemoryCategory, number>>;
  /** Blocks in use. */
  readonly blocks: number;
}

export interface Allocator {
  /** Throws OutOfMemoryError that says what was asked, what is live by category, and what helps. */
  alloc(bytes: number, category: MemoryCategory): Block;
  free(block: Block): void;
  recategorize(block: Block, category: MemoryCategory): void;
  stats(): MemoryStats;
  /** Starts a new peak measurement at the present live bytes. */
  resetPeak(): void;
  /** The most live bytes there can ever be: the limit that was set, or the end of addresses; Infinity for none. */
  readonly capacity: number;
  /** Limit on live bytes; undefined lifts it. */
  setLimit(bytes: number | undefined): void;
  /** Called for every event until the returned function is called. */
  observe(listener: (event: MemoryEvent) => void): () => void;
  /** Gives cached free blocks back. */
  trim(): void;
}

/** The bookkeeping every allocator shares; a backend supplies where bytes come from. */
export class MemoryLedger {
  #live = 0;
  #peak = 0;
  #blocks = 0;
  #limit: number | undefined;
  #byCategory = zeroCategories();
  #peakByCategory = zeroCategories();
  readonly #listeners = new Set<(event: MemoryEvent) => void>();

  /** Checks the limit before an allocation of `bytes` (already aligned). */
  check(bytes: number, category: MemoryCategory): void {
    if (this.#limit !== undefined && this.#live + bytes > this.#limit) {
      throw this.outOfMemory(bytes, category, this.#limit, 'the limit that was set');
    }
  }

  add(block: Block): void {
    this.#live += block.bytes;
    this.#blocks++;
    this.#byCategory[block.category] += block.bytes;
    if (this.#live > this.#peak) this.#markPeak();
    this.#emit('alloc', block);
  }

  remove(block: Block): void {
    this.#live -= block.bytes;
    this.#blocks--;
    this.#byCategory[block.category] -= block.bytes;
    this.#emit('free', block);
  }

  recategorize(block: Block, category: MemoryCategory): void {
    this.#byCategory[block.category] -= block.bytes;
    this.#byCategory[category] += block.bytes;
    block.category = category;
    this.#emit('recategorize', block);
  }

  stats(reserved: number): MemoryStats {
    return {
      live: this.#live,
      peak: this.#peak,
      reserved,
      byCategory: { ...this.#byCategory },
      peakByCategory: { ...this.#peakByCategory },
      blocks: this.#blocks,
    };
  }

  resetPeak(): void {
    this.#markPeak();
  }

  get limit(): number {
    return this.#limit ?? Number.POSITIVE_INFINITY;
  }

  setLimit(bytes: number | undefined): void {
    this.#limit = bytes;
  }

  observe(listener: (event: MemoryEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  outOfMemory(
    bytes: number,
    category: MemoryCategory,
    limit: number,
    limitName: string,
  ): OutOfMemoryError {
    const held = memoryCategories
      .filter((name) => this.#byCategory[name] > 0)
      .map((name) => `${name} ${formatBytes(this.#byCategory[name])}`)
      .join(', ');
    return new OutOfMemoryError(
      `alloc: out of memory for a block of category ${category} (got ${formatBytes(bytes)} asked, ` +
        `${formatBytes(this.#live)} live${held === '' ? '' : `: ${held}`}, ${limitName} ${formatBytes(limit)}). ` +
        'Turn on or strengthen activation checkpointing, or use a smaller batch or sequence.',
      { requested: bytes, live: this.#live, limit, byCategory: { ...this.#byCategory } },
    );
  }

  #markPeak(): void {
    this.#peak = this.#live;
    this.#peakByCategory = { ...this.#byCategory };
  }

  #emit(kind: MemoryEvent['kind'], block: Block): void {
    if (this.#listeners.size === 0) return;
    const event: MemoryEvent = {
      kind,
      block: block.id,
      bytes: block.bytes,
      category: block.category,
      live: this.#live,
      time: performance.now(),
    };
    for (const listener of this.#listeners) listener(event);
  }
}

function zeroCategories(): Record<MemoryCategory, number> {
  return { parameter: 0, gradient: 0, optimizer: 0, activation: 0, temporary: 0, input: 0 };
}
