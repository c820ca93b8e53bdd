/**
 * Memory planning: lifetimes to offsets in one arena. A pure function, tried with several orders of
 * placement; the smallest arena wins. The live-set lower bound says how far it is from the best possible.
 */

import { alignBytes } from '../runtime/allocator.ts';

/** A buffer that must exist from step `first` through step `last`. Bytes are multiples of `alignment`. */
export interface Lifetime {
  readonly bytes: number;
  readonly first: number;
  readonly last: number;
}

export interface MemoryPlan {
  /** Byte offset of each lifetime, in the order given. */
  readonly offsets: readonly number[];
  readonly arenaBytes: number;
  /** Largest sum of bytes alive in one step: no plan can be smaller. */
  readonly lowerBoundBytes: number;
  /** The step at which the lower bound is reached. */
  readonly peakStep: number;
}

export function planMemory(lifetimes: readonly Lifetime[]): MemoryPlan {
  const { bytes: lowerBoundBytes, step: peakStep } = livePeak(lifetimes);
  let best: { offsets: number[]; arenaBytes: number } | undefined;
  for (const order of placementOrders(lifetimes, peakStep)) {
    const attempt = placeInOrder(lifetimes, order);
    if (!best || attempt.arenaBytes < best.arenaBytes) best = attempt;
    if (best.arenaBytes === lowerBoundBytes) break;
  }
  const chosen = best ?? { offsets: [], arenaBytes: 0 };
  return { ...chosen, lowerBoundBytes, peakStep };
}

/** The step with the most bytes alive. */
export function livePeak(lifetimes: readonly Lifetime[]): { bytes: number; step: number } {
  const delta = new Map<number, number>();
  for (const { bytes, first, last } of lifetimes) {
    delta.set(first, (delta.get(first) ?? 0) + bytes);
    delta.set(last + 1, (delta.get(last + 1) ?? 0) - bytes);
  }
  let live = 0;
  let peak = { bytes: 0, step: 0 };
  for (const step of [...delta.keys()].sort((a, b) => a - b)) {
    live += delta.get(step) ?? 0;
    if (live > peak.bytes) peak = { bytes: live, step };
  }
  return peak;
}

/** Orders worth trying: those alive at the peak first, then by size, by length of life, or by start. */
function* placementOrders(lifetimes: readonly Lifetime[], peak: number): Generator<number[]> {
  const all = lifetimes.map((_, i) => i);
  const at = (i: number): Lifetime => lifetimes[i] ?? { bytes: 0, first: 0, last: 0 };
  const length = (i: number): number => at(i).last - at(i).first;
  const crosses = (i: number): number => (at(i).first <= peak && at(i).last >= peak ? 0 : 1);
  const bySize = (a: number, b: number): number => at(b).bytes - at(a).bytes;
  const byLength = (a: number, b: number): number => length(b) - length(a);
  const byStart = (a: number, b: number): number => at(a).first - at(b).first;
  const chain =
    (...keys: ((a: number, b: number) => number)[]) =>
    (a: number, b: number): number => {
      for (const key of keys) {
        const order = key(a, b);
        if (order !== 0) return order;
      }
      return a - b;
    };
  yield [...all].sort(chain(byLength, bySize));
  yield [...all].sort(chain(bySize, byLength));
  yield [...all].sort(chain((a, b) => crosses(a) - crosses(b), byLength, bySize));
  yield [...all].sort(chain((a, b) => crosses(a) - crosses(b), bySize, byStart));
  yield [...all].sort(chain((a, b) => length(b) * at(b).bytes - length(a) * at(a).bytes, bySize));
  yield [...all].sort(chain(byStart, bySize));
}

/** Puts each lifetime, in this order, into the tightest gap among those it meets in time. */
function placeInOrder(
  lifetimes: readonly Lifetime[],
  order: readonly number[],
): { offsets: number[]; arenaBytes: number } {
  const offsets = new Array<number>(lifetimes.length).fill(0);
  /** Placed lifetimes by rising offset. */
  const placed: { from: number; to: number; first: number; last: number }[] = [];
  let arenaBytes = 0;
  for (const i of order) {
    const own = lifetimes[i];
    if (!own || own.bytes === 0) continue;
    let bestOffset = -1;
    let bestGap = Number.POSITIVE_INFINITY;
    let free = 0;
    for (const other of placed) {
      if (other.last < own.first || other.first > own.last) continue;
      const gap = other.from - free;
      if (gap >= own.bytes && gap < bestGap) {
        bestGap = gap;
        bestOffset = free;
      }
      free = Math.max(free, other.to);
    }
    const from = bestOffset >= 0 ? bestOffset : free;
    offsets[i] = from;
    const entry = { from, to: from + own.bytes, first: own.first, last: own.last };
    placed.splice(insertionIndex(placed, from), 0, entry);
    arenaBytes = Math.max(arenaBytes, entry.to);
  }
  return { offsets, arenaBytes: alignBytes(arenaBytes) };
}

function insertionIndex(placed: readonly { readonly from: number }[], from: number): number {
  let low = 0;
  let high = placed.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((placed[middle]?.from ?? 0) <= from) low = middle + 1;
    else high = middle;
  }
  return low;
}
