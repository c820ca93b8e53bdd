/**
 * Where a saved tensor goes instead of staying in memory as it is. Offload and compression are such
 * stores; saved-tensor hooks put every value that an op saves into one.
 */

import type { HeldValue, SaveContext, SavedTensorHooks } from '../tensor/saved-tensor.ts';
import type { Tensor } from '../tensor/tensor.ts';

export interface ValueStore<H = unknown> {
  /**
   * Takes the value of `tensor` in. The tensor itself is left alone; whoever holds it keeps its memory.
   * A value that is not worth the trouble may be kept as it is.
   */
  put(tensor: Tensor, context: SaveContext): H;
  /**
   * The value, as a handle that belongs to the current scope: same shape and dtype. Throws AutogradError
   * when the tensor was changed in place after it was put.
   */
  get(handle: H): Tensor;
  /** Called once, when nobody needs the value any more. */
  drop(handle: H): void;
  /** What the value holds in memory now, for reports. */
  held(handle: H): Iterable<HeldValue>;
  /** Called between ops: what was put since the last call was saved together and is needed together. */
  endGroup?(): void;
}

/** Hooks that put what is saved into `store`. */
export function storeHooks<H>(store: ValueStore<H>): SavedTensorHooks<H> {
  return {
    pack: (tensor, context) => store.put(tensor, context),
    unpack: (handle) => store.get(handle),
    release: (handle) => store.drop(handle),
    held: (handle) => store.held(handle),
    independent: true,
    ...(store.endGroup && { boundary: () => store.endGroup?.() }),
  };
}
