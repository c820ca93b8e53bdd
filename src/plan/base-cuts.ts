/** Cuts at instants of the graph's own order, made once and asked for many budgets, and the bound they prove. */

import { Cut } from './cut.ts';
import { demandsAfter } from './demands.ts';
import type { Problem } from './problem.ts';

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
      demands: demandsAfter(this.problem, op + 1, this.problem.ops, true),
      held: this.#held,
    });
    this.#made.set(op, cut);
    return cut;
  }
}

export interface Binding {
  /** The op whose instant, alone, costs most; -1 when everything fits. */
  readonly op: number;
  /** No plan adds less time (priced); Infinity when there is none. */
  readonly bound: number;
}

/** Instants that are looked at for one budget, besides that of the peak: those of the largest working sets. */
const candidates = 6;

/** For each budget the instant that binds most. Remembers its answers. */
export class Bindings {
  readonly #cuts: BaseCuts;
  readonly #work: { flows: number };
  readonly #bySize: readonly number[];
  readonly #live: Float64Array;
  readonly #known = new Map<number, Binding>();

  /** `live`: bytes alive per op when every op runs once, in order. `cuts` must hold nothing but results. */
  constructor(cuts: BaseCuts, live: Float64Array, work: { flows: number }) {
    const { workingSet } = cuts.problem;
    this.#cuts = cuts;
    this.#work = work;
    this.#live = live;
    this.#bySize = [...live.keys()].sort(
      (a, b) =>
        (workingSet[b] as number) - (workingSet[a] as number) ||
        (live[b] as number) - (live[a] as number) ||
        a - b,
    );
  }

  at(budget: number): Binding {
    const known = this.#known.get(budget);
    if (known) return known;
    const live = this.#live;
    const over = this.#bySize.filter((op) => (live[op] as number) > budget);
    let best: Binding = { op: -1, bound: 0 };
    if (over.length > 0) {
      const peak = over.reduce((a, b) => ((live[b] as number) > (live[a] as number) ? b : a));
      best = { op: peak, bound: -1 };
      for (const op of new Set([peak, ...over.slice(0, candidates)])) {
        const cut = this.#cuts.at(op);
        const before = cut.flows;
        const { bound } = cut.solve(budget - (this.#cuts.problem.workingSet[op] as number));
        this.#work.flows += cut.flows - before;
        if (bound > best.bound) best = { op, bound };
      }
    }
    this.#known.set(budget, best);
    return best;
  }
}
