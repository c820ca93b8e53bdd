/**
 * Brings a sequence within a budget: as long as something is too much, the gap between two uses of a storage
 * whose freeing costs least is freed, and its op runs again before the second. It needs no structure in the
 * graph. Work is limited by counts.
 */

import type { Problem } from './problem.ts';
import { Timeline } from './timeline.ts';

export interface SearchWork {
  /** Positions that may still be looked at. */
  left: number;
  tried: number;
  kept: number;
}

/** Gaps that must stay, as `storage * ops + reader`. */
export type Blocked = ReadonlySet<number>;

export interface RepairOptions {
  readonly blocked?: Blocked;
  /** Of the runs that are put in, together. */
  readonly mostCost?: number;
  /** Factor on the price of the next gap that is looked at, to try other ones than the cheapest. */
  readonly blur?: () => number;
}

/**
 * A sequence within `budget` that frees more than `sequence` does; undefined when there is no way on, or none
 * within `mostCost`.
 */
export function repair(
  problem: Problem,
  sequence: Int32Array,
  budget: number,
  work: SearchWork,
  { blocked = new Set(), mostCost = Number.POSITIVE_INFINITY, blur = sharp }: RepairOptions = {},
): Int32Array | undefined {
  let now = sequence;
  let cost = 0;
  const seen = new Map<number, number>();
  for (let round = 0; round < 400 && work.left > 0; round++) {
    const time = new Timeline(problem, now);
    work.left -= now.length;
    if (time.peak <= budget) return now;
    const gap = cheapestGap(time, budget, work, { blocked, seen, blur });
    if (!gap) return undefined;
    const key = gap.s * problem.ops + (now[gap.to] ?? problem.ops - 1);
    seen.set(key, (seen.get(key) ?? 0) + 1);
    for (const op of gap.runs) cost += problem.cost[op] as number;
    if (cost > mostCost) return undefined;
    now = time.with(gap.runs, gap.to);
  }
  return undefined;
}

export interface Gap {
  readonly s: number;
  readonly to: number;
  readonly runs: readonly number[];
}

interface GapChoice {
  readonly blocked: Blocked;
  readonly seen: ReadonlyMap<number, number>;
  readonly blur: () => number;
}

const sharp = (): number => 1;

/** Of the gaps over the peak, the one whose freeing costs least per byte that is too much. */
function cheapestGap(
  time: Timeline,
  budget: number,
  work: SearchWork,
  { blocked, seen, blur }: GapChoice,
): Gap | undefined {
  const { problem, peakAt, live, sequence } = time;
  const { storages, bytes, cost, ops } = problem;
  const over: number[] = [];
  for (let i = 0; i < live.length; i++) if ((live[i] as number) > budget) over.push(i);
  let best: Gap | undefined;
  let bestScore = Number.POSITIVE_INFINITY;
  for (let s = 0; s < storages; s++) {
    const size = bytes[s] as number;
    if (size === 0) continue;
    const gap = time.gapAt(s, peakAt);
    if (gap < 0) continue;
    const from = time.from[gap] as number;
    const to = time.to[gap] as number;
    if (from >= peakAt || to <= peakAt) continue;
    const key = s * ops + (sequence[to] ?? ops - 1);
    if (blocked.has(key) || (seen.get(key) ?? 0) > 2) continue;
    const runs = time.runsFor(s, to);
    work.left -= runs ? 4 * runs.length : 4;
    if (!runs) continue;
    let price = 0;
    for (const op of runs) price += cost[op] as number;
    let gain = 0;
    for (const at of over) {
      if (at <= from || at >= to) continue;
      gain += Math.min(size, (live[at] as number) - budget);
    }
    const score = (blur() * (price + 1e-9)) / gain;
    if (score < bestScore) {
      bestScore = score;
      best = { s, to, runs };
    }
  }
  return best;
}
