/** Where values go that a policy offloads or compresses. */

import type { CheckpointPolicy, SaveFormat } from '../../ir/graph.ts';
import { currentBackend } from '../../tensor/backend.ts';
import type { Backend } from '../../runtime/backend.ts';
import { CompressStore } from '../compress-store.ts';
import { ActivationOffload, currentOffload } from '../offload.ts';
import type { ValueStore } from '../value-store.ts';

const offloads = new WeakMap<Backend, ActivationOffload>();
const compressions = new Map<SaveFormat, ValueStore>();

/**
 * The store for a policy that is neither save nor recompute. Values are moved as the `offload` setting around
 * says, or by its defaults; a policy is an order, so small ones too. Throws UnsupportedError when the backend
 * cannot move values.
 */
export function storeFor(policy: CheckpointPolicy): ValueStore {
  if (typeof policy === 'object') return compressionTo(policy.compress);
  const around = currentOffload();
  if (around) return around.ordered;
  const backend = currentBackend();
  let offload = offloads.get(backend);
  if (!offload) {
    offload = new ActivationOffload();
    offloads.set(backend, offload);
  }
  return offload.ordered;
}

function compressionTo(format: SaveFormat): ValueStore {
  let store = compressions.get(format);
  if (!store) {
    store = new CompressStore({ format, minBytes: 0, measure: false });
    compressions.set(format, store);
  }
  return store;
}
