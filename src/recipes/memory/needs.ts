/**
 * What a training run of a config holds and how long its steps take, without running it: a step and an
 * evaluation are run on the null backend, whose accounts are those of the real one.
 */

import { opNs, programNs, rooflineCost } from '../../compile/cost-model.ts';
import type { Batch } from '../../data/corpus/batches.ts';
import type { Aval } from '../../ir/aval.ts';
import type { AnyOp, Params } from '../../ir/op.ts';
import type { Allocator } from '../../runtime/allocator.ts';
import { isRecomputing } from '../../tensor/context.ts';
import type { TensorData } from '../../tensor/data.ts';
import { withMode } from '../../tensor/mode.ts';
import { PassThroughMode } from '../../tensor/pass-through-mode.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import type { StepShape } from '../recipe.ts';
import { makeLossSum } from '../run/evaluate.ts';
import type { TrainingStep } from '../run/training-step.ts';
import { emptyBatch, withStepOnPaper } from '../step-plan.ts';

/** Bytes, at the moment when training holds the most. */
export interface MemoryNeeds {
  readonly totalBytes: number;
  readonly parameterBytes: number;
  readonly optimizerBytes: number;
  /** Gradients that stay between micro-batches; without accumulation they are part of the step. */
  readonly gradientBytes: number;
  /** The rest: what a step, or an evaluation, holds while it runs. */
  readonly stepBytes: number;
}

export interface MeasuredStep extends MemoryNeeds {
  /** What a budget of step memory is compared with, accumulated gradients included, and what lies beside it. */
  readonly budgetedBytes: number;
  readonly besideBytes: number;
  /** Estimated nanoseconds of an optimizer step, and of one that recomputes nothing. */
  readonly ns: number;
  readonly baseNs: number;
}

/** Throws InfeasibleBudgetError when the config's budget cannot be kept. */
export function measureStep(shape: StepShape, evaluationRows: number): MeasuredStep {
  const { training } = shape;
  const count = training.gradient_accumulation_steps;
  return withStepOnPaper(shape, ({ backend: { allocator }, model, step }) => {
    const batch = emptyBatch(training, model);
    const held = emptyBatch({ ...training, batch_size: evaluationRows }, model);
    const batches = Array.from({ length: Math.min(count, 2) }, () => batch);
    using lossSum = makeLossSum(model, training.compile);
    // The first step makes plans and optimizer state.
    step.run(batches);
    lossSum.of(held);
    let budgetedBytes = 0;
    const stepPeak = peakOf(allocator, () => {
      budgetedBytes = step.run(batches).stepMemory;
    });
    const totalBytes = Math.max(
      stepPeak,
      peakOf(allocator, () => lossSum.of(held)),
    );
    const { parameter, optimizer, gradient } = allocator.stats().byCategory;
    return {
      totalBytes,
      parameterBytes: parameter,
      optimizerBytes: optimizer,
      gradientBytes: gradient,
      stepBytes: totalBytes - parameter - optimizer - gradient,
      budgetedBytes,
      besideBytes: stepPeak - budgetedBytes,
      ...(training.compile ? plannedTime(step) : eagerTime(step, batch, count)),
    };
  });
}

/** The most that is live during `body`. */
function peakOf(allocator: Allocator, body: () => void): number {
  let peak = allocator.stats().live;
  const stop = allocator.observe(({ live }) => {
    peak = Math.max(peak, live);
  });
  try {
    body();
  } finally {
    stop();
  }
  return peak;
}

type StepTime = Pick<MeasuredStep, 'ns' | 'baseNs'>;

function plannedTime(step: TrainingStep): StepTime {
  let ns = 0;
  let baseNs = 0;
  for (const { plan, runs } of step.programs()) {
    const once = programNs(plan.plan.fused, rooflineCost);
    ns += runs * once;
    baseNs += runs * (plan.plan.choice?.baseNs ?? once);
  }
  return { ns, baseNs };
}

/** All micro-steps take equally long. */
function eagerTime(step: TrainingStep, batch: Batch, count: number): StepTime {
  const first = timeOps(() => step.run([batch]));
  if (count === 1) return first;
  const both = timeOps(() => step.run([batch, batch]));
  const all = (key: keyof StepTime): number => first[key] + (count - 1) * (both[key] - first[key]);
  return { ns: all('ns'), baseNs: all('baseNs') };
}

function timeOps(body: () => void): StepTime {
  let clock: OpClock | undefined;
  withMode((inner) => {
    clock = new OpClock(inner);
    return clock;
  }, body);
  return { ns: clock?.ns ?? 0, baseNs: clock?.baseNs ?? 0 };
}

/** Adds up what ops cost, and what they would cost without those that are run again. */
class OpClock extends PassThroughMode {
  ns = 0;
  baseNs = 0;

  override run(
    op: AnyOp,
    inputs: readonly Tensor[],
    params: Params,
    outputs: readonly Aval[],
  ): readonly TensorData[] {
    const avals = inputs.map((input) => input.aval);
    const cost = opNs(op, avals, outputs, params);
    this.ns += cost;
    if (!isRecomputing()) this.baseNs += cost;
    return super.run(op, inputs, params, outputs);
  }
}
