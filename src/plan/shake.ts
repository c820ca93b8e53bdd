/**
 * Simulated annealing (Kirkpatrick, Gelatt and Vecchi, "Optimization by simulated annealing", Science 1983) over
 * sequences: a few further runs that lie close together are taken out, what then does not fit is repaired by gaps
 * near the cheapest, and a result that costs more is taken now and then. It finds its way out of plans that no
 * single exchange makes better. The draws are the same every time.
 */

import { philox, unitFloat } from '../core/random.ts';
import type { Problem } from './problem.ts';
import type { SearchWork } from './repair.ts';
import { extraOf } from './sequence.ts';
import { furtherRuns, without } from './take-out.ts';

export interface ShakeOptions {
  readonly work: SearchWork;
  /** No plan costs less. */
  readonly bound: number;
  readonly enough: (extra: number) => boolean;
}

/** Rounds begin with the best sequence so far and the one that was given, in turn, and end at temperature zero. */
const rounds = 12;
const trialsOfRound = 150;
/** So many rounds that find nothing better end the search. */
const idleRounds = 4;
/** Temperatures at the start of rounds, in turn, as shares of what the best costs above the bound. */
const heats: readonly number[] = [0.3, 0.1];
/** Most runs that are taken out at once, of three times as many near one place. */
const mostRuns = 16;
/** Prices are blurred by factors of up to e, each way. */
const blurred = 1;

/** The cheapest sequence seen; `sequence` must be within `budget`. */
export function shake(
  problem: Problem,
  sequence: Int32Array,
  budget: number,
  { work, bound, enough }: ShakeOptions,
): Int32Array {
  const draw = draws();
  const blur = (): number => Math.exp(blurred * (2 * draw() - 1));
  let best = sequence;
  let bestCost = extraOf(problem, best).cost;
  let lastFind = -1;
  for (let round = 0; round < rounds && round - lastFind <= idleRounds; round++) {
    let now = round % 2 === 0 ? best : sequence;
    let cost = extraOf(problem, now).cost;
    const start = (heats[round % heats.length] ?? 0) * (bestCost - bound);
    for (let i = 0; i < trialsOfRound; i++) {
      if (work.left <= 0 || enough(bestCost)) return best;
      work.tried++;
      work.left -= 4 * now.length;
      const trial = without(problem, now, closeRuns(problem, now, draw), budget, work, blur);
      if (!trial) continue;
      const trialCost = extraOf(problem, trial).cost;
      const temperature = start * (1 - i / trialsOfRound);
      if (trialCost >= cost && draw() >= Math.exp((cost - trialCost) / temperature)) continue;
      now = trial;
      cost = trialCost;
      if (cost >= bestCost) continue;
      best = now;
      bestCost = cost;
      lastFind = round;
      work.kept++;
    }
  }
  return best;
}

/** Positions of some further runs near one of them; rarely many. */
function closeRuns(problem: Problem, sequence: Int32Array, draw: () => number): number[] {
  const runs = furtherRuns(problem, sequence);
  const centre = runs[Math.floor(draw() * runs.length)] ?? 0;
  const count = 1 + Math.floor(draw() * draw() * mostRuns);
  const near = runs
    .sort((a, b) => Math.abs(a - centre) - Math.abs(b - centre) || a - b)
    .slice(0, 3 * count);
  const chosen: number[] = [];
  while (chosen.length < count && near.length > 0) {
    chosen.push(...near.splice(Math.floor(draw() * near.length), 1));
  }
  return chosen;
}

/** Numbers in [0, 1), the same sequence each time. */
function draws(): () => number {
  const words = new Uint32Array(4);
  let count = 0;
  return () => {
    if (count % 4 === 0) philox(count / 4, 0, 0, 0, 0, 0, words);
    return unitFloat(words[count++ % 4] as number);
  };
}
