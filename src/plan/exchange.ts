/**
 * Local search over sequences: frees a storage between two uses and runs its op again before the second
 * (`repair`), and takes a further run out and repairs what then does not fit (`improve`). It needs no
 * structure in the graph. Work is limited by counts.
 */

import { polish } from './polish.ts';
import type { Problem } from './problem.ts';
import { extraOf } from './sequence.ts';
import { Timeline } from './timeline.ts';

export interface SearchWork {
  /** Positions that may still be looked at. */
  left: number;
  tried: number;
  kept: number;
}

/** What may run instead of a run that is taken out, in units of its cost, before it is polished. */
const exchangeLimit = 8;

/** Pairs of further runs are tried when there are no more than this many. */
const mostPairs = 40;

/** Gaps that must stay, as `storage * ops + reader`. */
type Blocked = ReadonlySet<number>;

/**
 * A sequence within `budget` that frees more than `sequence` does; undefined when there is no way on, or none
 * within `mostCost` of further runs.
 */
export function repair(
  problem: Problem,
  sequence: Int32Array,
  budget: number,
  work: SearchWork,
  blocked: Blocked = new Set(),
  mostCost = Number.POSITIVE_INFINITY,
): Int32Array | undefined {
  let now = sequence;
  let cost = 0;
  const seen = new Map<number, number>();
  for (let round = 0; round < 400 && work.left > 0; round++) {
    const time = new Timeline(problem, now);
    work.left -= now.length;
    if (time.peak <= budget) return now;
    const gap = cheapestGap(time, budget, work, blocked, seen);
    if (!gap) return undefined;
    const key = gap.s * problem.ops + (now[gap.to] ?? problem.ops - 1);
    seen.set(key, (seen.get(key) ?? 0) + 1);
    for (const op of gap.runs) cost += problem.cost[op] as number;
    if (cost > mostCost) return undefined;
    now = time.with(gap.runs, gap.to);
  }
  return undefined;
}

interface Gap {
  readonly s: number;
  readonly to: number;
  readonly runs: readonly number[];
}

/** Of the gaps over the peak, the one whose freeing costs least per byte that is too much. */
function cheapestGap(
  time: Timeline,
  budget: number,
  work: SearchWork,
  blocked: Blocked,
  seen: ReadonlyMap<number, number>,
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
    const score = (price + 1e-9) / gain;
    if (score < bestScore) {
      bestScore = score;
      best = { s, to, runs };
    }
  }
  return best;
}

/** The sequence with less extra time, when exchanging single runs finds one. */
export function improve(
  problem: Problem,
  sequence: Int32Array,
  budget: number,
  work: SearchWork,
  enough: (extra: number) => boolean,
): Int32Array {
  let best = sequence;
  let bestCost = extraOf(problem, best).cost;
  const goOn = (): boolean => work.left > 0 && !enough(bestCost);
  const accept = (trial: Int32Array | undefined): boolean => {
    work.tried++;
    if (!trial) return false;
    const cost = extraOf(problem, trial).cost;
    if (cost >= bestCost) return false;
    best = trial;
    bestCost = cost;
    work.kept++;
    return true;
  };
  const takeOneOut = (): boolean => {
    for (const at of furtherRuns(problem, best)) {
      if (!goOn()) return false;
      if (accept(without(problem, best, [at], budget, work))) return true;
    }
    return false;
  };
  const takeTwoOut = (): boolean => {
    const runs = furtherRuns(problem, best);
    if (runs.length > mostPairs) return false;
    for (const [i, a] of runs.entries()) {
      for (const b of runs.slice(i + 1)) {
        if (!goOn()) return false;
        if (accept(without(problem, best, [a, b], budget, work))) return true;
      }
    }
    return false;
  };
  const putOneIn = (): boolean => {
    const time = new Timeline(problem, best);
    for (const gap of cheapGaps(time, work)) {
      if (!goOn()) return false;
      const added = (at: number): boolean => at >= gap.to && at < gap.to + gap.runs.length;
      const longer = time.with(gap.runs, gap.to);
      if (new Timeline(problem, longer).peak > budget) continue;
      const { sequence: first } = polish(problem, longer, budget, added);
      work.left -= 4 * longer.length;
      if (accept(polish(problem, useful(problem, first), budget).sequence)) return true;
    }
    return false;
  };
  while (goOn() && (takeOneOut() || putOneIn() || takeTwoOut()));
  return best;
}

/** Gaps whose freeing costs less than the dearest further run, cheapest per byte and position first. */
function cheapGaps(time: Timeline, work: SearchWork): Gap[] {
  const { problem, sequence } = time;
  const { cost, bytes, storages } = problem;
  const [dearest] = furtherRuns(problem, sequence);
  if (dearest === undefined) return [];
  const limit = cost[sequence[dearest] as number] as number;
  const list: { gap: Gap; score: number }[] = [];
  for (let s = 0; s < storages; s++) {
    if (bytes[s] === 0) continue;
    for (let i = time.gapStart[s] as number; i < (time.gapStart[s + 1] as number); i++) {
      const to = time.to[i] as number;
      const length = to - (time.from[i] as number) - 1;
      if (length < 1) continue;
      const runs = time.runsFor(s, to);
      work.left -= runs ? 4 * runs.length : 4;
      if (!runs) continue;
      let price = 0;
      for (const op of runs) price += cost[op] as number;
      if (price < limit)
        list.push({ gap: { s, to, runs }, score: price / ((bytes[s] as number) * length) });
    }
  }
  return list.sort((a, b) => a.score - b.score).map(({ gap }) => gap);
}

/** The sequence with the runs at some positions taken out, and repaired; undefined when that does not work. */
function without(
  problem: Problem,
  sequence: Int32Array,
  positions: readonly number[],
  budget: number,
  work: SearchWork,
): Int32Array | undefined {
  const { outputStart, ops, mustDrop, cost } = problem;
  const time = new Timeline(problem, sequence);
  work.left -= sequence.length;
  const blocked = new Set<number>();
  let most = 0;
  for (const at of positions) {
    const op = sequence[at] as number;
    most += exchangeLimit * (cost[op] as number);
    for (let s = outputStart[op] as number; s < (outputStart[op + 1] as number); s++) {
      if (mustDrop[s]) return undefined;
      const gap = time.gapAt(s, at + 1);
      if (gap >= 0) blocked.add(s * ops + (sequence[time.to[gap] as number] ?? ops - 1));
    }
  }
  const shorter = sequence.filter((_, i) => !positions.includes(i));
  const repaired = repair(problem, useful(problem, shorter), budget, work, blocked, most);
  return repaired && polish(problem, repaired, budget).sequence;
}

/** The sequence without further runs that nothing reads. */
function useful(problem: Problem, sequence: Int32Array): Int32Array {
  const { inputStart, inputs, outputStart, isResult, storages } = problem;
  const needed = isResult.slice();
  const first = new Int32Array(problem.ops).fill(-1);
  sequence.forEach((op, i) => {
    if ((first[op] as number) < 0) first[op] = i;
  });
  const keep = new Uint8Array(sequence.length);
  for (let i = sequence.length - 1; i >= 0; i--) {
    const op = sequence[i] as number;
    let isRead = first[op] === i;
    for (let s = outputStart[op] as number; s < (outputStart[op + 1] as number); s++) {
      if (needed[s]) isRead = true;
    }
    if (!isRead) continue;
    keep[i] = 1;
    needed.fill(0, outputStart[op], outputStart[op + 1]);
    for (let j = inputStart[op] as number; j < (inputStart[op + 1] as number); j++)
      needed[inputs[j] as number] = 1;
  }
  return storages === 0 ? sequence : sequence.filter((_, i) => keep[i] === 1);
}

/** Positions of further runs, dearest first. */
function furtherRuns(problem: Problem, sequence: Int32Array): number[] {
  const ran = new Uint8Array(problem.ops);
  const list: number[] = [];
  sequence.forEach((op, i) => {
    if (ran[op]) list.push(i);
    ran[op] = 1;
  });
  const price = (at: number) => problem.cost[sequence[at] as number] as number;
  return list.sort((a, b) => price(b) - price(a) || a - b);
}
