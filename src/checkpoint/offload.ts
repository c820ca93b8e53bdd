/**
 * Moving saved tensors out of memory until backward (torchtune.training.OffloadActivations,
 * torch.autograd.graph.save_on_cpu). Rules O1 and O2 in docs/internals/offload.md.
 */

import { byteForms, readBytes } from '../core/bytes.ts';
import { ArgumentError, definite } from '../core/errors.ts';
import { type TransferPlace, wrongPlace } from '../runtime/transfer.ts';
import type { Backend } from '../runtime/backend.ts';
import { currentBackend } from '../tensor/backend.ts';
import { isGradEnabled } from '../tensor/context.ts';
import { currentMode } from '../tensor/mode.ts';
import { withSavedTensorHooks } from '../tensor/saved-tensor.ts';
import {
  type OffloadHandle,
  OffloadStore,
  type OffloadStats,
  type OffloadSettings,
  refuseTrace,
} from './offload-store.ts';
import { type ValueStore, storeHooks } from './value-store.ts';

export interface OffloadOptions {
  /**
   * 'file' for the cpu backend, 'host' for backends whose memory is not the host's. Default: what the
   * current backend can do.
   */
  readonly to?: TransferPlace['to'];
  /** With 'file': the folder to make a folder in; default RETUNE_OFFLOAD_DIR or the system's for temporary files. */
  readonly dir?: string;
  /** Smaller storages stay: bytes, or a text such as '64KiB', the default. */
  readonly minBytes?: number | string;
  /**
   * How many ops' saved tensors (or region inputs) may be on their way out, and how many are fetched
   * ahead in backward; default 2. More hides slower disks and holds more memory; 0 waits for each copy.
   */
  readonly depth?: number;
}

let around: ActivationOffload | undefined;

/** The innermost offload that is running. */
export function currentOffload(): ActivationOffload | undefined {
  return around;
}

/** Offload with statistics; the same object may be used for every step. */
export class ActivationOffload {
  readonly settings: OffloadSettings;
  readonly #backend: Backend;
  readonly #store: OffloadStore;

  /** For tensors of the current backend. Throws ArgumentError, or UnsupportedError for a wrong place. */
  constructor(options: OffloadOptions = {}) {
    this.#backend = currentBackend();
    this.settings = resolveOffload(options, this.#backend);
    this.#store = new OffloadStore(this.#backend, this.settings);
  }

  /**
   * Runs `fn`; what its backward needs is moved out, but for small tensors, memory that outlives the step
   * anyhow, and the last values. Inside a checkpoint region the inner of the two is what counts, so put
   * regions inside this: then their inputs are moved. Throws CompileError in a compiled step, FileError
   * when the place is full or gone; FileErrors may also come from backward.
   */
  run<R>(fn: () => R): R {
    if (!isGradEnabled()) return fn();
    if (currentMode().tracing) throw refuseTrace();
    return this.lend(() => withSavedTensorHooks(storeHooks(this.#store), fn));
  }

  /** Runs `fn`, of which only what checkpoint policies offload is moved. */
  lend<R>(fn: () => R): R {
    const before = around;
    around = this;
    try {
      return fn();
    } finally {
      around = before;
    }
  }

  /** For single values that are to be moved whatever their size. */
  get ordered(): ValueStore<OffloadHandle> {
    const store = this.#store;
    return {
      put: (tensor, context) => store.putAlone(tensor, context),
      get: (handle) => store.get(handle),
      drop: (handle) => store.drop(handle),
      held: (handle) => store.held(handle),
    };
  }

  /** In words, for a line of a log. */
  get description(): string {
    const { place, depth } = this.settings;
    const where = place.to === 'file' ? 'in a file' : 'in host memory';
    return `${where}, ${depth} ahead`;
  }

  get stats(): OffloadStats {
    return this.#store.stats;
  }

  /** Throws InternalError unless nothing is left: call it after a backward without retainGraph. */
  assertEmpty(): void {
    this.#store.assertEmpty();
  }
}

/** Runs `fn` as ActivationOffload.run does, with an offload of its own. */
export function offloadActivations<R>(options: OffloadOptions, fn: () => R): R {
  return new ActivationOffload(options).run(fn);
}

/** An option that is not legal, and what would be. */
export interface OffloadProblem {
  readonly key: string;
  readonly value: unknown;
  readonly legal: string;
}

const optionKeys = ['to', 'dir', 'minBytes', 'depth'];

/** The first option that is unknown or illegal whatever the backend. */
export function offloadProblem(options: OffloadOptions): OffloadProblem | undefined {
  for (const [key, value] of Object.entries(options)) {
    if (!optionKeys.includes(key)) {
      return { key, value, legal: `one of the keys ${optionKeys.join(', ')}` };
    }
  }
  const { to, dir, minBytes, depth } = options;
  if (to !== undefined && to !== 'file' && to !== 'host') {
    return { key: 'to', value: to, legal: "'file' or 'host'" };
  }
  if (dir !== undefined && (to === 'host' || typeof dir !== 'string' || dir === '')) {
    return { key: 'dir', value: dir, legal: "a folder, with to: 'file'" };
  }
  if (minBytes !== undefined && readBytes(minBytes) === undefined) {
    return { key: 'minBytes', value: minBytes, legal: byteForms };
  }
  if (depth !== undefined && (!Number.isInteger(depth) || depth < 0)) {
    return { key: 'depth', value: depth, legal: 'a whole number from 0 on' };
  }
  return undefined;
}

function resolveOffload(options: OffloadOptions, backend: Backend): OffloadSettings {
  const problem = offloadProblem(options);
  if (problem) {
    const { key, value, legal } = problem;
    throw new ArgumentError(
      `offloadActivations: ${key} is not legal (got ${JSON.stringify(value) ?? String(value)}). Use ${legal}.`,
      { key, value, legal },
    );
  }
  const { to = backend.transferPlaces[0] ?? 'host', dir, minBytes = '64KiB', depth = 2 } = options;
  const place: TransferPlace = to === 'file' ? { to, dir } : { to };
  if (!backend.transferPlaces.includes(to)) throw wrongPlace(backend, place);
  return { place, minBytes: definite(readBytes(minBytes)), depth };
}
