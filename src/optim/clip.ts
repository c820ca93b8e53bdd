/** Gradient clipping, in place and without reading a value on the host. */

import { ArgumentError } from '../core/errors.ts';
import { clamp } from '../ops/activations.ts';
import { add, maximum, minimum, mul, pow } from '../ops/arithmetic.ts';
import { cast, sum } from '../ops/broadcast.ts';
import { full } from '../ops/creation.ts';
import { copyInPlace } from '../ops/in-place.ts';
import { amax, sumSquares } from '../ops/reductions.ts';
import { abs, reciprocal, sqrt } from '../ops/unary.ts';
import { noGrad, withPhase } from '../tensor/context.ts';
import { currentMode } from '../tensor/mode.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';

export interface ClipOptions {
  /** Order of the norm: a number >= 1, or Infinity. Default 2. */
  readonly normType?: number;
}

/**
 * Scales all gradients by min(1, maxNorm / (norm + 1e-6)), where norm is that of all of them together
 * (torch.nn.utils.clip_grad_norm_). Returns the norm before clipping, float32 []. maxNorm Infinity only
 * measures. Throws ArgumentError for a negative maxNorm.
 */
export function clipGradNorm(
  parameters: Iterable<Tensor>,
  maxNorm: number,
  options: ClipOptions = {},
): Tensor {
  const { normType = 2 } = options;
  checkBound('clipGradNorm', 'maxNorm', maxNorm);
  if (!(normType >= 1)) {
    throw new ArgumentError(
      `clipGradNorm: normType must be at least 1 (got ${normType}). Use 2, 1 or Infinity.`,
      {
        normType,
      },
    );
  }
  return quietly(() => {
    const list = [...parameters];
    const norm = totalNorm(gradientsOf(list), normType);
    if (maxNorm === Number.POSITIVE_INFINITY) return norm;
    const factor = scaleFor(norm, maxNorm);
    changeGradients(list, (gradient) =>
      mul(gradient, gradient.dtype === 'float32' ? factor : cast(factor, gradient.dtype)),
    );
    return norm;
  });
}

/**
 * The norm of all gradients together and what clipGradNorm would multiply them by, for
 * `optimizer.step({ factor })`: clipping inside the update saves a pass over all gradients. Both are
 * float32 []; the factor is NaN when the norm is not finite, and then the optimizer updates nothing.
 * maxNorm Infinity only measures. Throws ArgumentError for a negative maxNorm.
 */
export function clipFactor(
  parameters: Iterable<Tensor>,
  maxNorm: number,
): { readonly norm: Tensor; readonly factor: Tensor } {
  checkBound('clipFactor', 'maxNorm', maxNorm);
  return quietly(() => {
    const norm = totalNorm(gradientsOf(parameters), 2);
    // 0 for a finite norm, else NaN.
    const bad = mul(norm, 0);
    const limit = maxNorm === Number.POSITIVE_INFINITY ? undefined : scaleFor(norm, maxNorm);
    return { norm, factor: add(bad, limit ?? 1) };
  });
}

/** Limits every element of every gradient to [-maxValue, maxValue] (torch.nn.utils.clip_grad_value_). */
export function clipGradValue(parameters: Iterable<Tensor>, maxValue: number): void {
  checkBound('clipGradValue', 'maxValue', maxValue);
  quietly(() => {
    changeGradients(parameters, (gradient) => clamp(gradient, { min: -maxValue, max: maxValue }));
  });
}

/**
 * Overwrites each gradient, so that only one of them exists twice at a time. In a traced step memory is
 * the planner's business, and a gradient may be a view, which cannot be overwritten there: it is replaced.
 */
function changeGradients(parameters: Iterable<Tensor>, change: (gradient: Tensor) => Tensor): void {
  const replace = currentMode().tracing;
  for (const parameter of parameters) {
    const { grad } = parameter;
    if (!grad) continue;
    scope(() => {
      if (replace) parameter.grad = change(grad);
      else copyInPlace(grad, change(grad));
    });
  }
}

function scaleFor(norm: Tensor, maxNorm: number): Tensor {
  return minimum(mul(reciprocal(add(norm, 1e-6)), maxNorm), 1);
}

function totalNorm(gradients: readonly Tensor[], normType: number): Tensor {
  const [first, ...rest] = gradients.map((gradient) => scope(() => part(gradient, normType)));
  if (!first) return full([], 0, { dtype: 'float32' });
  const combine = normType === Number.POSITIVE_INFINITY ? maximum : add;
  const total = rest.reduce((left, right) => combine(left, right), first);
  if (normType === Number.POSITIVE_INFINITY || normType === 1) return total;
  return normType === 2 ? sqrt(total) : pow(total, 1 / normType);
}

/** What one gradient contributes before the root is taken, in float32. */
function part(gradient: Tensor, normType: number): Tensor {
  const values = gradient.dtype === 'float32' ? gradient : cast(gradient, 'float32');
  if (normType === 2) return sumSquares(values);
  const sizes = abs(values);
  if (normType === Number.POSITIVE_INFINITY) return amax(sizes);
  return sum(normType === 1 ? sizes : pow(sizes, normType));
}

function gradientsOf(parameters: Iterable<Tensor>): Tensor[] {
  return [...parameters].flatMap(({ grad }) => grad ?? []);
}

function quietly<T>(body: () => T): T {
  return withPhase('optimizer', () => noGrad(() => scope(body)));
}

function checkBound(who: string, name: string, value: number): void {
  if (value >= 0) return;
  throw new ArgumentError(
    `${who}: ${name} must be at least 0 (got ${value}). Use a positive bound.`,
    {
      [name]: value,
    },
  );
}
