/**
 * Cross entropy of a linear layer's logits without ever holding all of them: rows are taken in chunks.
 * When gradients are wanted, each chunk's logits turn into their gradient in place and at once into
 * their part of the gradients of x and weight, in forward; backward scales those by the cotangent.
 */

import { ArgumentError, ShapeError } from '../../core/errors.ts';
import { formatShape } from '../../core/shape.ts';
import { apply, attachBackward } from '../../tensor/apply.ts';
import { adoptInPlace } from '../adopt-in-place.ts';
import { isGradEnabled, noGrad } from '../../tensor/context.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { scope } from '../../tensor/with-scope.ts';
import { div, mul, sub } from '../arithmetic.ts';
import { cast, reshape, sum } from '../broadcast.ts';
import { eq, where } from '../comparison.ts';
import { full } from '../creation.ts';
import { present } from '../define.ts';
import { addInPlace } from '../in-place.ts';
import { concat } from '../index/concat.ts';
import { linear } from '../matmul/linear.ts';
import { addmmInPlace } from '../matmul/matmul-add.ts';
import { checkProduct, matmul, swapLast } from '../matmul/matmul.ts';
import { narrow } from '../slice.ts';
import { softmax } from '../softmax.ts';
import { unsqueeze } from '../views.ts';
import {
  type CrossEntropyParams,
  crossEntropyInPlaceOp,
  crossEntropyRows,
  targetDistribution,
} from './cross-entropy-op.ts';
import {
  type CrossEntropyOptions,
  checkTargets,
  countTargets,
  crossEntropyParams,
  flatTargets,
  reduceLosses,
} from './cross-entropy.ts';

export interface LinearCrossEntropyOptions extends CrossEntropyOptions {
  /** [V], added to the logits. */
  readonly bias?: Tensor | undefined;
  /** Rows per chunk; default: about 4 MiB of logits, but no fewer than 128 rows. */
  readonly chunkRows?: number;
}

/** Bytes of logits that a chunk aims at. */
const chunkBytes = 4 * 2 ** 20;

/** Each chunk passes over the whole gradient of the weight; fewer rows would not pay for that. */
const fewestRows = 128;

/** What one call works on: x [N, H], weight [V, H], bias [V], targets [N]. */
interface Problem {
  readonly x: Tensor;
  readonly weight: Tensor;
  readonly bias: Tensor | undefined;
  readonly targets: Tensor;
  readonly params: CrossEntropyParams;
  readonly chunks: readonly { readonly start: number; readonly rows: number }[];
}

/** Gradients of x, weight and bias; undefined where none is wanted. */
type Gradients = readonly [Tensor | undefined, Tensor | undefined, Tensor | undefined];

/**
 * crossEntropy(linear(x, weight, bias), targets), in chunks: x [..., H], weight [V, H], integer targets [...].
 * Memory for logits is one chunk. With gradients wanted, those of x and weight are held from forward to
 * backward (reduction 'none' computes logits again instead). May be differentiated twice. Throws
 * ShapeError, DTypeError, ArgumentError.
 */
export function linearCrossEntropy(
  x: Tensor,
  weight: Tensor,
  targets: Tensor,
  options: LinearCrossEntropyOptions = {},
): Tensor {
  const who = 'linearCrossEntropy';
  checkProduct(who, x, weight);
  const { bias } = options;
  if (weight.rank !== 2 || x.shape.at(-1) !== weight.shape[1]) {
    throw new ShapeError(
      `${who}: the weight must be [V, H] with H equal to axis -1 of x (got x ${formatShape(x.shape)}, weight ` +
        `${formatShape(weight.shape)}). Check the layer's sizes.`,
      { x: x.shape, weight: weight.shape },
    );
  }
  checkTargets(who, x, 'x', targets);
  if (x.dtype !== 'float32') {
    const wide = (t: Tensor): Tensor => cast(t, 'float32');
    const widened = { ...options, bias: bias && wide(bias) };
    return cast(linearCrossEntropy(wide(x), wide(weight), targets, widened), x.dtype);
  }
  const params = crossEntropyParams(who, options);
  const rows = targets.size;
  const problem: Problem = {
    x: reshape(x, [rows, weight.shape[1] ?? 0]),
    weight,
    bias,
    targets: flatTargets(who, targets),
    params,
    chunks: chunksOf(rows, weight.shape[0] ?? 1, options.chunkRows),
  };
  const { reduction = 'mean' } = options;
  const wanted = [problem.x, weight, bias].map((t) => t?.requiresGrad ?? false);
  const differentiate = isGradEnabled() && wanted.includes(true);
  if (!differentiate || reduction === 'none') {
    const losses = scope(() => noGrad(() => lossesOf(problem)));
    const loss = reduceLosses(
      losses,
      problem.targets,
      targets.shape,
      params.ignoreIndex,
      reduction,
    );
    return differentiate ? attachRecompute(problem, loss, wanted) : loss;
  }
  return scope(() => {
    const { loss, scale, gradients } = noGrad(() => fused(problem, reduction, wanted));
    return attachFused(problem, loss, scale, gradients);
  });
}

/** Losses [N], a chunk at a time. */
function lossesOf(problem: Problem): Tensor {
  const parts = problem.chunks.map(({ start, rows }) =>
    scope(() => {
      const logits = chunkLogits(problem, start, rows);
      return crossEntropyRows(logits, narrow(problem.targets, 0, start, rows), problem.params);
    }),
  );
  return joined(parts);
}

/** Loss and gradients of the reduced loss in one pass over the chunks. */
function fused(
  problem: Problem,
  reduction: 'mean' | 'sum',
  wanted: readonly boolean[],
): { readonly loss: Tensor; readonly scale: Tensor; readonly gradients: Gradients } {
  const { targets, params } = problem;
  const scale =
    reduction === 'sum' ? full([], 1) : div(1, countTargets(targets, params.ignoreIndex));
  const { losses, gradients } = chunkGradients(problem, wanted, () => scale);
  const loss = reduceLosses(losses, targets, [], params.ignoreIndex, reduction);
  return { loss, scale, gradients };
}

/** The pass over the chunks; `scaleOf` gives the cotangent of a chunk's losses: one number, or one per row. */
function chunkGradients(
  problem: Problem,
  wanted: readonly boolean[],
  scaleOf: (start: number, rows: number) => Tensor,
): { readonly losses: Tensor; readonly gradients: Gradients } {
  const { x, weight, targets, params } = problem;
  const [wantX, wantWeight, wantBias] = wanted;
  const losses: Tensor[] = [];
  const dxs: Tensor[] = [];
  let dweight: Tensor | undefined;
  let dbias: Tensor | undefined;
  for (const { start, rows } of problem.chunks) {
    const made = scope(() => {
      const logits = chunkLogits(problem, start, rows);
      const inputs = [logits, narrow(targets, 0, start, rows), scaleOf(start, rows)];
      const [dlogits, loss] = apply(crossEntropyInPlaceOp, inputs, params);
      adoptInPlace(logits, present(dlogits));
      const dx = wantX ? matmul(logits, weight) : undefined;
      const own = { loss: present(loss), dx, dweight, dbias };
      if (wantWeight) {
        const flipped = swapLast(logits);
        const part = narrow(x, 0, start, rows);
        own.dweight = dweight ? addmmInPlace(dweight, flipped, part) : matmul(flipped, part);
      }
      if (wantBias) {
        const part = sum(logits, 0);
        own.dbias = dbias ? addInPlace(dbias, part) : part;
      }
      return own;
    });
    losses.push(made.loss);
    if (made.dx) dxs.push(made.dx);
    dweight = made.dweight;
    dbias = made.dbias;
  }
  const dx = wantX ? joined(dxs) : undefined;
  return { losses: joined(losses), gradients: [dx, dweight, dbias] };
}

/** Gives `loss` a backward that scales the gradients already made. */
function attachFused(problem: Problem, loss: Tensor, scale: Tensor, gradients: Gradients): Tensor {
  const inputs = inputsOf(problem);
  const made = gradients.filter((gradient) => gradient !== undefined);
  const backward = (
    cotangents: readonly (Tensor | undefined)[],
    saved: readonly Tensor[],
  ): (Tensor | undefined)[] => {
    const g = present(cotangents[0]);
    if (isGradEnabled()) {
      return plainGradients(restored(problem, saved.slice(made.length + 1)), () =>
        mul(present(saved[made.length]), g),
      );
    }
    let next = 0;
    return inputs.map((_, i) => {
      const kept = gradients[i] ? saved[next++] : undefined;
      return kept && mul(kept, g);
    });
  };
  const saved = [...made, scale, ...inputs, problem.targets];
  attachBackward({ name: 'linearCrossEntropy', backward }, inputs, [loss], saved);
  return loss;
}

/** Gives losses of shape [...] a backward that computes logits again, chunk by chunk. */
function attachRecompute(problem: Problem, loss: Tensor, wanted: readonly boolean[]): Tensor {
  const inputs = inputsOf(problem);
  const backward = (
    cotangents: readonly (Tensor | undefined)[],
    saved: readonly Tensor[],
  ): readonly (Tensor | undefined)[] => {
    const again = restored(problem, saved);
    const g = reshape(present(cotangents[0]), [again.targets.size]);
    if (isGradEnabled()) return plainGradients(again, () => unsqueeze(g, 1));
    const { losses, gradients } = chunkGradients(again, wanted, (start, rows) =>
      narrow(g, 0, start, rows),
    );
    losses.dispose();
    return gradients.slice(0, inputs.length);
  };
  const saved = [...inputs, problem.targets];
  attachBackward({ name: 'linearCrossEntropy', backward }, inputs, [loss], saved);
  return loss;
}

/** The gradients in plain ops, which can be differentiated again. `scale` broadcasts to [N, V]. */
function plainGradients(problem: Problem, scale: () => Tensor): Tensor[] {
  const { x, weight, bias, targets, params } = problem;
  const p = softmax(linear(x, weight, bias), -1);
  const wanted = targetDistribution(targets, weight.shape[0] ?? 1, params.labelSmoothing);
  const ignored = unsqueeze(eq(targets, params.ignoreIndex), 1);
  const dlogits = where(ignored, 0, mul(sub(p, wanted), scale()));
  const gradients = [matmul(dlogits, weight), matmul(swapLast(dlogits), x)];
  return bias ? [...gradients, sum(dlogits, 0)] : gradients;
}

function inputsOf({ x, weight, bias }: Problem): Tensor[] {
  return bias ? [x, weight, bias] : [x, weight];
}

/** The problem with its tensors as backward gets them: those of inputsOf, then the targets. */
function restored(problem: Problem, saved: readonly Tensor[]): Problem {
  const [x, weight] = [present(saved[0]), present(saved[1])];
  const bias = problem.bias && present(saved[2]);
  return { ...problem, x, weight, bias, targets: present(saved[bias ? 3 : 2]) };
}

function chunkLogits({ x, weight, bias }: Problem, start: number, rows: number): Tensor {
  return linear(narrow(x, 0, start, rows), weight, bias);
}

function joined(parts: readonly Tensor[]): Tensor {
  return parts.length === 1 ? present(parts[0]) : concat(parts, 0);
}

/** Chunks of nearly equal size that cover all rows; one empty chunk when there are none. */
function chunksOf(
  total: number,
  classes: number,
  asked: number | undefined,
): { start: number; rows: number }[] {
  if (asked !== undefined && (!Number.isInteger(asked) || asked < 1)) {
    throw new ArgumentError(
      `linearCrossEntropy: chunkRows must be an integer from 1 up (got ${asked}). Leave it out for about 4 MiB.`,
      { chunkRows: asked },
    );
  }
  const most = asked ?? Math.max(fewestRows, Math.floor(chunkBytes / (4 * Math.max(1, classes))));
  const count = Math.max(1, Math.ceil(total / most));
  const rows = Math.ceil(total / count);
  return Array.from({ length: count }, (_, i) => {
    const start = Math.min(total, i * rows);
    return { start, rows: Math.min(rows, total - start) };
  });
}
