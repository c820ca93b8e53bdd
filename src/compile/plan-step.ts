/**
 * From a traced step to what runs: checkpoint regions as the user wrote them, or what the planner chooses
 * under a budget of bytes. Whatever is chosen is lowered before it is believed: the peak that counts
 * is that of the real kernels in the real arena.
 */

import { type ByteBudget, budgetBytes as budgetBytesOf } from '../core/byte-budget.ts';
import { formatBytes } from '../core/bytes.ts';
import { ConfigError, InfeasibleBudgetError } from '../core/errors.ts';
import type { Graph } from '../ir/graph.ts';
import { Planner } from '../plan/planner.ts';
import type { Backend } from '../runtime/backend.ts';
import { type CostModel, rooflineCost } from './cost-model.ts';
import { type FrontierPoint, frontierOf } from './frontier.ts';
import { measuredCost } from './measured-cost.ts';
import { describePeak, peakOf } from './peak.ts';
import {
  type LoweredGraph,
  type PassOptions,
  PassRunner,
  basePasses,
  regionPasses,
  writtenOrderPasses,
} from './pipeline.ts';
import {
  type MakePlanner,
  type RematChoice,
  RematSearch,
  type SearchOptions,
} from './remat-search.ts';
import { underBudget, withinRegions, withoutRegions } from './remat-rules.ts';
import { hasRegions } from './rematerialize.ts';

export interface StepOptions extends PassOptions {
  /**
   * The most that a run may allocate; a share is of what it takes with nothing recomputed. The planner then decides for every value whether it is kept or
   * computed again; checkpoint regions stay constraints: what they drop is not kept (checkpointing.md P1, P3).
   */
  readonly budget?: ByteBudget;
  /**
   * Prices work that may be done again: `flops`, a roofline of arithmetic and memory traffic (the default, the
   * same everywhere), `measured`, timed on this backend once for each kernel and remembered by it, or a model of your own.
   */
  readonly cost?: 'flops' | 'measured' | CostModel;
  /** Chooses what runs when. Default: that of `retune/plan`. */
  readonly planner?: MakePlanner;
}

export interface CompiledPlan extends LoweredGraph {
  /** What the planner chose and against what; undefined when nothing was left to choose. */
  readonly choice: PlannerChoice | undefined;
}

export interface PlannerChoice extends RematChoice {
  /** What the peak was to stay within, and the peak with nothing recomputed. */
  readonly budgetBytes: number;
  readonly basePeakBytes: number;
  /** Estimated nanoseconds of a run that recomputes nothing. */
  readonly baseNs: number;
}

/**
 * Plans a traced step. Without a budget, regions bound the memory: values inside them are kept where
 * that does not raise the peak above what running them op by op takes. Throws ConfigError for a budget that
 * is no amount of memory, InfeasibleBudgetError for one that no plan keeps.
 */
export function planStep(traced: Graph, backend: Backend, options: StepOptions = {}): CompiledPlan {
  const runner = new PassRunner(options);
  const regions = hasRegions(traced) && !runner.isDisabled('planRegions');
  const { budget } = options;
  const tools = { costOf: costModel(options.cost, backend), planner: plannerOf(options) };
  if (budget !== undefined) return planWithin(traced, runner, tools, budget);
  const written = runner.lower(runner.run(regionPasses, traced, regions));
  if (!regions) return { ...written, choice: undefined };
  return planRegions(traced, runner, tools, written);
}

/** The time-memory frontier of a traced step, its regions aside: at most so many points, by rising memory. */
export function planStepFrontier(
  traced: Graph,
  backend: Backend,
  options: StepOptions,
  points: number,
): FrontierPoint[] {
  const tools = { costOf: costModel(options.cost, backend), planner: plannerOf(options) };
  const search = new RematSearch(traced, new PassRunner(options), {
    ...tools,
    rules: withoutRegions,
  });
  return frontierOf(search, points);
}

/** Any value may be kept or computed again, but for what the user ordered. */
function planWithin(
  traced: Graph,
  runner: PassRunner,
  tools: Tools,
  budget: ByteBudget,
): CompiledPlan {
  const search = new RematSearch(traced, runner, {
    ...tools,
    rules: underBudget,
  });
  const { base } = search;
  const budgetBytes = budgetBytesOf(budget, () => base.peakBytes);
  const modelBytes = budgetBytes + search.modelPeakBytes - base.peakBytes;
  const best = search.within(budgetBytes, modelBytes);
  if (!best) throw infeasible(budgetBytes, search.smallest());
  return chosen(traced, runner, search, { ...best, budgetBytes });
}

/**
 * Inside regions a value may be kept. They promise the memory of running them op by op; what the compiler's order
 * and kernels save of it is spent on keeping values (docs/decisions/0016).
 */
function planRegions(
  traced: Graph,
  runner: PassRunner,
  tools: Tools,
  written: LoweredGraph,
): CompiledPlan {
  const search = new RematSearch(traced, runner, {
    ...tools,
    rules: withinRegions,
  });
  const opByOp = runner.lower(runner.run(writtenOrderPasses, traced, true), { fused: false });
  const budgetBytes = Math.max(written.peakBytes, opByOp.peakBytes);
  const modelBytes = budgetBytes + search.modelPeakBytes - search.base.peakBytes;
  const best = search.within(budgetBytes, modelBytes);
  if (best && best.estimatedNs < search.estimate(written)) {
    return chosen(traced, runner, search, { ...best, budgetBytes });
  }
  if (runner.watched) runner.run(regionPasses, traced);
  return { ...written, choice: undefined };
}

/** The plan that is taken; its passes run once more when somebody watches. */
function chosen(
  traced: Graph,
  runner: PassRunner,
  search: RematSearch,
  choice: RematChoice & { readonly budgetBytes: number },
): CompiledPlan {
  const facts = { basePeakBytes: search.base.peakBytes, baseNs: search.estimate(search.base) };
  if (runner.watched) {
    runner.run(basePasses, traced);
    runner.run(search.passesOf(choice.planned), search.base.graph);
  }
  return { ...choice.lowered, choice: { ...choice, ...facts } };
}

/** A compile should take no longer than a second or two: a tenth of the planner's own patience. */
const searchWork = 2e5;

type Tools = Pick<SearchOptions, 'costOf' | 'planner'>;

function plannerOf({ planner }: StepOptions): MakePlanner {
  return planner ?? ((graph) => new Planner(graph, { searchWork }));
}

function costModel(cost: StepOptions['cost'] = 'flops', backend: Backend): CostModel {
  if (typeof cost === 'function') return cost;
  if (cost === 'flops') return rooflineCost;
  if (cost === 'measured') return measuredCost(backend);
  throw new ConfigError(
    `compile: unknown cost (got ${JSON.stringify(cost)}). Use flops, measured, or a function.`,
    { key: 'cost', value: cost, legal: ['flops', 'measured'] },
  );
}

function infeasible(budgetBytes: number, smallest: RematChoice): InfeasibleBudgetError {
  const peak = peakOf(smallest.lowered);
  const least = formatBytes(peak.peakBytes);
  return new InfeasibleBudgetError(
    `budget: no plan keeps the step within ${formatBytes(budgetBytes)} (got ${least} from the smallest plan found, ${describePeak(peak)}). ` +
      `Give at least ${peak.peakBytes} bytes, or make the batch or the sequence smaller.`,
    { budgetBytes, smallestBytes: peak.peakBytes, peak },
  );
}
