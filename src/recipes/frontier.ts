/** Measuring some points of a step's time-memory frontier on the backend at hand. */

import { applyActivationCheckpointing } from '../checkpoint/apply.ts';
import type { FrontierPoint } from '../compile/frontier.ts';
import { InfeasibleBudgetError } from '../core/errors.ts';
import type { Batch } from '../data/corpus/batches.ts';
import { modelFromConfig } from '../models/from-config.ts';
import { Generator } from '../tensor/generator.ts';
import { checkpointingSpec } from './config/checkpointing-keys.ts';
import { dtypeOf } from './config/training-keys.ts';
import type { StepShape } from './recipe.ts';
import { makeOptimizer } from './run/optimizer.ts';
import { type TrainingStep, makeTrainingStep } from './run/training-step.ts';
import { emptyBatch } from './step-plan.ts';

export interface MeasuredPoint {
  /** Bytes, the most that a step held. */
  readonly peakBytes: number;
  /** Median milliseconds of a step. */
  readonly ms: number;
  /** Time added over the step with the most memory, as a share of it: the median of the rounds' own ratios. */
  readonly extraTime: number;
}

export interface MeasureOptions {
  /** Points to measure, spread over the frontier. */
  readonly points: number;
  /** Timed rounds; in each one every point runs one step. */
  readonly rounds: number;
  readonly onProgress?: (done: number, of: number) => void;
}

/**
 * Runs the step under some of the frontier's peaks as budgets, in turns. The model has random weights. Like the estimated
 * frontier, it leaves the config's regions out and allows the planner what a budget of the config allows. A peak that no plan of
 * this backend keeps, which other costs than those of the estimate may make, is left out.
 */
export function measureFrontier(
  { model: raw, training }: StepShape,
  frontier: readonly FrontierPoint[],
  { points, rounds, onProgress }: MeasureOptions,
): MeasuredPoint[] {
  const budgets = spread(frontier, points).map((point) => point.peakBytes);
  using stack = new DisposableStack();
  const model = stack.use(
    modelFromConfig(raw, { dtype: dtypeOf(training), generator: new Generator(training.seed) }),
  );
  const setting = checkpointingSpec(training);
  const { compileOptions } =
    setting.mode === 'budget' || setting.budget !== undefined
      ? applyActivationCheckpointing(model, setting, { logger: () => {}, compiled: true })
      : {};
  const optimizer = stack.use(makeOptimizer(model, training.optimizer));
  const batch = emptyBatch(training, model);
  const steps = budgets.flatMap((budget) => {
    const step = stack.use(
      makeTrainingStep(model, optimizer, {
        compile: true,
        compileOptions: { ...compileOptions, budget },
        accumulation: 1,
        clipGradNorm: training.clip_grad_norm,
      }),
    );
    return canBePlanned(step, batch) ? [step] : [];
  });
  const times = steps.map((): number[] => []);
  const peaks = steps.map(() => 0);
  for (let round = 0; round <= rounds; round++) {
    steps.forEach((step, i) => {
      const began = performance.now();
      const { stepMemory } = step.run([batch]);
      // The first round warms up.
      if (round > 0) times[i]?.push(performance.now() - began);
      peaks[i] = Math.max(peaks[i] ?? 0, stepMemory);
      onProgress?.(round * steps.length + i + 1, (rounds + 1) * steps.length);
    });
  }
  const base = times.at(-1) ?? [];
  return times.map((ms, i) => ({
    peakBytes: peaks[i] ?? 0,
    ms: median(ms),
    extraTime: median(ms.map((value, round) => value / (base[round] ?? Number.NaN))) - 1,
  }));
}

function canBePlanned(step: TrainingStep, batch: Batch): boolean {
  try {
    step.plan(batch);
    return true;
  } catch (error) {
    if (error instanceof InfeasibleBudgetError) return false;
    throw error;
  }
}

/** So many of the points, the first and the last among them. */
function spread<T>(list: readonly T[], count: number): T[] {
  if (list.length <= count) return [...list];
  const at = (i: number): number => Math.round((i * (list.length - 1)) / Math.max(1, count - 1));
  return Array.from({ length: count }, (_, i) => list[at(i)]).filter((x) => x !== undefined);
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}
