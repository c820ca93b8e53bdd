/**
 * Where values go that a policy offloads or compresses. A store takes a tensor's values and gives them back
 * as a new tensor; what is in between is its own business.
 */

import { UnsupportedError } from '../../core/errors.ts';
import type { CheckpointPolicy, SaveFormat } from '../../ir/graph.ts';
import type { Tensor } from '../../tensor/tensor.ts';

export interface ValueStore {
  /** Takes the values of `tensor`, which stays the caller's. */
  put(tensor: Tensor): unknown;
  /** A new dense tensor of the same shape and dtype, the caller's. May be asked several times. */
  get(handle: unknown): Tensor;
  /** Forgets the values. */
  drop(handle: unknown): void;
}

export interface ValueStores {
  readonly offload?: () => ValueStore;
  readonly compress?: (format: SaveFormat) => ValueStore;
}

let stores: ValueStores = {};

/** Sets where values go that policies offload or compress. Returns what was set before. */
export function setValueStores(next: ValueStores): ValueStores {
  const before = stores;
  stores = next;
  return before;
}

/** The store for a policy that is neither save nor recompute. Throws UnsupportedError when there is none. */
export function storeFor(policy: CheckpointPolicy, where: string): ValueStore {
  if (typeof policy === 'object' && stores.compress) return stores.compress(policy.compress);
  if (typeof policy === 'string' && stores.offload) return stores.offload();
  const what = typeof policy === 'object' ? `compression to ${policy.compress}` : 'offload';
  throw new UnsupportedError(
    `checkpoint: the policy asks for ${what}, for which there is no store (got ${where}). ` +
      'Use a policy that saves, or set a store with setValueStores.',
    { policy },
  );
}
