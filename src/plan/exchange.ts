/**
 * Local search over sequences, always downhill: takes one or two further runs out and repairs what then does
 * not fit, or puts a cheap one in so that dearer ones can go. Work is limited by counts.
 */

import { polish } from './polish.ts';
import type { Problem } from './problem.ts';
import type { Gap, SearchWork } from './repair.ts';
import { extraOf } from './sequence.ts';
import { furtherRuns, useful, without } from './take-out.ts';
import { Timeline } from './timeline.ts';

/** Pairs of further runs are tried when there are no more than this many. */
const mostPairs = 40;

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
