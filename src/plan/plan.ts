/** Planning a graph under a budget of bytes: one budget, a sweep of budgets, the smallest budget. */

import { ArgumentError, InfeasibleBudgetError } from '../core/errors.ts';
import type { Plan, PlanGraph, PlanOptions, PlannerOptions } from './graph.ts';
import { Planner, type SmallestFeasible } from './planner.ts';

export { InfeasibleBudgetError } from '../core/errors.ts';
export type { Plan } from './graph.ts';

/**
 * The fastest schedule found whose peak is within `budgetBytes`, with a proven lower bound on the time any
 * such schedule adds. Equal input gives an equal plan; a larger budget never gives a slower one.
 * @throws ArgumentError for a graph or a budget that is none.
 * @throws InfeasibleBudgetError when no plan was found: names the op, what is alive at it and the smallest
 *   budget a plan is known for.
 */
export function planGraph(graph: PlanGraph, options: PlanOptions): Plan {
  return new Planner(graph, options).plan(checkedBudget('planGraph', options.budgetBytes));
}

export interface FrontierOptions extends PlannerOptions {
  /** Bytes, in any order. Default: 20 budgets from the smallest feasible to the peak without a budget. */
  readonly budgets?: readonly number[];
}

export interface FrontierPoint {
  readonly budgetBytes: number;
  /** Undefined where the budget is infeasible. */
  readonly plan: Plan | undefined;
  readonly infeasible?: InfeasibleBudgetError;
}

export interface Frontier {
  /** Peak without a budget. */
  readonly basePeakBytes: number;
  readonly points: readonly FrontierPoint[];
}

/** Plans for many budgets, sharing all work; each point equals what `planGraph` gives for its budget. */
export function planFrontier(graph: PlanGraph, options: FrontierOptions = {}): Frontier {
  const planner = new Planner(graph, options);
  const budgets = options.budgets ?? defaultBudgets(planner);
  const points = budgets.map((budget, i): FrontierPoint => {
    options.onProgress?.(`budget ${i + 1} of ${budgets.length}`, i / budgets.length);
    const budgetBytes = checkedBudget('planFrontier', budget);
    try {
      return { budgetBytes, plan: planner.plan(budgetBytes) };
    } catch (error) {
      if (!(error instanceof InfeasibleBudgetError)) throw error;
      return { budgetBytes, plan: undefined, infeasible: error };
    }
  });
  return { basePeakBytes: planner.base.peak, points };
}

/** The least memory a plan was found for, and what is proven about it. */
export function smallestFeasible(graph: PlanGraph): SmallestFeasible {
  return new Planner(graph).smallestFeasible();
}

function defaultBudgets(planner: Planner, count = 20): number[] {
  const low = planner.smallestFeasible().bytes;
  const high = planner.base.peak;
  return Array.from({ length: count }, (_, i) =>
    Math.round(low + ((high - low) * i) / (count - 1)),
  );
}

function checkedBudget(name: string, budget: number): number {
  if (Number.isFinite(budget) && budget >= 0) return Math.floor(budget);
  throw new ArgumentError(
    `${name}: the budget is no amount of memory (got ${budget}). Give bytes, 0 or more.`,
  );
}
