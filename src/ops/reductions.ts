/**
 * Reductions over axes. `axes` is one axis, several, or left out for all; negative axes count from the
 * end. Integers reduce to int32, where torch gives int64. sum is in broadcast.ts.
 */

import { type DType, isFloat } from '../core/dtype.ts';
import { ShapeError } from '../core/errors.ts';
import { formatShape, normalizeAxes, numElements } from '../core/shape.ts';
import type { Aval } from '../ir/aval.ts';
import { type Expr, type ReduceOp, e } from '../ir/expr.ts';
import type { Op, Sample } from '../ir/op.ts';
import { apply1 } from '../tensor/apply.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { div, mul, sub } from './arithmetic.ts';
import { type Axes, cast, expand, gradientTo, reshape, sum } from './broadcast.ts';
import { eq } from './comparison.ts';
import {
  type ReduceParams,
  floats,
  present,
  reducedShape,
  reductionOp,
  requireFloat,
} from './define.ts';
import { pointwise } from './pointwise.ts';
import { firstStage } from './stages.ts';
import { sqrt, square } from './unary.ts';

export interface ReduceOptions {
  /** Keep reduced axes as axes of size 1. */
  readonly keepDims?: boolean;
}

/** dtype in which integers add up and multiply. */
export const wholeNumber = (x: Aval): DType =>
  isFloat(x.dtype) || x.dtype === 'uint32' ? x.dtype : 'int32';

/** `expr` over the reduced axes; itself when there are none. */
export function reduceOver(op: ReduceOp, x: Expr, params: ReduceParams): Expr {
  return params.axes.length === 0 ? x : e.reduce(op, x);
}

/** A tensor with the reduced axes back as axes of size 1, so that it broadcasts against the input. */
export function withKept(reduced: Tensor, x: Aval, params: ReduceParams): Tensor {
  if (params.keepDims) return reduced;
  return reshape(reduced, reducedShape(x.shape, { ...params, keepDims: true }));
}

/** Samples that suit any reduction of floats. */
export function reduceSamples(range?: readonly [number, number]): Sample<ReduceParams>[] {
  return [
    { label: 'rows', inputs: [floats([3, 19], range)], params: { axes: [1], keepDims: false } },
    { label: 'columns', inputs: [floats([7, 5], range)], params: { axes: [0], keepDims: true } },
    {
      label: 'outerAndInner',
      inputs: [floats([3, 4, 5], range)],
      params: { axes: [0, 2], keepDims: false },
    },
  ];
}

/** Applies a reduction; two stages for one over everything, where `again` folds partial results. */
export function runReduction(
  op: Op<Tensor, ReduceParams>,
  x: Tensor,
  axes: Axes | undefined,
  options: ReduceOptions,
  again: (partial: Tensor) => Tensor = (partial) =>
    apply1(op, [partial], { axes: [0], keepDims: false }),
): Tensor {
  const list = normalizeAxes(op.name, axes, x.rank).filter((axis) => axis < x.rank);
  const keepDims = options.keepDims ?? false;
  const stage = firstStage(x.shape, list);
  if (!stage) return apply1(op, [x], { axes: list, keepDims });
  const partial = apply1(op, [reshape(x, stage.view)], { axes: stage.reduced, keepDims: false });
  const total = again(reshape(partial, [partial.size]));
  return keepDims ? reshape(total, new Array<number>(x.rank).fill(1)) : total;
}

function rowCount(x: Aval, params: ReduceParams): number {
  return params.axes.reduce((count, axis) => count * present(x.shape[axis]), 1);
}

export const meanOp: Op<Tensor, ReduceParams> = reductionOp<ReduceParams, never>({
  name: 'mean',
  dtype: (x) => {
    requireFloat('mean', x);
    return x.dtype;
  },
  expr: (x, { input, params }) =>
    e.div(reduceOver('sum', x, params), e.f32(rowCount(input, params))),
  saves: [],
  vjp: (g, { inputs, params }) => {
    const x = present(inputs[0]);
    return expand(withKept(div(g, rowCount(x, params)), x, params), x.shape);
  },
  samples: reduceSamples(),
});

/** The mean over `axes` (torch.mean). Throws DTypeError for integers. */
export function mean(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  const list = normalizeAxes('mean', axes, x.rank);
  if (!isFloat(x.dtype) || !firstStage(x.shape, list))
    return runReduction(meanOp, x, axes, options);
  const total = sum(x, axes, { ...options, dtype: 'float32' });
  return cast(div(total, x.size), x.dtype);
}

export const sumSquaresOp: Op<Tensor, ReduceParams> = reductionOp<ReduceParams, 'x'>({
  name: 'sumSquares',
  dtype: (x) => {
    requireFloat('sumSquares', x);
    return 'float32';
  },
  expr: (x, { params }) => reduceOver('sum', e.mul(x, x), params),
  saves: ['x'],
  vjp: (g, { inputs, params, saved }) => {
    const x = present(inputs[0]);
    return gradientTo(mul(mul(saved('x'), 2), withKept(g, x, params)), x);
  },
  samples: reduceSamples(),
});

/** The sum of squares over `axes`, in float32: the square of torch.linalg.vector_norm. */
export function sumSquares(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  return runReduction(sumSquaresOp, x, axes, options, (partial) => sum(partial));
}

function extremeOp(name: string, op: 'max' | 'min'): Op<Tensor, ReduceParams> {
  return reductionOp<ReduceParams, 'x' | 'out'>({
    name,
    dtype: (x, params) => {
      if (numElements(x.shape) === 0 && rowCount(x, params) === 0) {
        throw new ShapeError(
          `${name}: an empty row has no extreme (got shape ${formatShape(x.shape)} over axes [${params.axes.join(', ')}]). ` +
            'Reduce over axes that are not empty.',
        );
      }
      return x.dtype;
    },
    expr: (x, { params }) => reduceOver(op, x.type === 'bool' ? e.cast(x, 'i32') : x, params),
    saves: ['x', 'out'],
    vjp: (g, { inputs, params, saved }) => {
      const x = present(inputs[0]);
      const hits = cast(eq(saved('x'), withKept(saved('out'), x, params)), g.dtype);
      const each = div(g, sum(hits, params.axes, { keepDims: params.keepDims }));
      return mul(hits, withKept(each, x, params));
    },
    samples: reduceSamples(),
  });
}

export const amaxOp: Op<Tensor, ReduceParams> = extremeOp('amax', 'max');
/** The largest over `axes`, NaN if any is (torch.amax); ties share the gradient equally. */
export function amax(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  return runReduction(amaxOp, x, axes, options);
}

export const aminOp: Op<Tensor, ReduceParams> = extremeOp('amin', 'min');
/** The smallest over `axes`, NaN if any is (torch.amin); ties share the gradient equally. */
export function amin(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  return runReduction(aminOp, x, axes, options);
}

export const logsumexpOp: Op<Tensor, ReduceParams> = reductionOp<ReduceParams, 'x' | 'out'>({
  name: 'logsumexp',
  dtype: (x) => {
    requireFloat('logsumexp', x);
    return x.dtype;
  },
  expr: (x, { params }) => {
    if (params.axes.length === 0) return x;
    const largest = e.reduce('max', x);
    // Rows of -inf alone, or with +inf, must not become NaN.
    const finite = e.binary('lt', e.unary('abs', largest), e.f32(Infinity));
    const shift = e.select(finite, largest, e.f32(0));
    const total = e.reduce('sum', e.unary('exp', e.sub(x, shift)));
    return e.add(e.unary('log', total), shift);
  },
  saves: ['x', 'out'],
  vjp: (g, { inputs, params, saved }) => {
    const x = present(inputs[0]);
    const out = withKept(saved('out'), x, params);
    return apply1(logsumexpBackwardOp, [withKept(g, x, params), saved('x'), out]);
  },
  samples: reduceSamples([-3, 3]),
});

/** log(sum(exp(x))) over `axes`, without overflow (torch.logsumexp). */
export function logsumexp(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  return runReduction(logsumexpOp, x, axes, options);
}

type NoParams = Readonly<Record<never, never>>;

/** g * exp(x - y): the gradient of y = logsumexp(x). */
export const logsumexpBackwardOp: Op<Tensor, NoParams> = pointwise<
  NoParams,
  readonly ['g', 'x', 'y']
>({
  name: 'logsumexpBackward',
  args: ['g', 'x', 'y'],
  dtypes: 'float',
  expr: ([g, x, y]) => e.mul(present(g), e.unary('exp', e.sub(present(x), present(y)))),
  gradients: 'symbolic',
  samples: [
    { label: 'rows', inputs: [floats([3, 1]), floats([3, 7]), floats([3, 1])], params: {} },
    { label: 'columns', inputs: [floats([1, 5]), floats([4, 5]), floats([1, 5])], params: {} },
  ],
});

function quantifierOp(name: string, op: 'max' | 'min'): Op<Tensor, ReduceParams> {
  return reductionOp<ReduceParams, never>({
    name,
    dtype: () => 'bool',
    expr: (x, { params }) => {
      const truth = e.cast(e.cast(x, 'bool'), 'i32');
      const found = reduceOver(op, truth, params);
      return e.binary('gt', found, e.i32(0));
    },
    saves: [],
    vjp: 'nondifferentiable',
    samples: [
      {
        label: 'rows',
        inputs: [{ shape: [3, 2], dtype: 'bool' }],
        params: { axes: [1], keepDims: false },
      },
      { label: 'floats', inputs: [floats([5, 7])], params: { axes: [0], keepDims: true } },
    ],
  });
}

export const anyOp: Op<Tensor, ReduceParams> = quantifierOp('any', 'max');
/** Whether an element is not zero (torch.any). */
export function any(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  return runReduction(anyOp, x, axes, options);
}

export const allOp: Op<Tensor, ReduceParams> = quantifierOp('all', 'min');
/** Whether no element is zero (torch.all). */
export function all(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  return runReduction(allOp, x, axes, options);
}

export interface VarianceOptions extends ReduceOptions {
  /** Taken from the count of elements: 1 for a sample, 0 for a population. Default 1. */
  readonly correction?: number;
}

/** Variance over `axes` (torch.var). */
export function variance(x: Tensor, axes?: Axes, options: VarianceOptions = {}): Tensor {
  const list = normalizeAxes('variance', axes, x.rank);
  const count = rowCount(x, { axes: list, keepDims: true });
  const deviations = square(sub(x, mean(x, list, { keepDims: true })));
  const total = sum(deviations, list, { keepDims: options.keepDims ?? false });
  return div(total, Math.max(0, count - (options.correction ?? 1)));
}

/** Standard deviation over `axes` (torch.std). */
export function std(x: Tensor, axes?: Axes, options: VarianceOptions = {}): Tensor {
  return sqrt(variance(x, axes, options));
}
