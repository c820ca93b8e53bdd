/**
 * Finding the fastest plan whose real peak keeps a budget. The planner counts bytes in a model of the
 * step; fusion, donated buffers and the arena move the real peak a little away from it. So the budget
 * given to the planner is moved until the real peak lies just below the one that was asked for.
 */

import type { Graph } from '../ir/graph.ts';
import type { PlanGraph } from '../plan/graph.ts';
import { baseSchedule, simulate } from '../plan/simulate.ts';
import { InfeasibleBudgetError, type Plan } from '../plan/plan.ts';
import { type CostModel, programNs } from './cost-model.ts';
import { type LoweredGraph, type PassRunner, basePasses, plannedPasses } from './pipeline.ts';
import { type RematGraph, rematGraph } from './remat-graph.ts';
import type { RematRules } from './remat-rules.ts';

/** Chooses what runs when; as planGraph of `retune/plan`. */
export type Planner = (graph: PlanGraph, options: { readonly budgetBytes: number }) => Plan;

export interface SearchOptions {
  readonly costOf: CostModel;
  readonly planner: Planner;
  readonly rules: RematRules;
}

/** A plan that was lowered. */
export interface RematChoice {
  readonly planned: Plan;
  readonly lowered: LoweredGraph;
  /** Estimated nanoseconds of a run. */
  readonly estimatedNs: number;
}

export interface SearchResult {
  readonly best: RematChoice | undefined;
  /** The plan of least real peak that was seen. */
  readonly smallest: RematChoice | undefined;
}

/** How often the planner's budget is moved, and which share of the budget may stay unused. */
const maxTrials = 8;
const closeEnough = 1 / 256;

export class RematSearch {
  /** The step with nothing recomputed. */
  readonly base: LoweredGraph;
  readonly remat: RematGraph;
  readonly #runner: PassRunner;
  readonly #options: SearchOptions;

  constructor(traced: Graph, runner: PassRunner, options: SearchOptions) {
    this.#runner = runner;
    this.#options = options;
    this.base = runner.lower(runner.run(basePasses, traced, true));
    this.remat = rematGraph(this.base, {
      costOf: options.costOf,
      ruleOf: options.rules(this.base.graph),
    });
  }

  /** Peak in the planner's model with nothing recomputed. */
  get modelPeakBytes(): number {
    return simulate(this.remat.plan, baseSchedule(this.remat.plan)).peakBytes;
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
   * The fastest plan found whose real peak is at most `budgetBytes`. `modelBytes` is a first guess of what
   * the planner may use. A budget that its model cannot keep may still be kept by the real step, so the
   * smallest plan is tried before giving up.
   */
  within(budgetBytes: number, modelBytes: number): SearchResult {
    let best: RematChoice | undefined;
    let smallest: RematChoice | undefined;
    let low = 0;
    let high = Number.POSITIVE_INFINITY;
    let model = modelBytes;
    for (let trial = 0; trial < maxTrials; trial++) {
      const attempt = this.#try(model);
      model = attempt.modelBytes;
      const { choice } = attempt;
      if (!smallest || choice.lowered.peakBytes < smallest.lowered.peakBytes) smallest = choice;
      const spare = budgetBytes - choice.lowered.peakBytes;
      if (spare >= 0) {
        if (!best || choice.estimatedNs < best.estimatedNs) best = choice;
        low = Math.max(low, model);
        if (choice.planned.extraNs === 0) break;
      } else {
        high = Math.min(high, model);
        if (attempt.isSmallest) break;
      }
      const close = closeEnough * budgetBytes;
      if (high - low <= close || (spare >= 0 && spare <= close)) break;
      const next = model + spare;
      model = next > low && next < high ? next : Math.floor((low + Math.min(high, 2 * model)) / 2);
    }
    return { best, smallest };
  }

  /** The planner's plan for so many bytes, or its smallest when it has none. */
  #try(budgetBytes: number): { choice: RematChoice; modelBytes: number; isSmallest: boolean } {
    const { planner } = this.#options;
    const { plan } = this.remat;
    try {
      const planned = planner(plan, { budgetBytes });
      return { choice: this.#lower(planned), modelBytes: budgetBytes, isSmallest: false };
    } catch (error) {
      if (!(error instanceof InfeasibleBudgetError)) throw error;
      const { smallestBytes } = error;
      const planned = planner(plan, { budgetBytes: smallestBytes });
      return { choice: this.#lower(planned), modelBytes: smallestBytes, isSmallest: true };
    }
  }

  #lower(planned: Plan): RematChoice {
    const graph = this.#runner.run(this.passesOf(planned), this.base.graph, true);
    const lowered = this.#runner.lower(graph);
    return { planned, lowered, estimatedNs: this.estimate(lowered) };
  }
}
