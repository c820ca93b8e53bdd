/**
 * One optimizer step: forward, loss, backward, clipping and update, eager or as one compiled plan.
 *
 * With gradient accumulation a compiled step is two plans: a micro-step that adds into gradients that
 * stay in memory, and an update. One plan over all micro-batches would hold its gradients for just as
 * long, but tracing and planning it would take as many times longer as there are micro-batches.
 *
 * A step whose loss or gradients are not finite changes neither parameters nor optimizer state.
 */

import { backward } from '../../autograd/backward.ts';
import {
  type CompileOptions,
  type CompiledStep,
  type StepPlan,
  compile,
} from '../../compile/compile.ts';
import { budgetBytes, shareOf } from '../../core/byte-budget.ts';
import { formatBytes } from '../../core/bytes.ts';
import { InfeasibleBudgetError } from '../../core/errors.ts';
import { hostTensor } from '../../core/host-tensor.ts';
import type { Batch } from '../../data/corpus/batches.ts';
import type { CausalLm } from '../../models/decoder/causal-lm.ts';
import { avalBytes } from '../../ir/aval.ts';
import { alignBytes } from '../../runtime/allocator.ts';
import { mul } from '../../ops/arithmetic.ts';
import { zeros } from '../../ops/creation.ts';
import { clipFactor } from '../../optim/clip.ts';
import { currentBackend } from '../../tensor/backend.ts';
import { BufferData } from '../../tensor/data.ts';
import { fromHost, item } from '../../tensor/factory.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { scope } from '../../tensor/with-scope.ts';

/** What a step needs of an optimizer. */
export interface Updater {
  step(options?: { readonly factor?: Tensor }): void;
  zeroGrad(options?: { readonly setToNone?: boolean }): void;
}

export interface TrainingStepOptions {
  readonly compile: boolean;
  /** How the step is compiled; a budget is of StepResult.stepMemory. */
  readonly compileOptions?: Pick<CompileOptions, 'budget' | 'cost' | 'actions'>;
  /** Micro-batches in a step. */
  readonly accumulation: number;
  /** Largest norm of all gradients together; null for no limit. */
  readonly clipGradNorm: number | null;
  /** Called after each backward of a step that is not compiled, such as to check that nothing is left of it. */
  readonly afterBackward?: () => void;
}

export interface StepResult {
  /** Mean cross entropy over the targets of all micro-batches, nats. */
  readonly loss: number;
  /** Before clipping. */
  readonly gradNorm: number;
  /** Bytes: the most that was held during the step besides parameters, optimizer state and the batch. */
  readonly stepMemory: number;
  /** Whether loss and gradients were finite; if not, nothing was updated. */
  readonly finite: boolean;
}

export interface TrainingStep extends Disposable {
  /** Runs one step on as many batches as there are micro-batches. */
  run(batches: readonly Batch[]): StepResult;
  /** The plan for batches like this one, made without running; undefined for a step that is not compiled. */
  plan(batch: Batch): StepPlan | undefined;
  /** The plans that an optimizer step of a compiled step runs, once there are any, and how often each. */
  programs(): readonly { readonly plan: StepPlan; readonly runs: number }[];
  /** Bytes the compiled plan of the step (or of a micro-step) takes; undefined before it exists. */
  plannedBytes(): number | undefined;
}

interface Outcome {
  readonly loss: Tensor;
  readonly norm: Tensor;
}

/** A step that trains `model` with `optimizer`. The parameters' gradients belong to it. */
export function makeTrainingStep(
  model: CausalLm,
  optimizer: Updater,
  options: TrainingStepOptions,
): TrainingStep {
  return options.accumulation === 1
    ? wholeStep(model, optimizer, options)
    : accumulatedStep(model, optimizer, options);
}

/** A batch as tensors int32 [B, S]; they belong to the current scope. */
export function batchTensors(batch: Batch): { readonly tokens: Tensor; readonly targets: Tensor } {
  const shape = [batch.rows, batch.sequenceLength];
  return {
    tokens: fromHost(hostTensor(batch.inputs, shape, 'int32')),
    targets: fromHost(hostTensor(batch.targets, shape, 'int32')),
  };
}

function wholeStep(
  model: CausalLm,
  optimizer: Updater,
  options: TrainingStepOptions,
): TrainingStep {
  const step = (tokens: Tensor, targets: Tensor): Outcome => {
    const loss = model.call(tokens, { targets });
    backward(loss);
    options.afterBackward?.();
    const { norm, factor } = clipFactor(model.parameters(), options.clipGradNorm ?? Infinity);
    optimizer.step({ factor });
    optimizer.zeroGrad();
    return { loss: loss.detach(), norm };
  };
  const compiled = options.compile ? compile(step, options.compileOptions) : undefined;
  return {
    run: ([batch]) =>
      scope(() => {
        if (!batch) return nothing;
        const { tokens, targets } = batchTensors(batch);
        compiled?.prepare(tokens, targets);
        const measure = measureMemory();
        const { loss, norm } = scope(() => (compiled ?? step)(tokens, targets));
        const stepMemory = measure();
        return outcome(item(loss), item(norm), stepMemory);
      }),
    plan: (batch) =>
      scope(() => {
        const { tokens, targets } = batchTensors(batch);
        return compiled?.prepare(tokens, targets);
      }),
    programs: () => programsOf([compiled, 1]),
    plannedBytes: () => plannedBytes(compiled),
    [Symbol.dispose]: () => compiled?.dispose(),
  };
}

function accumulatedStep(
  model: CausalLm,
  optimizer: Updater,
  options: TrainingStepOptions,
): TrainingStep {
  const microStep = (tokens: Tensor, targets: Tensor, weight: Tensor): Tensor => {
    const loss = mul(model.call(tokens, { targets }), weight);
    backward(loss);
    options.afterBackward?.();
    return loss.detach();
  };
  const update = (): Tensor => {
    const { norm, factor } = clipFactor(model.parameters(), options.clipGradNorm ?? Infinity);
    optimizer.step({ factor });
    optimizer.zeroGrad({ setToNone: false });
    return norm;
  };
  const compiledMicro = options.compile
    ? compile(microStep, besideGradients(model, options.compileOptions))
    : undefined;
  const compiledUpdate = options.compile ? compile(update) : undefined;
  return {
    run: (batches) =>
      scope(() => {
        keepGradients(model);
        const total = batches.reduce((sum, batch) => sum + batch.targetCount, 0);
        let loss = 0;
        let stepMemory = 0;
        for (const batch of batches) {
          scope(() => {
            const { tokens, targets } = batchTensors(batch);
            const weight = fromHost(hostTensor([batch.targetCount / total], [], 'float32'));
            compiledMicro?.prepare(tokens, targets, weight);
            const measure = measureMemory();
            const share = scope(() => (compiledMicro ?? microStep)(tokens, targets, weight));
            stepMemory = Math.max(stepMemory, measure());
            loss += item(share);
          });
        }
        compiledUpdate?.prepare();
        const measure = measureMemory();
        const norm = scope(() => (compiledUpdate ?? update)());
        return outcome(loss, item(norm), Math.max(stepMemory, measure()));
      }),
    plan: (batch) =>
      scope(() => {
        keepGradients(model);
        const { tokens, targets } = batchTensors(batch);
        return compiledMicro?.prepare(tokens, targets, fromHost(hostTensor([1], [], 'float32')));
      }),
    programs: () => programsOf([compiledMicro, options.accumulation], [compiledUpdate, 1]),
    plannedBytes: () => plannedBytes(compiledMicro),
    [Symbol.dispose]: () => {
      compiledMicro?.dispose();
      compiledUpdate?.dispose();
    },
  };
}

/** A budget in bytes pays for the gradients that stay in memory between micro-steps. */
function besideGradients(
  model: CausalLm,
  options: TrainingStepOptions['compileOptions'] = {},
): NonNullable<TrainingStepOptions['compileOptions']> {
  const { budget } = options;
  if (budget === undefined || shareOf(budget) !== undefined) return options;
  let gradients = 0;
  for (const parameter of model.parameters()) {
    if (parameter.requiresGrad) gradients += alignBytes(avalBytes(parameter.aval));
  }
  const left = budgetBytes(budget, () => 0) - gradients;
  if (left > 0) return { ...options, budget: left };
  throw new InfeasibleBudgetError(
    `budget: gradients that are accumulated take more than the budget (got ${budget} for ${formatBytes(gradients)} of gradients). ` +
      'Raise the budget, or set gradient_accumulation_steps to 1.',
    { budgetBytes: left + gradients, smallestBytes: gradients },
  );
}

const nothing: StepResult = {
  loss: Number.NaN,
  gradNorm: Number.NaN,
  stepMemory: 0,
  finite: false,
};

function outcome(loss: number, gradNorm: number, stepMemory: number): StepResult {
  const finite = Number.isFinite(loss) && Number.isFinite(gradNorm);
  return { loss, gradNorm, stepMemory, finite };
}

/** Gives every parameter a gradient in memory, so that a compiled micro-step adds into it. */
function keepGradients(model: CausalLm): void {
  for (const parameter of model.parameters()) {
    if (!parameter.requiresGrad || parameter.grad) continue;
    const gradient = zeros(parameter.shape, { dtype: parameter.dtype }).keep();
    gradient.label = `${parameter.label ?? 'parameter'}.grad`;
    if (gradient.data instanceof BufferData) gradient.data.storage.setCategory('gradient');
    parameter.grad = gradient;
  }
}

/** Starts a measurement; the returned function ends it and gives the bytes of StepResult.stepMemory. */
function measureMemory(): () => number {
  const { allocator } = currentBackend();
  const before = allocator.stats();
  const held = before.live - before.byCategory.parameter - before.byCategory.optimizer;
  allocator.resetPeak();
  return () => {
    const { peak, peakByCategory } = allocator.stats();
    const during = peak - peakByCategory.parameter - peakByCategory.optimizer;
    return during - held + before.byCategory.gradient;
  };
}

function programsOf(
  ...list: readonly (readonly [{ readonly plans: readonly StepPlan[] } | undefined, runs: number])[]
): { readonly plan: StepPlan; readonly runs: number }[] {
  return list.flatMap(([step, runs]) => {
    const plan = step?.plans.at(-1);
    return plan ? [{ plan, runs }] : [];
  });
}

function plannedBytes<A extends readonly unknown[], R>(
  step: CompiledStep<A, R> | undefined,
): number | undefined {
  return step?.plans.at(-1)?.peakBytes;
}
