/** The `actions` option of a compiled step: what it may be, and what follows for a backend. */

import { ConfigError } from '../core/errors.ts';
import type { Backend, BlockRef } from '../runtime/backend.ts';
import type { BlockTransfer, Parcel, TransferPlace } from '../runtime/transfer.ts';
import type { PlanActions } from '../checkpoint/plan-actions.ts';
import { saveFormats } from '../checkpoint/selective/policy.ts';
import type { AllowedActions } from './action-search.ts';
import { type TransferRates, assumedRates } from './transfer-rates.ts';

/** Throws ConfigError for what is no such option. */
export function checkActions(actions: PlanActions | undefined): AllowedActions {
  if (actions === undefined) return { offload: false, compress: undefined };
  for (const [key, value] of Object.entries(actions)) {
    if (key !== 'offload' && key !== 'compress') illegal(key, value, 'offload and compress');
  }
  const { offload = false, compress } = actions;
  if (compress !== undefined && !saveFormats.includes(compress)) {
    illegal('compress', compress, saveFormats.join(', '));
  }
  if (typeof offload === 'boolean') return { offload, compress };
  if (typeof offload !== 'object' || offload === null) {
    illegal('offload', offload, 'true, false or { dir, bytesPerSecond }');
  }
  for (const [key, value] of Object.entries(offload)) {
    if (key !== 'dir' && key !== 'bytesPerSecond') {
      illegal(`offload.${key}`, value, 'the keys dir and bytesPerSecond');
    }
  }
  const { dir, bytesPerSecond: speed } = offload;
  if (dir !== undefined && (typeof dir !== 'string' || dir === '')) {
    illegal('offload.dir', dir, 'a folder');
  }
  if (speed !== undefined && !(Number.isFinite(speed) && speed > 0)) {
    illegal('offload.bytesPerSecond', speed, 'a number above 0');
  }
  return { offload: true, compress };
}

function illegal(key: string, value: unknown, legal: string): never {
  throw new ConfigError(
    `compile: actions.${key} is not legal (got ${JSON.stringify(value) ?? String(value)}). Use ${legal}.`,
    { key: `actions.${key}`, value, legal },
  );
}

/** Where a step on `backend` moves values to. */
export function placeFor(backend: Backend, actions: PlanActions | undefined): TransferPlace {
  const [to = 'host'] = backend.transferPlaces;
  const offload = actions?.offload;
  const dir = typeof offload === 'object' ? offload.dir : undefined;
  return to === 'file' ? { to, dir } : { to };
}

/** What is assumed, given or, with `measure`, measured. Throws FileError when the place cannot be used. */
export function ratesFor(
  backend: Backend,
  actions: PlanActions | undefined,
  measure: boolean,
): TransferRates {
  const offload = actions?.offload;
  const speed = typeof offload === 'object' ? offload.bytesPerSecond : undefined;
  if (speed !== undefined) return { store: speed / 1e9, fetch: speed / 1e9 };
  return measure && offload ? measuredRates(backend, placeFor(backend, actions)) : assumedRates;
}

const measured = new WeakMap<Backend, Map<string, TransferRates>>();
/** One block is moved to so many places, so that no cache holds them all; the first round is to warm up. */
const probeBytes = 2 ** 23;
const probeParcels = 8;
const probeRounds = 4;

/** The speed of a place, measured once for each backend and folder. */
function measuredRates(backend: Backend, place: TransferPlace): TransferRates {
  const known = measured.get(backend) ?? new Map<string, TransferRates>();
  measured.set(backend, known);
  const key = JSON.stringify(place);
  const rates = known.get(key) ?? probe(backend, place);
  known.set(key, rates);
  return rates;
}

function probe(backend: Backend, place: TransferPlace): TransferRates {
  const { allocator } = backend;
  const block = allocator.alloc(probeBytes, 'temporary');
  try {
    const ref = { block, byteOffset: 0 };
    backend.fillZero(ref, probeBytes);
    const transfer = backend.openTransfer(place);
    const rounds = Array.from({ length: probeRounds }, () => probeRound(transfer, ref));
    const best = (times: number[]): number =>
      (probeBytes * probeParcels) / (1e6 * Math.max(1e-3, Math.min(...times)));
    return {
      store: best(rounds.slice(1).map((times) => times.store)),
      fetch: best(rounds.slice(1).map((times) => times.fetch)),
    };
  } finally {
    allocator.free(block);
  }
}

/** Milliseconds of moving all parcels out and back. */
function probeRound(transfer: BlockTransfer, ref: BlockRef): { store: number; fetch: number } {
  const parcels: Parcel[] = [];
  const wait = (): void => {
    for (const parcel of parcels) transfer.wait(parcel);
  };
  try {
    const began = performance.now();
    for (let i = 0; i < probeParcels; i++) parcels.push(transfer.store(ref, probeBytes));
    wait();
    const stored = performance.now();
    for (const parcel of parcels) transfer.load(parcel, ref);
    wait();
    return { store: stored - began, fetch: performance.now() - stored };
  } finally {
    for (const parcel of parcels) transfer.discard(parcel);
  }
}
