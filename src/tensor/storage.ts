/**
 * Storage: one block of backend memory, reference-counted. Handles, saved tensors and gradients each
 * own one count; the block is freed when the last one goes. Views share a storage and its version.
 */

import { DisposedError } from '../core/errors.ts';
import type { Backend } from '../runtime/backend.ts';
import type { MemoryCategory } from '../runtime/allocator.ts';
import type { Block } from '../runtime/allocator.ts';

export class Storage {
  readonly backend: Backend;
  readonly #block: Block;
  #owners = 1;
  /** Number of in-place changes so far; saved tensors compare it. */
  version = 0;

  /** Takes over `block` with one owner. */
  constructor(backend: Backend, block: Block) {
    this.backend = backend;
    this.#block = block;
  }

  static allocate(backend: Backend, bytes: number, category: MemoryCategory): Storage {
    return new Storage(backend, backend.allocator.alloc(bytes, category));
  }

  get block(): Block {
    if (this.#owners === 0) {
      throw new DisposedError(
        'tensor: its memory was released (got 0 owners). Keep the tensor alive: return it from the scope or call keep().',
      );
    }
    return this.#block;
  }

  get bytes(): number {
    return this.#block.bytes;
  }

  get owners(): number {
    return this.#owners;
  }

  retain(): this {
    if (this.#owners === 0) void this.block;
    this.#owners++;
    return this;
  }

  release(): void {
    if (this.#owners === 0) void this.block;
    this.#owners--;
    if (this.#owners === 0) this.backend.allocator.free(this.#block);
  }

  setCategory(category: MemoryCategory): void {
    if (this.#block.category !== category) {
      this.backend.allocator.recategorize(this.block, category);
    }
  }
}
