/** A plan for one budget: decisions at the instants that break it, worst first. */

import { Cut, type CutSite } from './cut.ts';
import type { Problem } from './problem.ts';
import { type Decision, type Realization, inOrder, realize } from './realize.ts';
import { type Profile, profileOf } from './sequence.ts';

export interface DirectResult {
  readonly sequence: Int32Array;
  readonly peak: number;
  readonly decisions: readonly Decision[];
}

export interface Stuck {
  readonly stuckAt: number;
  readonly sequence: Int32Array;
}

export interface Work {
  flows: number;
  repairs: number;
}

/** Cuts of the graph's own order, made once and asked for many budgets. */
export class BaseCuts {
  readonly problem: Problem;
  readonly #held: Uint8Array;
  readonly #made = new Map<number, Cut>();

  /** `held`: storages no cut may give up. */
  constructor(problem: Problem, held: Uint8Array) {
    this.problem = problem;
    this.#held = held;
  }

  at(op: number): Cut {
    const known = this.#made.get(op);
    if (known) return known;
    const cut = new Cut(this.problem, {
      op,
      executed: op + 1,
      demands: demandsAfter(this.problem, op + 1),
      held: this.#held,
    });
    this.#made.set(op, cut);
    return cut;
  }

  entries(): IterableIterator<[number, Cut]> {
    return this.#made.entries();
  }
}

export function direct(
  problem: Problem,
  budget: number,
  work: Work,
  cuts: BaseCuts,
  held: Uint8Array,
  maxRepairs = 30,
): DirectResult | Stuck {
  let decisions: Decision[] = [];
  let plan: Realization = realize(problem, decisions);
  const seen = new Map<string, number>();
  for (let round = 0; ; round++) {
    const profile = profileOf(problem, plan.sequence);
    if (profile.peak <= budget) return { sequence: plan.sequence, peak: profile.peak, decisions };
    const first = decisions.length === 0;
    const at = first ? mostBinding(plan, profile, budget, work, cuts) : profile.peakAt;
    const op = plan.sequence[at] as number;
    const before = plan.serving[at] as number;
    const times = (seen.get(`${before}:${op}`) ?? 0) + 1;
    seen.set(`${before}:${op}`, times);
    if (round === maxRepairs || times > 2) return { stuckAt: op, sequence: plan.sequence };
    work.repairs++;
    const cut =
      first && !problem.hasDrops
        ? cuts.at(op)
        : new Cut(problem, siteOf(problem, decisions, before, op, at, held));
    const flowsBefore = cut.flows;
    const room = budget - (problem.workingSet[op] as number);
    const solution = cut.solve(room);
    work.flows += cut.flows - flowsBefore;
    if (solution.bytes + cut.heldBytes > room || !solution.feasible) {
      return { stuckAt: op, sequence: plan.sequence };
    }
    const decision = { before, op, hold: cut.held() };
    decisions = [...decisions.filter((d) => d.before !== before || d.op !== op), decision].sort(
      inOrder,
    );
    plan = realize(problem, decisions);
  }
}

/** The position over the budget whose instant, alone, costs most. */
function mostBinding(
  plan: Realization,
  { live, peakAt }: Profile,
  budget: number,
  work: Work,
  cuts: BaseCuts,
): number {
  const { workingSet } = cuts.problem;
  const opAt = (at: number) => plan.sequence[at] as number;
  const size = (at: number) => workingSet[opAt(at)] as number;
  const candidates = [...live.keys()]
    .filter((at) => (live[at] as number) > budget && plan.serving[at] === opAt(at))
    .sort((a, b) => size(b) - size(a) || a - b);
  let best = peakAt;
  let bestBound = -1;
  for (const at of new Set([peakAt, ...candidates.slice(0, 6)])) {
    if (plan.serving[at] !== opAt(at)) continue;
    const cut = cuts.at(opAt(at));
    const room = budget - size(at);
    const before = cut.flows;
    cut.solve(room);
    work.flows += cut.flows - before;
    const bound = cut.bound(room);
    if (bound > bestBound) {
      bestBound = bound;
      best = at;
    }
  }
  return best;
}

function siteOf(
  problem: Problem,
  decisions: readonly Decision[],
  before: number,
  op: number,
  at: number,
  held: Uint8Array,
): CutSite {
  const later = decisions.find((d) => d.before > before || (d.before === before && d.op > op));
  const available = realize(problem, decisions, at).available;
  const executed = op === before ? before + 1 : before;
  available.fill(1, problem.outputStart[op], problem.outputStart[op + 1]);
  const { boundary, mustDrop, useStart, uses, ops } = problem;
  if (executed <= boundary && boundary < ops) {
    // Until the forward has ended, holding what will be dropped serves forward ops alone.
    for (let s = 0; s < available.length; s++) {
      if (!mustDrop[s]) continue;
      const readers = uses.subarray(useStart[s], useStart[s + 1]);
      if (!readers.some((user) => user >= executed && user < boundary)) available[s] = 0;
    }
  }
  return { op, executed, available, held, demands: demandsAfter(problem, executed, later) };
}

/** Storages made by ops below `executed` that later ops of the graph's order, the next decision or the end need. */
export function demandsAfter(problem: Problem, executed: number, later?: Decision): Set<number> {
  const { inputStart, inputs, outputStart, isResult } = problem;
  const made = outputStart[executed] as number;
  const demands = new Set<number>();
  const read = (op: number) => {
    for (let i = inputStart[op] as number; i < (inputStart[op + 1] as number); i++) {
      const s = inputs[i] as number;
      if (s < made) demands.add(s);
    }
  };
  const end = later ? later.before : problem.ops;
  for (let op = executed; op < end; op++) read(op);
  if (later) {
    read(later.op);
    for (let s = 0; s < made; s++) if (later.hold[s]) demands.add(s);
  } else {
    for (let s = 0; s < made; s++) if (isResult[s]) demands.add(s);
  }
  return demands;
}
