/**
 * Finding the fastest plan whose real peak keeps a budget. The planner counts bytes in a model of the
 * step; fusion, donated buffers and the arena move the real peak a little away from it. So the budget
 * given to the planner is moved until the real peak lies just below the one that was asked for.
 */

import type { Graph, Value } from '../ir/graph.ts';
import type { Plan, PlanGraph } from '../plan/graph.ts';
import { baseSchedule, simulate } from '../plan/simulate.ts';
import { InfeasibleBudgetError, definite } from '../core/errors.ts';
import { AsideChoices, type PlannerActions, valueKey } from './aside-choices.ts';
import { type CostModel, programNs } from './cost-model.ts';
import {
  type LoweredGraph,
  type Pass,
  type PassRunner,
  basePasses,
  fetchingPasses,
  plannedPasses,
} from './pipeline.ts';
import { type RematGraph, rematGraph } from './remat-graph.ts';
import type { RematRules } from './remat-rules.ts';
import { type Aside, asideOf } from './set-aside.ts';
import { withTransfers } from './transfer-rates.ts';

/** Chooses what runs when in one graph, under one budget after the other. */
export type MakePlanner = (graph: PlanGraph) => { plan(budgetBytes: number): Plan };

export interface SearchOptions {
  readonly costOf: CostModel;
  readonly planner: MakePlanner;
  readonly rules: RematRules;
  /** What values may do beside staying and being computed again. Default: what policies order. */
  readonly actions?: PlannerActions;
}

/** A plan that was lowered. */
export interface RematChoice {
  readonly planned: Plan;
  readonly lowered: LoweredGraph;
  /** Estimated nanoseconds of a run. */
  readonly estimatedNs: number;
}

/** How often the planner's budget is moved, and which share of the budget may stay unused. */
const maxTrials = 8;
const closeEnough = 1 / 256;
/** Model budgets that are tried for the least real peak, in units of the least that the model knows. */
const smallestShares = [1, 1.02, 1.05, 1.1];

export class RematSearch {
  /** The step with nothing recomputed, and the passes that made it. */
  readonly base: LoweredGraph;
  readonly basePasses: readonly Pass[];
  readonly remat: RematGraph;
  readonly #runner: PassRunner;
  readonly #options: SearchOptions;
  readonly #planner: ReturnType<MakePlanner>;
  readonly #costOf: CostModel;
  readonly #spoilt = new Set<string>();
  #smallest: RematChoice | undefined;

  constructor(traced: Graph, runner: PassRunner, options: SearchOptions) {
    const { actions = noActions, rules } = options;
    this.#runner = runner;
    this.#options = options;
    this.#costOf = withTransfers(options.costOf, runner.rates);
    const ordered = orderedAsides(traced);
    const fetches = actions.offload || ordered.has('offload');
    this.basePasses = fetches ? fetchingPasses : basePasses;
    this.base = runner.lower(runner.run(this.basePasses, traced, true));
    const anyAside = actions.offload || actions.compress !== undefined || ordered.size > 0;
    this.remat = rematGraph(this.base, {
      costOf: options.costOf,
      ruleOf: rules(this.base.graph),
      asides: anyAside
        ? new AsideChoices(this.base.graph, actions, {
            rates: runner.rates,
            costOf: options.costOf,
          })
        : undefined,
    });
    this.#planner = options.planner(this.remat.plan);
  }

  /** Keys of compressed values that forward would have read rounded: such plans were not taken. */
  get spoilt(): ReadonlySet<string> {
    return this.#spoilt;
  }

  /** Peak in the planner's model with nothing recomputed. */
  get modelPeakBytes(): number {
    // The base order keeps what is to be dropped; here only its memory is asked for.
    const nodes = this.remat.plan.nodes.map((node) => ({ ...node, drop: false }));
    const graph = { ...this.remat.plan, nodes };
    return simulate(graph, baseSchedule(graph)).peakBytes;
  }

  /** Estimated nanoseconds of a run of any lowered graph. */
  estimate(lowered: LoweredGraph): number {
    return programNs(lowered.fused, this.#costOf);
  }

  /** The graph passes of a plan, from what basePasses made of the traced step. */
  passesOf(planned: Plan, onSpoilt?: (values: ReadonlySet<Value>) => void): readonly Pass[] {
    return plannedPasses(this.remat, planned.schedule, onSpoilt);
  }

  /**
   * The fastest plan found whose real peak is at most `budgetBytes`; undefined when even the smallest plan
   * takes more.
   */
  within(budgetBytes: number): RematChoice | undefined {
    let best: RematChoice | undefined;
    let low = 0;
    let high = Number.POSITIVE_INFINITY;
    let model = budgetBytes + this.modelPeakBytes - this.base.peakBytes;
    const close = closeEnough * budgetBytes;
    for (let trial = 0; trial < maxTrials && high - low > close; trial++) {
      const choice = this.#plan(model);
      if (!choice) break;
      const spare = budgetBytes - choice.lowered.peakBytes;
      if (spare >= 0) {
        if (!best || choice.estimatedNs < best.estimatedNs) best = choice;
        low = Math.max(low, model);
        if (spare <= close || choice.planned.extraNs === 0) break;
      } else high = Math.min(high, model);
      const next = model + spare;
      model = next > low && next < high ? next : Math.floor((low + Math.min(high, 2 * model)) / 2);
    }
    if (best) return best;
    const smallest = this.smallest();
    return smallest && smallest.lowered.peakBytes <= budgetBytes ? smallest : undefined;
  }

  /**
   * The plan of least real peak among the smallest of the planner's model; the same whatever was asked before.
   * Undefined when all of them spoil compressed values.
   */
  smallest(): RematChoice | undefined {
    this.#smallest ??= this.#findSmallest();
    return this.#smallest;
  }

  #findSmallest(): RematChoice | undefined {
    const planner = this.#options.planner(this.remat.plan);
    const least = smallestOf(planner);
    return smallestShares
      .flatMap((share) => this.#plan(Math.ceil(share * least), planner) ?? [])
      .reduce<RematChoice | undefined>(
        (a, b) => (a && a.lowered.peakBytes <= b.lowered.peakBytes ? a : b),
        undefined,
      );
  }

  /** The planner's plan for so many bytes; undefined when its model has none, or it spoils compressed values. */
  #plan(budgetBytes: number, planner = this.#planner): RematChoice | undefined {
    try {
      const planned = this.#withoutFreeRuns(planner.plan(budgetBytes));
      let sound = true;
      const passes = this.passesOf(planned, (values) => {
        sound = false;
        for (const value of values) this.#spoilt.add(valueKey(value));
      });
      const graph = this.#runner.run(passes, this.base.graph, true);
      if (!sound) return undefined;
      const lowered = this.#runner.lower(graph);
      return { planned, lowered, estimatedNs: this.estimate(lowered) };
    } catch (error) {
      if (!(error instanceof InfeasibleBudgetError)) throw error;
      return undefined;
    }
  }

  /** First runs of nodes that bring values back are no work. */
  #withoutFreeRuns(plan: Plan): Plan {
    const { freeNs } = this.remat;
    if (freeNs === 0) return plan;
    const baseNs = plan.baseNs - freeNs;
    return { ...plan, baseNs, gap: baseNs > 0 ? (plan.extraNs - plan.lowerBoundNs) / baseNs : 0 };
  }
}

const noActions: PlannerActions = { offload: false, compress: undefined, hintsAreOrders: true };

/** Ways of waiting that policies name. */
function orderedAsides(graph: Graph): Set<Aside> {
  return new Set(graph.nodes.flatMap((node) => asideOf(node.meta.policy) ?? []));
}

/** The least bytes that a planner has a plan for. */
function smallestOf(planner: ReturnType<MakePlanner>): number {
  try {
    return planner.plan(0).peakBytes;
  } catch (error) {
    if (!(error instanceof InfeasibleBudgetError)) throw error;
    return definite(error.details.smallestBytes as number | undefined);
  }
}
