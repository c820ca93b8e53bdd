/** A plan for one budget: decisions at the instants that break it, the most binding first. */

import type { BaseCuts } from './base-cuts.ts';
import { Cut, type CutSite } from './cut.ts';
import { demandsAfter } from './demands.ts';
import type { Problem } from './problem.ts';
import { type Decision, type Realization, inOrder, realize } from './realize.ts';
import { profileOf } from './sequence.ts';

export interface Work {
  flows: number;
  repairs: number;
}

/** Where a plan could not be brought within the budget. */
export interface Stuck {
  readonly stuckAt: number;
}

export interface DirectOptions {
  /** Cuts of the graph's own order, for the first decision. */
  readonly cuts: BaseCuts;
  /** Storages no later cut may give up. */
  readonly held: Uint8Array;
  /** The op whose instant is decided first; -1: that of the peak. */
  readonly first: number;
  readonly work: Work;
  readonly maxRepairs?: number;
}

/** A sequence within the budget. */
export function direct(
  problem: Problem,
  budget: number,
  { cuts, held, first, work, maxRepairs = 30 }: DirectOptions,
): Int32Array | Stuck {
  let decisions: Decision[] = [];
  let plan: Realization = realize(problem, decisions);
  const seen = new Map<string, number>();
  for (let round = 0; ; round++) {
    const { peak, peakAt } = profileOf(problem, plan.sequence);
    if (peak <= budget) return plan.sequence;
    const isFirst = round === 0 && first >= 0;
    const at = isFirst ? plan.sequence.indexOf(first) : peakAt;
    const op = plan.sequence[at] as number;
    const before = plan.serving[at] as number;
    const times = (seen.get(`${before}:${op}`) ?? 0) + 1;
    seen.set(`${before}:${op}`, times);
    if (round === maxRepairs || times > 2) return { stuckAt: op };
    work.repairs++;
    const cut =
      isFirst && !problem.hasDrops
        ? cuts.at(op)
        : new Cut(problem, siteOf(problem, decisions, before, op, at, held));
    const flowsBefore = cut.flows;
    const room = budget - (problem.workingSet[op] as number);
    const { solution } = cut.solve(room);
    work.flows += cut.flows - flowsBefore;
    if (solution.bytes + cut.heldBytes > room || !solution.feasible) return { stuckAt: op };
    const decision = { before, op, hold: cut.held() };
    decisions = [...decisions.filter((d) => d.before !== before || d.op !== op), decision].sort(
      inOrder,
    );
    plan = realize(problem, decisions);
  }
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
  return { op, executed, available, held, demands: demandsUntil(problem, executed, later) };
}

/** Demands between an instant and the next decision, whose holdings are demands themselves, or the end. */
function demandsUntil(
  problem: Problem,
  executed: number,
  later: Decision | undefined,
): Set<number> {
  if (!later) return demandsAfter(problem, executed, problem.ops, true);
  const made = problem.outputStart[executed] as number;
  const demands = demandsAfter(problem, executed, Math.max(executed, later.before), false);
  const { inputStart, inputs } = problem;
  for (let i = inputStart[later.op] as number; i < (inputStart[later.op + 1] as number); i++) {
    const s = inputs[i] as number;
    if (s < made) demands.add(s);
  }
  for (let s = 0; s < made; s++) if (later.hold[s]) demands.add(s);
  return demands;
}
