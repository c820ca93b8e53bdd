/**
 * Reductions over axes. `axes` is one axis, several, or left out for all; negative axes count from the
 * end. Integers reduce to int32, where torch gives int64. sum is in broadcast.ts.
 */

import { type DType, isFloat } from '../core/dtype.ts';
import { ShapeError } from '../core/errors.ts';
import { formatShape, normalizeAxes, normalizeAxis, numElements } from '../core/shape.ts';
import type { Aval } from '../ir/aval.ts';
import { type Expr, type ReduceOp, e } from '../ir/expr.ts';
import type { Op, Params, Sample } from '../ir/op.ts';
import { apply1 } from '../tensor/apply.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { div, mul, sub } from './arithmetic.ts';
import { type Axes, cast, expand, gradientTo, reshape, sum } from './broadcast.ts';
import { eq } from './comparison.ts';
import {
  type ReduceParams,
  arithmeticCost,
  defineOp,
  floats,
  inputExpr,
  keptAxes,
  ownAxes,
  present,
  reducedShape,
  reductionOp,
  requireFloat,
} from './define.ts';
import { pointwise } from './pointwise.ts';
import { narrow } from './slice.ts';
import { firstStage } from './stages.ts';
import { sqrt, square } from './unary.ts';

export interface ReduceOptions {
  /** Keep reduced axes as axes of size 1. */
  readonly keepDims?: boolean;
}

const wholeNumber = (x: Aval): DType =>
  isFloat(x.dtype) || x.dtype === 'uint32' ? x.dtype : 'int32';

/** `expr` over the reduced axes; itself when there are none. */
function reduceOver(op: ReduceOp, x: Expr, params: ReduceParams): Expr {
  return params.axes.length === 0 ? x : e.reduce(op, x);
}

/** A tensor with the reduced axes back as axes of size 1, so that it broadcasts against the input. */
function withKept(reduced: Tensor, x: Aval, params: ReduceParams): Tensor {
  if (params.keepDims) return reduced;
  return reshape(reduced, reducedShape(x.shape, { ...params, keepDims: true }));
}

function samples(range?: readonly [number, number]): Sample<ReduceParams>[] {
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
function run(
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
  samples: samples(),
});

/** The mean over `axes` (torch.mean). Throws DTypeError for integers. */
export function mean(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  const list = normalizeAxes('mean', axes, x.rank);
  if (!isFloat(x.dtype) || !firstStage(x.shape, list)) return run(meanOp, x, axes, options);
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
  samples: samples(),
});

/** The sum of squares over `axes`, in float32: the square of torch.linalg.vector_norm. */
export function sumSquares(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  return run(sumSquaresOp, x, axes, options, (partial) => sum(partial));
}

function extremeOp(name: string, op: 'max' | 'min'): Op<Tensor, ReduceParams> {
  return reductionOp<ReduceParams, 'x' | 'out'>({
    name,
    dtype: (x) => x.dtype,
    expr: (x, { input, params }) => {
      if (numElements(input.shape) === 0 && rowCount(input, params) === 0) {
        throw new ShapeError(
          `${name}: an empty row has no extreme (got shape ${formatShape(input.shape)} over axes [${params.axes.join(', ')}]). ` +
            'Reduce over axes that are not empty.',
        );
      }
      return reduceOver(op, x.type === 'bool' ? e.cast(x, 'i32') : x, params);
    },
    saves: ['x', 'out'],
    vjp: (g, { inputs, params, saved }) => {
      const x = present(inputs[0]);
      const hits = cast(eq(saved('x'), withKept(saved('out'), x, params)), g.dtype);
      const each = div(g, sum(hits, params.axes, { keepDims: params.keepDims }));
      return mul(hits, withKept(each, x, params));
    },
    samples: samples(),
  });
}

export const amaxOp: Op<Tensor, ReduceParams> = extremeOp('amax', 'max');
/** The largest over `axes`, NaN if any is (torch.amax); ties share the gradient equally. */
export function amax(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  return run(amaxOp, x, axes, options);
}

export const aminOp: Op<Tensor, ReduceParams> = extremeOp('amin', 'min');
/** The smallest over `axes`, NaN if any is (torch.amin); ties share the gradient equally. */
export function amin(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  return run(aminOp, x, axes, options);
}

export const prodOp: Op<Tensor, ReduceParams> = reductionOp<ReduceParams, 'x'>({
  name: 'prod',
  dtype: wholeNumber,
  expr: (x, { params }) => reduceOver('prod', x.type === 'bool' ? e.cast(x, 'i32') : x, params),
  saves: ['x'],
  vjp: (g, { inputs, params, saved }) => {
    const x = present(inputs[0]);
    return apply1(prodBackwardOp, [withKept(g, x, params), saved('x')], { axes: params.axes });
  },
  compose: (x, params) => prodByHalves(x, params),
  samples: samples([0.3, 1.7]),
});

/** The product over `axes` (torch.prod). The gradient is right where elements are zero, too. */
export function prod(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  return run(prodOp, x, axes, options);
}

/** prod in ops with second derivatives: multiplies halves of an axis until one element is left. */
function prodByHalves(x: Tensor, params: ReduceParams): Tensor {
  let rest = x;
  for (const axis of params.axes) {
    let odd: Tensor | undefined;
    if (rest.shape[axis] === 0) return apply1(prodOp, [x], params);
    for (let size = present(rest.shape[axis]); size > 1; size = Math.floor(size / 2)) {
      const half = Math.floor(size / 2);
      if (size % 2 === 1) {
        const last = narrow(rest, axis, size - 1, 1);
        odd = odd ? mul(odd, last) : last;
      }
      rest = mul(narrow(rest, axis, 0, half), narrow(rest, axis, half, half));
    }
    if (odd) rest = mul(rest, odd);
  }
  return params.keepDims ? rest : reshape(rest, reducedShape(x.shape, params));
}

type ProdBackwardParams = { readonly axes: readonly number[] };

/** g * (product of the row's other elements), for g with kept axes. */
export const prodBackwardOp: Op<Tensor, ProdBackwardParams> = defineOp<
  ProdBackwardParams,
  readonly ['g', 'x'],
  never
>({
  name: 'prodBackward',
  args: ['g', 'x'],
  traits: { class: 'reduction', remat: 'cheap' },
  infer: ([, x]) => [present(x)],
  cost: (inputs, outputs) =>
    arithmeticCost(inputs, outputs, 6 * numElements(present(inputs[1]).shape)),
  saves: [],
  vjp: 'nondifferentiable',
  lower: {
    kind: 'kernel',
    template: ([g, input], _, { axes }) => {
      const x = inputExpr(1, present(input));
      const { shape } = present(input);
      const [zero, one] = [e.f32(0), e.f32(1)];
      const isZero = e.binary('eq', x, zero);
      const over = (op: ReduceOp, value: Expr): Expr =>
        axes.length === 0 ? value : e.reduce(op, value);
      const zeros = over('sum', e.select(isZero, one, zero));
      const others = over('prod', e.select(isZero, one, x));
      const atZero = e.select(e.binary('eq', zeros, one), others, zero);
      const elsewhere = e.select(e.binary('eq', zeros, zero), e.div(others, x), zero);
      const factor = e.select(isZero, atZero, elsewhere);
      return {
        space: shape,
        reduced: axes,
        inputs: [
          { operand: 0, axes: ownAxes(shape).map((axis) => (axes.includes(axis) ? -1 : axis)) },
          { operand: 1, axes: ownAxes(shape) },
        ],
        outputs: [{ axes: ownAxes(shape), expr: e.mul(inputExpr(0, present(g)), factor) }],
      };
    },
  },
  samples: [
    { label: 'rows', inputs: [floats([3, 1]), floats([3, 7], [0.3, 1.7])], params: { axes: [1] } },
    { label: 'columns', inputs: [floats([1, 5]), floats([4, 5])], params: { axes: [0] } },
  ],
});

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
  samples: samples([-3, 3]),
});

/** log(sum(exp(x))) over `axes`, without overflow (torch.logsumexp). */
export function logsumexp(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  return run(logsumexpOp, x, axes, options);
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
  return run(anyOp, x, axes, options);
}

export const allOp: Op<Tensor, ReduceParams> = quantifierOp('all', 'min');
/** Whether no element is zero (torch.all). */
export function all(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  return run(allOp, x, axes, options);
}

interface ArgParams extends Params {
  readonly axis: number;
  readonly keepDims: boolean;
}

function argOp(name: string, op: 'max' | 'min'): Op<Tensor, ArgParams> {
  return defineOp<ArgParams, readonly ['x'], never>({
    name,
    args: ['x'],
    traits: { class: 'reduction', remat: 'cheap' },
    infer: ([x], { axis, keepDims }) => {
      const { shape } = present(x);
      if (shape[axis] === 0) {
        throw new ShapeError(
          `${name}: axis ${axis} is empty (got shape ${formatShape(shape)}). Choose one that is not.`,
        );
      }
      return [{ shape: reducedShape(shape, { axes: [axis], keepDims }), dtype: 'int32' }];
    },
    cost: (inputs, outputs) =>
      arithmeticCost(inputs, outputs, 3 * numElements(present(inputs[0]).shape)),
    saves: [],
    vjp: 'nondifferentiable',
    lower: {
      kind: 'kernel',
      template: ([input], _, { axis, keepDims }) => {
        const { shape } = present(input);
        const raw = inputExpr(0, present(input));
        const x = raw.type === 'bool' ? e.cast(raw, 'i32') : raw;
        const extreme = e.reduce(op, x);
        const equal = e.binary('eq', x, extreme);
        // A NaN is the extreme of its row; the first one counts.
        const hit =
          x.type === 'f32'
            ? e.select(e.unary('isNan', extreme), e.unary('isNan', x), equal)
            : equal;
        const index = e.select(hit, e.coord(axis), e.i32(2 ** 31 - 1));
        return {
          space: shape,
          reduced: [axis],
          inputs: [{ operand: 0, axes: ownAxes(shape) }],
          outputs: [
            { axes: keptAxes(shape.length, [axis], keepDims), expr: e.reduce('min', index) },
          ],
        };
      },
    },
    samples: [
      { label: 'rows', inputs: [floats([3, 19])], params: { axis: 1, keepDims: false } },
      { label: 'middle', inputs: [floats([2, 5, 3])], params: { axis: 1, keepDims: true } },
    ],
  });
}

function runArg(
  op: Op<Tensor, ArgParams>,
  x: Tensor,
  axis: number | undefined,
  options: ReduceOptions,
): Tensor {
  const keepDims = options.keepDims ?? false;
  if (axis === undefined || x.rank === 0) {
    const index = apply1(op, [reshape(x, [x.size])], { axis: 0, keepDims: false });
    return keepDims ? reshape(index, new Array<number>(x.rank).fill(1)) : index;
  }
  return apply1(op, [x], { axis: normalizeAxis(op.name, axis, x.rank), keepDims });
}

export const argmaxOp: Op<Tensor, ArgParams> = argOp('argmax', 'max');
/** Index of the first largest element along an axis, int32; of the flattened tensor without one (torch.argmax). */
export function argmax(x: Tensor, axis?: number, options: ReduceOptions = {}): Tensor {
  return runArg(argmaxOp, x, axis, options);
}

export const argminOp: Op<Tensor, ArgParams> = argOp('argmin', 'min');
/** Index of the first smallest element along an axis, int32 (torch.argmin). */
export function argmin(x: Tensor, axis?: number, options: ReduceOptions = {}): Tensor {
  return runArg(argminOp, x, axis, options);
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
