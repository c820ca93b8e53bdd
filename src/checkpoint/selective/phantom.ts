/**
 * Data of a tensor that a recompute does not need: it has a shape and no values. Ops on phantoms give
 * phantoms, so only what backward needs is computed again.
 */

import type { TensorData } from '../../tensor/data.ts';

export class PhantomData implements TensorData {
  readonly kind = 'phantom';
  readonly root: object;
  readonly outlivesStep = false;
  /** What counts the changes of the memory; undefined for memory of its own. */
  readonly #base: TensorData | undefined;
  #version = 0;

  /** `viewed`: what it stands for a view of; left out, it stands for memory of its own. */
  constructor(viewed?: TensorData) {
    this.#base = viewed instanceof PhantomData ? (viewed.#base ?? viewed) : viewed;
    this.root = viewed?.root ?? this;
  }

  get version(): number {
    return this.#base?.version ?? this.#version;
  }

  bumpVersion(): void {
    if (this.#base) this.#base.bumpVersion();
    else this.#version++;
  }

  retain(): this {
    return this;
  }

  release(): void {}

  fork(): undefined {
    return undefined;
  }
}
