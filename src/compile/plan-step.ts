/**
 * From a traced step to what runs: checkpoint regions as the user wrote them, or what the planner chooses
 * under a budget of bytes. Whatever is chosen is lowered before it is believed: the peak that counts
 * is that of the real kernels in the real arena.
 */

import type { PlanActions } from '../checkpoint/plan-actions.ts';
import { type ByteBudget, budgetBytes as budgetBytesOf } from '../core/byte-budget.ts';
import { formatBytes } from '../core/bytes.ts';
import { ConfigError, InfeasibleBudgetError, definite } from '../core/errors.ts';
import type { Graph } from '../ir/graph.ts';
import { Planner } from '../plan/planner.ts';
import type { Backend } from '../runtime/backend.ts';
import type { TransferPlace } from '../runtime/transfer.ts';
import { ActionSearch, type AllowedActions, type FoundPlan } from './action-search.ts';
import { type CostModel, rooflineCost } from './cost-model.ts';
import { type FrontierPoint, type FrontierRequest, frontierOf } from './frontier.ts';
import { measuredCost } from './measured-cost.ts';
import { describePeak, peakOf } from './peak.ts';
import {
  type LoweredGraph,
  type PassOptions,
  PassRunner,
  regionPasses,
  writtenOrderPasses,
} from './pipeline.ts';
import { checkActions, placeFor, ratesFor } from './plan-actions.ts';
import {
  type MakePlanner,
  type RematChoice,
  RematSearch,
  type SearchOptions,
} from './remat-search.ts';
import { underBudget, withinRegions, withoutRegions } from './remat-rules.ts';
import { hasRegions } from './rematerialize.ts';
import type { TransferRates } from './transfer-rates.ts';

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
  /** With a budget: what may be done with values beside keeping them and computing them again. Default nothing. */
  readonly actions?: PlanActions;
}

export interface CompiledPlan extends LoweredGraph {
  /** What the planner chose and against what; undefined when nothing was left to choose. */
  readonly choice: PlannerChoice | undefined;
  /** Where transfers go, and how fast they were taken to be. */
  readonly place: TransferPlace;
  readonly rates: TransferRates;
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
 * is no amount of memory and for actions that are none, InfeasibleBudgetError for a budget that no plan keeps.
 */
export function planStep(traced: Graph, backend: Backend, options: StepOptions = {}): CompiledPlan {
  const job = jobOf(traced, backend, options);
  return {
    ...plannedStep(job),
    place: placeFor(backend, options.actions),
    rates: job.runner.rates,
  };
}

type Planned = Omit<CompiledPlan, 'place' | 'rates'>;

function plannedStep(job: Job): Planned {
  const { traced, runner, options } = job;
  if (options.budget !== undefined) return planWithin(job, options.budget);
  const regions = hasRegions(traced) && !runner.isDisabled('planRegions');
  const written = runner.lower(runner.run(regionPasses, traced, regions));
  // What a region compresses is for its own reads; the planner could not keep others exact.
  if (!regions || compresses(traced)) return asWritten(job, written, regions);
  return planRegions(job, written);
}

/** The time-memory frontier of a traced step, its regions aside: at most so many points, by rising memory. */
export function planStepFrontier(
  traced: Graph,
  backend: Backend,
  options: StepOptions,
  request: FrontierRequest,
): FrontierPoint[] {
  const { runner, tools, allowed } = jobOf(traced, backend, options);
  const search = new ActionSearch(traced, runner, { ...tools, rules: withoutRegions }, allowed);
  return frontierOf(search, request);
}

/** Everything that planning one step needs. */
interface Job {
  readonly traced: Graph;
  readonly runner: PassRunner;
  readonly tools: Tools;
  readonly allowed: AllowedActions;
  readonly options: StepOptions;
}

function jobOf(traced: Graph, backend: Backend, options: StepOptions): Job {
  const allowed = checkActions(options.actions);
  const rates = ratesFor(backend, options.actions, options.cost === 'measured');
  const tools = { costOf: costModel(options.cost, backend), planner: plannerOf(options) };
  return { traced, runner: new PassRunner(options, rates), tools, allowed, options };
}

/** Any value may be kept or computed again, but for what the user ordered. */
function planWithin(job: Job, budget: ByteBudget): Planned {
  const { traced, runner, tools, allowed } = job;
  const search = new ActionSearch(traced, runner, { ...tools, rules: underBudget }, allowed);
  const { base } = search;
  const budgetBytes = budgetBytesOf(budget, () => base.peakBytes);
  const best = search.within(budgetBytes);
  if (best) return chosen(job, best, search.plain, budgetBytes);
  throw infeasible(budgetBytes, definite(search.smallest()).choice);
}

/**
 * Inside regions a value may be kept. They promise the memory of running them op by op; what the compiler's order
 * and kernels save of it is spent on keeping values (docs/decisions/0016).
 */
function planRegions(job: Job, written: LoweredGraph): Planned {
  const { traced, runner, tools } = job;
  const search = new RematSearch(traced, runner, { ...tools, rules: withinRegions });
  const opByOp = runner.lower(runner.run(writtenOrderPasses, traced, true), { fused: false });
  const budgetBytes = Math.max(written.peakBytes, opByOp.peakBytes);
  const best = search.within(budgetBytes);
  if (best && best.estimatedNs < search.estimate(written)) {
    return chosen(job, { choice: best, search }, search, budgetBytes);
  }
  return asWritten(job, written, true);
}

/** `quiet`: the passes did not show what they made. */
function asWritten({ traced, runner }: Job, written: LoweredGraph, quiet: boolean): Planned {
  if (quiet && runner.watched) runner.run(regionPasses, traced);
  return { ...written, choice: undefined };
}

/** The plan that is taken; its passes run once more when somebody watches. */
function chosen(
  { traced, runner }: Job,
  { choice, search }: FoundPlan,
  plain: RematSearch,
  budgetBytes: number,
): Planned {
  if (runner.watched) {
    runner.run(search.basePasses, traced);
    runner.run(search.passesOf(choice.planned), search.base.graph);
  }
  // What the budget leaves is time for transfers.
  const moves = choice.lowered.fused.some((step) => step.kind === 'transfer');
  const lowered = moves
    ? runner.lower(choice.lowered.graph, { roomBytes: budgetBytes })
    : choice.lowered;
  const facts = { basePeakBytes: plain.base.peakBytes, baseNs: plain.estimate(plain.base) };
  return { ...lowered, choice: { ...choice, lowered, ...facts, budgetBytes } };
}

/** Whether a policy compresses values. */
function compresses(traced: Graph): boolean {
  return traced.nodes.some((node) => typeof node.meta.policy === 'object');
}

/** A compile should take no longer than a second or two: a tenth of the planner's own patience. */
const patience = { searchWork: 2e5, shakeWork: 0 };

type Tools = Pick<SearchOptions, 'costOf' | 'planner'>;

function plannerOf({ planner }: StepOptions): MakePlanner {
  return planner ?? ((graph) => new Planner(graph, patience));
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
