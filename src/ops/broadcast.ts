/**
 * The ops that other ops' gradients are made of: reshape, expand, sum and cast, and `sumTo`, which
 * undoes broadcasting. They stand in one file because their gradients need each other.
 */

import { type DType, isFloat } from '../core/dtype.ts';
import { ShapeError } from '../core/errors.ts';
import {
  type Shape,
  broadcastShapes,
  broadcastStrides,
  formatShape,
  normalizeAxes,
  numElements,
  sameShape,
  viewStrides,
} from '../core/shape.ts';
import type { Aval } from '../ir/aval.ts';
import { e } from '../ir/expr.ts';
import type { Op } from '../ir/op.ts';
import { apply1 } from '../tensor/apply.ts';
import { keepSource } from '../tensor/saved-source.ts';
import type { Tensor } from '../tensor/tensor.ts';
import {
  type ReduceParams,
  arithmeticCost,
  broadcastTemplate,
  defineOp,
  floats,
  inputExpr,
  present,
  reducedShape,
  reductionOp,
  storedAs,
  viewOp,
} from './define.ts';
import { firstStage } from './stages.ts';

type ShapeParams = { readonly shape: Shape };

export const reshapeOp: Op<Tensor, ShapeParams> = viewOp<ShapeParams>({
  name: 'reshape',
  infer: (x, { shape }) => {
    if (numElements(shape) !== numElements(x.shape)) {
      throw new ShapeError(
        `reshape: ${numElements(x.shape)} elements do not fill the shape (got ${formatShape(x.shape)} to ` +
          `${formatShape(shape)}). Choose a shape of equal size.`,
        { from: x.shape, to: shape },
      );
    }
    return { shape, dtype: x.dtype };
  },
  view: (x, { offset, strides }, out) => {
    const viewed = viewStrides(x.shape, strides, out.shape);
    return viewed && { offset, strides: viewed };
  },
  vjp: (g, _, x) => reshape(g, x.shape),
  samples: [
    { label: 'merge', inputs: [floats([3, 4, 5])], params: { shape: [12, 5] } },
    { label: 'split', inputs: [floats([6, 5])], params: { shape: [2, 3, 1, 5] } },
    { label: 'toScalar', inputs: [floats([1, 1])], params: { shape: [] } },
  ],
});

/**
 * The elements of `x`, in row-major order, as another shape (torch.reshape). One size may be -1. A view
 * where the layout allows one, else a copy. Throws ShapeError for another number of elements.
 */
export function reshape(x: Tensor, shape: Shape): Tensor {
  return apply1(reshapeOp, [x], { shape: resolveShape(x.shape, shape) });
}

function resolveShape(from: Shape, to: Shape): Shape {
  const free = to.indexOf(-1);
  if (free < 0) return to;
  const rest = numElements(to.filter((_, axis) => axis !== free));
  const size = numElements(from) / rest;
  if (to.indexOf(-1, free + 1) >= 0 || !Number.isInteger(size)) {
    throw new ShapeError(
      `reshape: the size -1 cannot be worked out (got ${formatShape(from)} to ${formatShape(to)}). ` +
        'Give at most one -1, with the other sizes dividing the number of elements.',
      { from, to },
    );
  }
  return to.map((dim, axis) => (axis === free ? size : dim));
}

export const expandOp: Op<Tensor, ShapeParams> = viewOp<ShapeParams>({
  name: 'expand',
  infer: (x, { shape }) => {
    const common = broadcastShapes('expand', x.shape, shape);
    if (!sameShape(common, shape)) {
      throw new ShapeError(
        `expand: only axes of size 1 can grow (got ${formatShape(x.shape)} to ${formatShape(shape)}). ` +
          'Keep the other sizes, or write -1 for them.',
        { from: x.shape, to: shape },
      );
    }
    return { shape, dtype: x.dtype };
  },
  view: (x, { offset, strides }, out) => ({
    offset,
    strides: broadcastStrides(x.shape, strides, out.shape),
  }),
  vjp: (g, _, x) => sumTo(g, x.shape),
  samples: [
    { label: 'middle', inputs: [floats([2, 1, 5])], params: { shape: [2, 3, 5] } },
    { label: 'leading', inputs: [floats([3])], params: { shape: [4, 2, 3] } },
  ],
});

/**
 * A view in which axes of size 1, and axes added in front, repeat (torch.Tensor.expand); -1 keeps an
 * axis. Throws ShapeError when another size would change.
 */
export function expand(x: Tensor, shape: Shape): Tensor {
  const lead = shape.length - x.rank;
  const sizes = shape.map((dim, axis) => (dim === -1 ? (x.shape[axis - lead] ?? -1) : dim));
  return apply1(expandOp, [x], { shape: sizes });
}

type CastParams = { readonly dtype: DType };

export const castOp: Op<Tensor, CastParams> = defineOp({
  name: 'cast',
  args: ['x'],
  traits: { class: 'elementwise', remat: 'cheap' },
  infer: ([x], { dtype }: CastParams) => [{ shape: present(x).shape, dtype }],
  cost: (inputs, outputs) => arithmeticCost(inputs, outputs, 0),
  saves: [],
  vjp: ([g], { inputs }) => [g && cast(g, present(inputs[0]).dtype)],
  lower: {
    kind: 'kernel',
    template: ([x], [out]) =>
      broadcastTemplate(
        present(out).shape,
        [present(x)],
        [storedAs(inputExpr(0, present(x)), present(out))],
      ),
  },
  samples: [
    { label: 'toInt', inputs: [floats([3, 5], [-9, 9])], params: { dtype: 'int32' } },
    { label: 'fromBool', inputs: [{ shape: [7], dtype: 'bool' }], params: { dtype: 'float32' } },
    {
      label: 'fromInt',
      inputs: [{ shape: [2, 3], dtype: 'int32', range: [-9, 9] }],
      params: { dtype: 'float32' },
    },
  ],
});

/**
 * `x` in another dtype (torch.Tensor.to). Floats round to nearest even; float to integer truncates;
 * anything to bool is x != 0. A view when the dtype is already right. Where backward reads a 16-bit float as
 * float32, the 16 bits are kept and widened again.
 */
export function cast(x: Tensor, dtype: DType): Tensor {
  if (x.dtype === dtype) return reshape(x, x.shape);
  const made = apply1(castOp, [x], { dtype });
  if (dtype === 'float32' && isFloat(x.dtype)) keepSource(made, x, (own) => cast(own, dtype));
  return made;
}

/** `dtype`: of the result; sums of 16-bit floats are taken in float32 whatever it is. */
export type SumParams = ReduceParams & { readonly dtype: DType };

export const sumOp: Op<Tensor, SumParams> = reductionOp<SumParams, never>({
  name: 'sum',
  dtype: (_, { dtype }) => dtype,
  expr: (x, { params }) => {
    const wide = x.type === 'bool' ? e.cast(x, 'i32') : x;
    return params.axes.length === 0 ? wide : e.reduce('sum', wide);
  },
  saves: [],
  vjp: (g, { inputs, params }) => {
    const x = present(inputs[0]);
    const kept = reducedShape(x.shape, { ...params, keepDims: true });
    const same = g.dtype === x.dtype ? g : cast(g, x.dtype);
    return expand(params.keepDims ? same : reshape(same, kept), x.shape);
  },
  samples: [
    {
      label: 'rows',
      inputs: [floats([3, 19])],
      params: { axes: [1], keepDims: false, dtype: 'float32' },
    },
    {
      label: 'columns',
      inputs: [floats([7, 5])],
      params: { axes: [0], keepDims: true, dtype: 'float32' },
    },
    {
      label: 'outerAndInner',
      inputs: [floats([3, 4, 5])],
      params: { axes: [0, 2], keepDims: false, dtype: 'float32' },
    },
    {
      label: 'bools',
      inputs: [{ shape: [3, 9], dtype: 'bool' }],
      params: { axes: [1], keepDims: false, dtype: 'int32' },
    },
  ],
});

export type Axes = number | readonly number[];

export interface SumOptions {
  /** Keep reduced axes as axes of size 1. */
  readonly keepDims?: boolean;
  /** dtype of the result; default that of `x`, and int32 for bool and integers. */
  readonly dtype?: DType;
}

/**
 * Sum over `axes` (default: all; an empty list sums over none). torch.sum, but integers sum to int32.
 * Large sums over everything go in two stages so that threads share the work; the order of additions
 * depends on the shape alone.
 */
export function sum(x: Tensor, axes?: Axes, options: SumOptions = {}): Tensor {
  const list = normalizeAxes('sum', axes, x.rank).filter((axis) => axis < x.rank);
  const dtype = options.dtype ?? sumDType(x);
  const keepDims = options.keepDims ?? false;
  const stage = firstStage(x.shape, list);
  if (!stage) return apply1(sumOp, [x], { axes: list, keepDims, dtype });
  const wide: DType = isFloat(dtype) ? 'float32' : dtype;
  const partial = apply1(sumOp, [reshape(x, stage.view)], {
    axes: stage.reduced,
    keepDims: false,
    dtype: wide,
  });
  const total = apply1(sumOp, [reshape(partial, [partial.size])], {
    axes: [0],
    keepDims: false,
    dtype,
  });
  return keepDims ? reshape(total, new Array<number>(x.rank).fill(1)) : total;
}

function sumDType(x: Aval): DType {
  return isFloat(x.dtype) || x.dtype === 'uint32' ? x.dtype : 'int32';
}

/** The sum of `x` over the axes along which `shape` was broadcast to x's shape; itself if none. */
export function sumTo(x: Tensor, shape: Shape): Tensor {
  if (sameShape(x.shape, shape)) return x;
  const lead = x.rank - shape.length;
  const axes: number[] = [];
  x.shape.forEach((dim, axis) => {
    if (axis < lead || (shape[axis - lead] === 1 && dim !== 1)) axes.push(axis);
  });
  const summed = axes.length === 0 ? x : sum(x, axes, { dtype: x.dtype });
  return sameShape(summed.shape, shape) ? summed : reshape(summed, shape);
}

/** A gradient computed at a broadcast shape and dtype, as the gradient of an input of aval `x`. */
export function gradientTo(g: Tensor, x: Aval): Tensor {
  const summed = sumTo(g, x.shape);
  return summed.dtype === x.dtype ? summed : cast(summed, x.dtype);
}
