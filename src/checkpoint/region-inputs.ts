/**
 * What a region was called with, kept for its recompute (checkpointing.md C6). Tensors anywhere inside the
 * arguments go through the saved-tensor hooks around the region and are checked for in-place changes.
 * Containers are copied, so that a region may take its own apart.
 */

import { invariant } from '../core/errors.ts';
import { SavedTensor } from '../tensor/saved-tensor.ts';
import { mapLeaves } from '../tensor/structure.ts';
import { Tensor } from '../tensor/tensor.ts';

/** Stands for a tensor in the copy of the arguments. */
class Slot {
  readonly index: number;
  constructor(index: number) {
    this.index = index;
  }
}

export class RegionInputs {
  readonly #arguments: readonly unknown[];
  readonly #saved: SavedTensor[] = [];

  /** Saves the tensors of `args`; `module` is the path for error messages. */
  constructor(args: readonly unknown[], module: string) {
    const slots = new Map<Tensor, Slot>();
    const slotOf = (tensor: Tensor): Slot => {
      const known = slots.get(tensor);
      if (known) return known;
      const slot = new Slot(this.#saved.length);
      const name = `input ${slot.index}`;
      this.#saved.push(new SavedTensor(tensor, { op: 'checkpoint', name, module }));
      slots.set(tensor, slot);
      return slot;
    };
    try {
      this.#arguments = mapLeaves(args, (leaf) => (leaf instanceof Tensor ? slotOf(leaf) : leaf));
    } catch (error) {
      this.release();
      throw error;
    }
  }

  /** The saved tensors, for reports. */
  get saved(): readonly SavedTensor[] {
    return this.#saved;
  }

  /**
   * The arguments again, with tensors over the same memory that are cut from the graph around the region.
   * Throws AutogradError when one was changed in place.
   */
  restore(): readonly unknown[] {
    const twins: Tensor[] = [];
    return mapLeaves(this.#arguments, (leaf) => {
      if (!(leaf instanceof Slot)) return leaf;
      twins[leaf.index] ??= this.#twin(leaf.index);
      return twins[leaf.index];
    });
  }

  release(): void {
    for (const saved of this.#saved.splice(0)) saved.release();
  }

  #twin(index: number): Tensor {
    const saved = this.#saved[index];
    invariant(saved, () => `region input ${index} was released`);
    const original = saved.unpack(undefined);
    const twin = original.detach();
    twin.requiresGrad = original.requiresGrad;
    return twin;
  }
}
