/**
 * Finding the fastest plan whose real peak keeps a budget. The planner counts bytes in a model of the
 * step; fusion, donated buffers and the arena move the real peak a little away from it. So the budget
 * given to the planner is moved until the real peak lies just below the one that was asked for.
 */

import type { Graph } from '../ir/graph.ts';
import type { Plan, PlanGraph } from '../plan/graph.ts';
import { baseSchedule, simulate } from '../plan/simulate.ts';
import { InfeasibleBudgetError, definite } from '../core/errors.ts';
import { type CostModel, programNs } from './cost-model.ts';
import { type LoweredGraph, type PassRunner, basePasses, plannedPasses } from './pipeline.ts';
import { type RematGraph, rematGraph } from './remat-graph.ts';
import type { RematRules } from './remat-rules.ts';

/** Chooses what runs when in one graph, under one budget after the other. */
export type MakePlanner = (graph: PlanGraph) => { plan(budgetBytes: number): Plan };

export interface SearchOptions {
  readonly costOf: CostModel;
  readonly planner: MakePlanner;
  readonly rules: RematRules;
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
  /** The step with nothing recomputed. */
  readonly base: LoweredGraph;
  readonly remat: RematGraph;
  readonly #runner: PassRunner;
  readonly #options: SearchOptions;
  readonly #planner: ReturnType<MakePlanner>;
  #smallest: RematChoice | undefined;

  constructor(traced: Graph, runner: PassRunner, options: SearchOptions) {
    this.#runner = runner;
    this.#options = options;
    this.base = runner.lower(runner.run(basePasses, traced, true));
    this.remat = rematGraph(this.base, {
      costOf: options.costOf,
      ruleOf: options.rules(this.base.graph),
    });
    this.#planner = options.planner(this.remat.plan);
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
    return programNs(lowered.fused, this.#options.costOf);
  }

  /** The graph passes of a plan, from what basePasses made of the traced step. */
  passesOf(planned: Plan): ReturnType<typeof plannedPasses> {
    return plannedPasses(this.remat, planned.schedule);
  }

  /**
   * The fastest plan found whose real peak is at most `budgetBytes`; undefined when even the smallest plan
   * takes more. `modelBytes` is a first guess of what the planner may use.
   */
  within(budgetBytes: number, modelBytes: number): RematChoice | undefined {
    let best: RematChoice | undefined;
    let low = 0;
    let high = Number.POSITIVE_INFINITY;
    let model = modelBytes;
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
    return smallest.lowered.peakBytes <= budgetBytes ? smallest : undefined;
  }

  /** The plan of least real peak among the smallest of the planner's model; the same whatever was asked before. */
  smallest(): RematChoice {
    this.#smallest ??= this.#findSmallest();
    return this.#smallest;
  }

  #findSmallest(): RematChoice {
    const planner = this.#options.planner(this.remat.plan);
    const least = smallestOf(planner);
    return smallestShares
      .map((share) => definite(this.#plan(Math.ceil(share * least), planner)))
      .reduce((a, b) => (b.lowered.peakBytes < a.lowered.peakBytes ? b : a));
  }

  /** The planner's plan for so many bytes; undefined when its model has none. */
  #plan(budgetBytes: number, planner = this.#planner): RematChoice | undefined {
    try {
      const planned = planner.plan(budgetBytes);
      const graph = this.#runner.run(this.passesOf(planned), this.base.graph, true);
      const lowered = this.#runner.lower(graph);
      return { planned, lowered, estimatedNs: this.estimate(lowered) };
    } catch (error) {
      if (!(error instanceof InfeasibleBudgetError)) throw error;
      return undefined;
    }
  }
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
