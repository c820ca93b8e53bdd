/** Which backend is used when none is named. */

import { readEnv } from '../core/env.ts';
import { ArgumentError } from '../core/errors.ts';
import type { Backend } from './backend.ts';
import { CpuBackend, type CpuBackendOptions } from './cpu/backend.ts';
import { NullBackend } from './null/backend.ts';
import { ReferenceBackend } from './reference/backend.ts';

/** A backend that runs on this machine's processor. Threads start in the background. */
export function createCpuBackend(options: CpuBackendOptions = {}): CpuBackend {
  return new CpuBackend(options);
}

/** A slow backend that computes everything in float64. */
export function createReferenceBackend(): ReferenceBackend {
  return new ReferenceBackend();
}

/** A backend that keeps account of memory but has none and computes nothing. */
export function createNullBackend(): NullBackend {
  return new NullBackend();
}

let present: Backend | undefined;

/** The backend in use: the one that was set, or one made now as RETUNE_BACKEND says (cpu). */
export function defaultBackend(): Backend {
  present ??= fromEnvironment();
  return present;
}

/** Makes `backend` the default; returns the one before. Tensors stay on the backend they are on. */
export function setDefaultBackend(backend: Backend): Backend | undefined {
  const before = present;
  present = backend;
  return before;
}

/** Runs `body` with `backend` as the default; afterwards the default is what it was, be it none yet. */
export function withDefaultBackend<T>(backend: Backend, body: () => T): T {
  const before = present;
  present = backend;
  try {
    return body();
  } finally {
    present = before;
  }
}

function fromEnvironment(): Backend {
  const name = readEnv('RETUNE_BACKEND') ?? 'cpu';
  switch (name) {
    case 'cpu':
      return createCpuBackend();
    case 'reference':
      return createReferenceBackend();
    default:
      throw new ArgumentError(
        `defaultBackend: RETUNE_BACKEND names no backend (got ${name}). Use cpu or reference.`,
      );
  }
}
