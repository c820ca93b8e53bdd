/**
 * The fastest plan of a step when the planner may do more than keep values and compute them again. It is sought without
 * further actions and with each of those that are allowed; the best one counts, so allowing more is never slower.
 */

import type { SaveFormat, Graph } from '../ir/graph.ts';
import type { PlannerActions } from './aside-choices.ts';
import type { LoweredGraph, PassRunner } from './pipeline.ts';
import { type RematChoice, RematSearch, type SearchOptions } from './remat-search.ts';

export interface AllowedActions {
  readonly offload: boolean;
  readonly compress: SaveFormat | undefined;
}

/** A plan, and the search whose passes make it. */
export interface FoundPlan {
  readonly choice: RematChoice;
  readonly search: RematSearch;
}

/** How often values that forward reads are taken from those that may be compressed. */
const maxExclusions = 3;

export class ActionSearch {
  /** Without further actions. */
  readonly plain: RematSearch;
  readonly #makeSearch: (actions: PlannerActions) => RematSearch;
  readonly #allowed: AllowedActions;
  #exact = new Set<string>();
  #offloading: RematSearch | undefined;
  #compressing: RematSearch | undefined;

  constructor(
    traced: Graph,
    runner: PassRunner,
    options: Omit<SearchOptions, 'actions'>,
    allowed: AllowedActions,
  ) {
    this.#makeSearch = (actions) => new RematSearch(traced, runner, { ...options, actions });
    this.#allowed = allowed;
    this.plain = this.#makeSearch({ offload: false, compress: undefined, hintsAreOrders: false });
  }

  /** The step with nothing recomputed. */
  get base(): LoweredGraph {
    return this.plain.base;
  }

  /** Estimated nanoseconds of a run of any lowered graph. */
  estimate(lowered: LoweredGraph): number {
    return this.plain.estimate(lowered);
  }

  /** The fastest plan found whose real peak is at most `budgetBytes`; undefined when there is none. */
  within(budgetBytes: number): FoundPlan | undefined {
    return this.#best(
      (search) => search.within(budgetBytes),
      (a, b) => a.estimatedNs < b.estimatedNs,
    );
  }

  /** The plan of least real peak that was found. */
  smallest(): FoundPlan | undefined {
    return this.#best(
      (search) => search.smallest(),
      (a, b) => a.lowered.peakBytes < b.lowered.peakBytes,
    );
  }

  #best(
    find: (search: RematSearch) => RematChoice | undefined,
    isBetter: (a: RematChoice, b: RematChoice) => boolean,
  ): FoundPlan | undefined {
    let best: FoundPlan | undefined;
    const offer = (search: RematSearch): void => {
      const choice = find(search);
      if (choice && (!best || isBetter(choice, best.choice))) best = { choice, search };
    };
    offer(this.plain);
    const { offload, compress } = this.#allowed;
    if (offload) {
      this.#offloading ??= this.#makeSearch({ ...allActions, offload });
      offer(this.#offloading);
    }
    for (let i = 0; compress && i < maxExclusions; i++) {
      this.#compressing ??= this.#makeSearch({ ...allActions, compress, exact: this.#exact });
      const { spoilt } = this.#compressing;
      offer(this.#compressing);
      if (spoilt.size === 0) break;
      this.#exact = new Set([...this.#exact, ...spoilt]);
      this.#compressing = undefined;
    }
    return best;
  }
}

const allActions: PlannerActions = { offload: false, compress: undefined, hintsAreOrders: false };
