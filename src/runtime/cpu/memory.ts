/**
 * The one shared WebAssembly memory of a CPU backend, as one thread sees it. Addresses are plain
 * numbers of bytes. The control area is viewed once; other views are made when needed because a view
 * made before a growth does not reach the added pages.
 */

import { UnsupportedError } from '../../core/errors.ts';
import { heapStart, word } from './control.ts';

const pageBytes = 65536;
const growStep = 64 * 2 ** 20;

export class SharedMemory {
  readonly memory: WebAssembly.Memory;
  readonly memory64: boolean;
  /** The control area and the code table. */
  readonly control: Int32Array<SharedArrayBuffer>;
  #pages: number;
  #bytes: Uint8Array<SharedArrayBuffer>;

  /** Wraps a memory, which may come from another thread. */
  constructor(memory: WebAssembly.Memory, memory64: boolean) {
    this.memory = memory;
    this.memory64 = memory64;
    this.control = new Int32Array(this.buffer, 0, heapStart / 4);
    this.#pages = this.buffer.byteLength / pageBytes;
    this.#bytes = new Uint8Array(this.buffer);
  }

  /** A fresh memory that may grow to `limit` bytes. */
  static create(limit: number, memory64: boolean): SharedMemory {
    const initial = heapStart / pageBytes;
    // A machine with little address space may refuse the reservation; a smaller one is still useful.
    for (let bytes = limit; bytes >= 2 ** 26; bytes /= 2) {
      const maximum = Math.floor(bytes / pageBytes);
      try {
        const memory = memory64
          ? new WebAssembly.Memory({
              initial: BigInt(initial),
              maximum: BigInt(maximum),
              shared: true,
              address: 'i64',
            })
          : new WebAssembly.Memory({ initial, maximum, shared: true });
        const shared = new SharedMemory(memory, memory64);
        shared.#limit = maximum * pageBytes;
        Atomics.store(shared.control, word.pages, initial);
        return shared;
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
      }
    }
    throw new UnsupportedError(
      `createCpuBackend: the system gives no shared memory (got ${limit} bytes asked). ` +
        'Lower maximumBytes or raise the limit on address space (ulimit -v).',
    );
  }

  #limit = 0;

  /** Bytes that the memory may grow to; known on the thread that made it. */
  get limit(): number {
    return this.#limit;
  }

  get buffer(): SharedArrayBuffer {
    return this.memory.buffer as SharedArrayBuffer;
  }

  /** All bytes that this thread knows of. Do not keep it. */
  get bytes(): Uint8Array<SharedArrayBuffer> {
    return this.#bytes;
  }

  view(address: number, bytes: number): Uint8Array<SharedArrayBuffer> {
    return new Uint8Array(this.buffer, address, bytes);
  }

  words(address: number, count: number): Int32Array<SharedArrayBuffer> {
    return new Int32Array(this.buffer, address, count);
  }

  /** Grows to at least `end` bytes, in steps; the end reached, or undefined when refused. */
  grow(end: number): number | undefined {
    const have = this.#pages * pageBytes;
    if (end > this.#limit) return undefined;
    const generous = Math.min(this.#limit, Math.max(end, have + growStep));
    for (const wanted of [generous, end]) {
      const pages = Math.ceil(wanted / pageBytes);
      try {
        if (this.memory64) this.memory.grow(BigInt(pages - this.#pages));
        else this.memory.grow(pages - this.#pages);
      } catch (error) {
        if (error instanceof RangeError) continue;
        throw error;
      }
      this.#bytes = new Uint8Array(this.buffer);
      this.#pages = pages;
      Atomics.store(this.control, word.pages, pages);
      return pages * pageBytes;
    }
    return undefined;
  }

  /**
   * Takes notice of a growth by another thread. Growing by nothing makes the engine update the
   * lengths that this thread's views and instances are checked against.
   */
  refresh(): void {
    if (Atomics.load(this.control, word.pages) === this.#pages) return;
    if (this.memory64) this.memory.grow(0n);
    else this.memory.grow(0);
    this.#bytes = new Uint8Array(this.buffer);
    this.#pages = this.buffer.byteLength / pageBytes;
  }
}

/** Reads an address stored as two words. */
export function loadAddress(words: Int32Array, index: number): number {
  return (words[index]! >>> 0) + (words[index + 1]! >>> 0) * 2 ** 32;
}

/** Stores an address as two words, low first. */
export function storeAddress(words: Int32Array, index: number, address: number): void {
  words[index] = address | 0;
  words[index + 1] = Math.floor(address / 2 ** 32) | 0;
}
