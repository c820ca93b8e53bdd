/**
 * Finding where a NaN or infinity first appeared: the step is run again, eagerly, under a mode that looks
 * at the result of every op.
 */

import { backward } from '../../autograd/backward.ts';
import { isFloat } from '../../core/dtype.ts';
import { RetuneError } from '../../core/errors.ts';
import { hostValues } from '../../core/host-tensor.ts';
import type { Batch } from '../../data/corpus/batches.ts';
import type { Aval } from '../../ir/aval.ts';
import type { AnyOp, Params } from '../../ir/op.ts';
import type { CausalLm } from '../../models/decoder/causal-lm.ts';
import { clipGradNorm } from '../../optim/clip.ts';
import { currentModule, currentPhase } from '../../tensor/context.ts';
import type { TensorData } from '../../tensor/data.ts';
import { withMode } from '../../tensor/mode.ts';
import { PassThroughMode } from '../../tensor/pass-through-mode.ts';
import { Tensor } from '../../tensor/tensor.ts';
import { scope } from '../../tensor/with-scope.ts';
import { batchTensors, type StepResult } from './training-step.ts';

/** A result that is not finite, and what made it. */
export interface NonFiniteOp {
  readonly op: string;
  /** Dotted path of the module; '' outside modules. */
  readonly module: string;
  readonly phase: string;
  readonly value: 'NaN' | 'Infinity' | '-Infinity';
  /** Shape and dtype of the result. */
  readonly output: string;
  /** An input that already held such a value, such as a damaged parameter. */
  readonly badInput: string | undefined;
}

/** Looks at every float result; remembers the first bad one. */
export class NanCheckMode extends PassThroughMode {
  #found: NonFiniteOp | undefined;

  /**
   * The first op that gave NaN or +Infinity. -Infinity counts only when there is neither: masked
   * attention scores hold it rightfully.
   */
  get found(): NonFiniteOp | undefined {
    return this.#found;
  }

  override run(
    op: AnyOp,
    inputs: readonly Tensor[],
    params: Params,
    outputs: readonly Aval[],
  ): readonly TensorData[] {
    const results = this.inner.run(op, inputs, params, outputs);
    if (op.lower.kind === 'view' || (this.#found && this.#found.value !== '-Infinity')) {
      return results;
    }
    results.forEach((data, i) => {
      const aval = outputs[i];
      if (aval) this.#look(op, inputs, data, aval);
    });
    return results;
  }

  #look(op: AnyOp, inputs: readonly Tensor[], data: TensorData, aval: Aval): void {
    if (!isFloat(aval.dtype)) return;
    const probe = new Tensor(data.retain(), aval.shape, aval.dtype, false);
    const value = this.#worst(probe);
    probe.dispose();
    if (value === undefined || (this.#found && value === '-Infinity')) return;
    const bad = inputs.find((input) => isFloat(input.dtype) && this.#worst(input) !== undefined);
    this.#found = {
      op: op.name,
      module: currentModule(),
      phase: currentPhase(),
      value,
      output: `${aval.dtype}[${aval.shape.join(', ')}]`,
      badInput: bad?.describe(),
    };
  }

  /** NaN before Infinity before -Infinity; undefined when all values are finite. */
  #worst(tensor: Tensor): NonFiniteOp['value'] | undefined {
    const data = this.inner.toHost(tensor);
    const values =
      tensor.dtype === 'float32' && data.byteOffset % 4 === 0
        ? new Float32Array(data.buffer, data.byteOffset, data.byteLength / 4)
        : hostValues({ dtype: tensor.dtype, shape: tensor.shape, data });
    let worst: NonFiniteOp['value'] | undefined;
    for (const value of values) {
      if (Number.isFinite(value)) continue;
      if (Number.isNaN(value)) return 'NaN';
      if (value > 0) worst = 'Infinity';
      else worst ??= '-Infinity';
    }
    return worst;
  }
}

/** Runs forward, backward and the gradient norm of these batches and looks for the first bad op. */
export function findNonFinite(model: CausalLm, batches: readonly Batch[]): NonFiniteOp | undefined {
  let mode: NanCheckMode | undefined;
  withMode(
    (inner) => {
      mode = new NanCheckMode(inner);
      return mode;
    },
    () => {
      for (const batch of batches) {
        scope(() => {
          const { tokens, targets } = batchTensors(batch);
          backward(model.call(tokens, { targets }));
        });
      }
      scope(() => {
        clipGradNorm(model.parameters(), Number.POSITIVE_INFINITY);
      });
    },
  );
  model.zeroGrad();
  return mode?.found;
}

/** The error a run ends with when a step was not finite. `lastGood` is a checkpoint folder. */
export function nonFiniteError(
  step: number,
  result: StepResult,
  found: NonFiniteOp | undefined,
  lastGood: string | undefined,
): RetuneError {
  const where =
    found === undefined
      ? 'Running the step again op by op gave finite values throughout, so it lies at the edge of the number range'
      : `The first op with a bad result is ${found.op}${found.module === '' ? '' : ` in ${found.module}`} ` +
        `(${found.phase}, ${found.output}): ${found.value}` +
        (found.badInput === undefined ? '' : `; its input ${found.badInput} was bad already`);
  const kept =
    lastGood === undefined
      ? 'No checkpoint was saved yet'
      : `The last good checkpoint is ${lastGood}`;
  return new RetuneError(
    'non-finite',
    `train: step ${step} is not finite (got loss ${result.loss}, gradient norm ${result.gradNorm}). ${where}. ${kept}. ` +
      'Use a lower optimizer.lr, a longer warm-up, or clip_grad_norm, and look at the data of this step.',
    { step, loss: result.loss, gradNorm: result.gradNorm, ...(found && { found }), lastGood },
  );
}
