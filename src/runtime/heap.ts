/**
 * Divides one growing range of addresses into chunks. Free chunks are joined with free neighbours at
 * once, so two free chunks never touch. Search is best fit among chunks of the same size class, then
 * the smallest chunk of the next class that has any (two-level segregated fit: classes are eighths of
 * a power of two). Knows nothing of memory or statistics; sizes and addresses are multiples of
 * `alignment`.
 */

import { invariant } from '../core/errors.ts';
import { alignment } from './allocator.ts';

/** A range of addresses, in use or free. Changed only by its heap. */
export interface Chunk {
  address: number;
  bytes: number;
  free: boolean;
  /** Neighbours by address. */
  before: Chunk | undefined;
  after: Chunk | undefined;
  /** Neighbours in the list of free chunks of one size class. */
  previousFree: Chunk | undefined;
  nextFree: Chunk | undefined;
}

export interface HeapOptions {
  /** First address; a multiple of `alignment`. */
  readonly start: number;
  /** Address that may never be passed. */
  readonly limit: number;
  /**
   * Called when the heap must reach to at least `end`; returns the end it reaches now (at least
   * `end` and at most `limit`), or undefined when the system has no more.
   */
  readonly grow: (end: number) => number | undefined;
}

/** How many free chunks of the wanted class are looked at for the best fit. */
const searchLength = 32;

const classesPerPower = 8;

export class Heap {
  readonly start: number;
  readonly limit: number;
  readonly #grow: (end: number) => number | undefined;
  #end: number;
  #last: Chunk | undefined;
  /** First free chunk of each size class. */
  readonly #classes: (Chunk | undefined)[] = [];

  constructor(options: HeapOptions) {
    this.start = options.start;
    this.limit = options.limit;
    this.#grow = options.grow;
    this.#end = options.start;
  }

  /** Bytes from the first address to the end reached so far. */
  get reserved(): number {
    return this.#end - this.start;
  }

  /** A chunk of exactly `bytes` (a positive multiple of `alignment`); undefined when nothing fits. */
  alloc(bytes: number): Chunk | undefined {
    let chunk = this.#find(bytes);
    if (chunk === undefined) {
      chunk = this.#extend(bytes);
      if (chunk === undefined) return undefined;
    }
    this.#unlink(chunk);
    chunk.free = false;
    if (chunk.bytes > bytes) this.#split(chunk, bytes);
    return chunk;
  }

  free(chunk: Chunk): void {
    invariant(!chunk.free, () => `Heap.free: the chunk at ${chunk.address} is free already`);
    chunk.free = true;
    const { before, after } = chunk;
    if (after?.free) {
      this.#unlink(after);
      this.#absorb(chunk, after);
    }
    if (before?.free) {
      this.#unlink(before);
      this.#absorb(before, chunk);
      this.#link(before);
    } else {
      this.#link(chunk);
    }
  }

  /** All chunks in order of address, for tests and for giving pages back. */
  *chunks(): Generator<Chunk> {
    let chunk = this.#last;
    while (chunk?.before) chunk = chunk.before;
    for (; chunk; chunk = chunk.after) yield chunk;
  }

  #find(bytes: number): Chunk | undefined {
    const own = sizeClass(bytes);
    let best: Chunk | undefined;
    let looked = 0;
    for (let c = this.#classes[own]; c && looked < searchLength; c = c.nextFree, looked++) {
      if (c.bytes === bytes) return c;
      if (c.bytes > bytes && (best === undefined || c.bytes < best.bytes)) best = c;
    }
    for (let k = own + 1; best === undefined && k < this.#classes.length; k++) {
      looked = 0;
      for (let c = this.#classes[k]; c && looked < searchLength; c = c.nextFree, looked++) {
        if (best === undefined || c.bytes < best.bytes) best = c;
      }
    }
    return best;
  }

  /** Makes room at the end; a free chunk that ends there is made longer. */
  #extend(bytes: number): Chunk | undefined {
    const last = this.#last;
    const have = last?.free ? last.bytes : 0;
    const end = this.#end + bytes - have;
    const reached = end > this.limit ? undefined : this.#grow(end);
    if (reached === undefined) return undefined;
    invariant(reached >= end && reached <= this.limit, () => `Heap: grew to ${reached}`);
    if (last?.free) {
      this.#unlink(last);
      last.bytes += reached - this.#end;
      this.#link(last);
    } else {
      const added = createChunk(this.#end, reached - this.#end);
      added.before = last;
      if (last) last.after = added;
      this.#last = added;
      this.#link(added);
    }
    this.#end = reached;
    return this.#last;
  }

  /** Cuts the tail off a chunk in use and makes it free. */
  #split(chunk: Chunk, bytes: number): void {
    const tail = createChunk(chunk.address + bytes, chunk.bytes - bytes);
    chunk.bytes = bytes;
    tail.before = chunk;
    tail.after = chunk.after;
    if (chunk.after) chunk.after.before = tail;
    else this.#last = tail;
    chunk.after = tail;
    this.#link(tail);
  }

  /** Joins `right` to the chunk that ends where it begins. Neither is linked as free. */
  #absorb(left: Chunk, right: Chunk): void {
    left.bytes += right.bytes;
    left.after = right.after;
    if (right.after) right.after.before = left;
    else this.#last = left;
  }

  #link(chunk: Chunk): void {
    const k = sizeClass(chunk.bytes);
    const first = this.#classes[k];
    chunk.previousFree = undefined;
    chunk.nextFree = first;
    if (first) first.previousFree = chunk;
    while (this.#classes.length <= k) this.#classes.push(undefined);
    this.#classes[k] = chunk;
  }

  #unlink(chunk: Chunk): void {
    const { previousFree, nextFree } = chunk;
    if (previousFree) previousFree.nextFree = nextFree;
    else this.#classes[sizeClass(chunk.bytes)] = nextFree;
    if (nextFree) nextFree.previousFree = previousFree;
    chunk.previousFree = undefined;
    chunk.nextFree = undefined;
  }
}

function createChunk(address: number, bytes: number): Chunk {
  return {
    address,
    bytes,
    free: true,
    before: undefined,
    after: undefined,
    previousFree: undefined,
    nextFree: undefined,
  };
}

/** Monotonic in `bytes`; every power of two (in units of `alignment`) has eight classes. */
function sizeClass(bytes: number): number {
  const units = bytes / alignment;
  if (units < classesPerPower) return units;
  const power = Math.floor(Math.log2(units));
  const eighth = Math.floor((units / 2 ** power - 1) * classesPerPower);
  return power * classesPerPower + eighth - 2 * classesPerPower;
}
