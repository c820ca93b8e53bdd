/** The training step of a config without weights, data or memory: on the null backend. */

import { applyActivationCheckpointing } from '../checkpoint/apply.ts';
import type { StepPlan } from '../compile/compile.ts';
import { ConfigError } from '../core/errors.ts';
import type { Batch } from '../data/corpus/batches.ts';
import type { CausalLm } from '../models/decoder/causal-lm.ts';
import { modelFromConfig } from '../models/from-config.ts';
import type { Backend } from '../runtime/backend.ts';
import { createNullBackend } from '../runtime/registry.ts';
import { withBackend } from '../tensor/backend.ts';
import { defaultGenerator } from '../tensor/generator.ts';
import { scope } from '../tensor/with-scope.ts';
import { checkpointingSpec } from './config/checkpointing-keys.ts';
import { dtypeOf, type TrainingConfig } from './config/training-keys.ts';
import type { StepShape } from './recipe.ts';
import { makeOptimizer } from './run/optimizer.ts';
import { makeTrainingStep, type TrainingStep } from './run/training-step.ts';

/** A step that can be planned, and run as far as its memory goes. */
export interface StepOnPaper {
  readonly backend: Backend;
  readonly model: CausalLm;
  readonly step: TrainingStep;
  /** What checkpointing says of itself. */
  readonly checkpointing: string;
}

export interface PlannedStep {
  readonly plan: StepPlan;
  /** Bytes of parameters and of optimizer state, which step memory does not count. */
  readonly parameterBytes: number;
  readonly optimizerBytes: number;
  /** What checkpointing says of itself. */
  readonly checkpointing: string;
}

/** Makes the step of a config on a null backend of its own and hands it to `body`. */
export function withStepOnPaper<T>(
  { model: raw, training }: StepShape,
  body: (step: StepOnPaper) => T,
): T {
  const backend = createNullBackend();
  const draws = defaultGenerator.getState();
  return withBackend(backend, () =>
    scope(() => {
      using stack = new DisposableStack();
      stack.defer(() => defaultGenerator.setState(draws));
      const model = stack.use(
        modelFromConfig(raw, { dtype: dtypeOf(training), randomWeights: false }),
      );
      const setting = { ...checkpointingSpec(training), ...costOnPaper(training) };
      const applied = applyActivationCheckpointing(model, setting, {
        logger: () => {},
        compiled: training.compile,
      });
      const optimizer = stack.use(makeOptimizer(model, training.optimizer));
      const step = stack.use(
        makeTrainingStep(model, optimizer, {
          compile: training.compile,
          ...(applied.compileOptions && { compileOptions: applied.compileOptions }),
          accumulation: training.gradient_accumulation_steps,
          clipGradNorm: training.clip_grad_norm,
        }),
      );
      return body({ backend, model, step, checkpointing: applied.line });
    }),
  );
}

/**
 * Plans the step of a config (with gradient accumulation: a micro-step) and hands it to `body`. Throws
 * ConfigError for a step that is not compiled, InfeasibleBudgetError.
 */
export function withPlannedStep<T>(shape: StepShape, body: (step: PlannedStep) => T): T {
  const { training } = shape;
  if (!training.compile) {
    throw new ConfigError(
      'explain: only a compiled step is planned ahead (got compile: false). Add compile=true.',
      { key: 'compile', value: false },
    );
  }
  return withStepOnPaper(shape, ({ backend, model, step, checkpointing }) => {
    const plan = step.plan(emptyBatch(training, model));
    if (!plan) throw new ConfigError('explain: the step has no plan.');
    const { byCategory } = backend.allocator.stats();
    return body({
      plan,
      parameterBytes: byCategory.parameter,
      optimizerBytes: byCategory.optimizer,
      checkpointing,
    });
  });
}

/** The null backend runs nothing that could be timed. */
function costOnPaper({ activation_checkpointing: setting }: TrainingConfig): { cost?: 'flops' } {
  return setting?.cost === 'measured' ? { cost: 'flops' } : {};
}

/** A batch of the config's shape. */
export function emptyBatch(config: TrainingConfig, model: CausalLm): Batch {
  const { batch_size: rows, sequence_length: sequenceLength } = config;
  const tokens = Int32Array.from(
    { length: rows * sequenceLength },
    (_, i) => (i * 7919) % model.config.vocabSize,
  );
  return {
    rows,
    sequenceLength,
    inputs: tokens,
    targets: tokens,
    segmentIds: new Int32Array(tokens.length),
    positionIds: tokens.map((_, i) => i % sequenceLength),
    targetCount: tokens.length,
  };
}
