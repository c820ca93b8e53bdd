/**
 * Data of a tensor that a recompute does not need: it has a shape and no values. Ops on phantoms give
 * phantoms, so only what backward needs is computed again.
 */

import type { TensorData } from '../../tensor/data.ts';

export class PhantomData implements TensorData {
  readonly kind = 'phantom';
  readonly root: object;
  readonly outlivesStep = false;
  version = 0;

  /** `root`: the memory that it stands for a view of; left out, it stands for memory of its own. */
  constructor(root?: object) {
    this.root = root ?? this;
  }

  bumpVersion(): void {
    this.version++;
  }

  retain(): this {
    return this;
  }

  release(): void {}

  fork(): undefined {
    return undefined;
  }
}
