/** Which backend eager code runs on. Importing this file makes eager execution available. */

import type { Backend } from '../runtime/backend.ts';
import { defaultBackend, setDefaultBackend, withDefaultBackend } from '../runtime/registry.ts';
import { EagerMode } from './eager-mode.ts';
import { setBaseMode } from './mode.ts';

let eager: EagerMode | undefined;

setBaseMode(eagerMode);

/** The eager mode over the current backend. */
export function eagerMode(): EagerMode {
  const backend = defaultBackend();
  if (eager?.backend !== backend) eager = new EagerMode(backend);
  return eager;
}

/** The backend that tensors are made on. */
export function currentBackend(): Backend {
  return defaultBackend();
}

/** Makes `backend` current. Tensors of another backend must not be mixed with its own. */
export function setBackend(backend: Backend): void {
  setDefaultBackend(backend);
}

/**
 * Runs `body`, which is synchronous, with `backend` current; afterwards the one before is current again.
 * Tensors made inside must not be used outside.
 */
export function withBackend<T>(backend: Backend, body: () => T): T {
  return withDefaultBackend(backend, body);
}

/** Bytes in use on the current backend (torch.cuda.memory_allocated). */
export function liveBytes(): number {
  return defaultBackend().allocator.stats().live;
}
