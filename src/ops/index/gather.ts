/** gather and scatterAdd: one index for every element. */

import { bytesPerElement } from '../../core/dtype.ts';
import { DTypeError, ShapeError } from '../../core/errors.ts';
import {
  type Shape,
  formatShape,
  normalizeAxis,
  numElements,
  sameShape,
} from '../../core/shape.ts';
import { formatAval } from '../../ir/aval.ts';
import type { Op } from '../../ir/op.ts';
import { apply1 } from '../../tensor/apply.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { add } from '../arithmetic.ts';
import { cast } from '../broadcast.ts';
import { zeros } from '../creation.ts';
import { floats, present, routineOp } from '../define.ts';
import { requireFloat32 } from '../float32.ts';
import { slice, sliceScatter } from '../slice.ts';
import { asIndex, axisView, checkRank, checkedIndex, withAxis } from './axis-view.ts';
import { gatherElements, scatterAddElements } from './kernels/elements.ts';
import type { AxisParams } from './index-select.ts';

/** x and index have equal sizes but along the axis. */
export const gatherOp: Op<Tensor, AxisParams> = routineOp<
  AxisParams,
  readonly ['x', 'index'],
  'index'
>({
  name: 'gather',
  args: ['x', 'index'],
  traits: { class: 'index', remat: 'cheap' },
  infer: (inputs, { axis }) => {
    const [x, index] = [present(inputs[0]), present(inputs[1])];
    checkOtherAxes('gather', x.shape, index.shape, axis);
    return [{ shape: index.shape, dtype: x.dtype }];
  },
  flops: () => 0,
  saves: ['index'],
  vjp: ([g], { params: { axis }, inputs, saved }) => {
    const x = present(inputs[0]);
    return [g && scatterAdd(zeros(x.shape, { dtype: x.dtype }), axis, saved('index'), g)];
  },
  routine: {
    wasm: ([x], [out], { axis }, target) => {
      const { outer, size, inner } = axisView(present(x).aval.shape, axis);
      const { shape, dtype } = present(out).aval;
      const sizes = { outer, size, count: shape[axis] ?? 0, inner };
      return gatherElements(sizes, bytesPerElement(dtype) as 1 | 2 | 4, target);
    },
    wgsl: { none: 'the kernel is written for processors' },
    reference: ([x, index], [out], avals, { axis }) => {
      const { size, inner } = axisView(present(avals.inputs[0]).shape, axis);
      const count = present(avals.inputs[1]).shape[axis] ?? 0;
      const [values, numbers, result] = [present(x), present(index), present(out)];
      for (let at = 0; at < result.length; at++) {
        const row = Math.floor(at / (count * inner)) * size;
        const number = checkedIndex('gather', numbers[at] ?? 0, size);
        result[at] = values[(row + number) * inner + (at % inner)] ?? 0;
      }
    },
  },
  samples: [
    {
      label: 'last',
      inputs: [floats([3, 7]), { shape: [3, 4], dtype: 'int32', range: [0, 7] }],
      params: { axis: 1 },
    },
    {
      label: 'middle',
      inputs: [floats([2, 5, 3]), { shape: [2, 6, 3], dtype: 'int32', range: [0, 5] }],
      params: { axis: 1 },
    },
  ],
});

/**
 * out[.., i, ..] = x[.., index[.., i, ..], ..] along `axis`, at every element of `index` (torch.gather). The
 * index may be smaller than `x` along the other axes. An index out of range fails when the kernel runs.
 * Throws ShapeError, DTypeError.
 */
export function gather(x: Tensor, axis: number, index: Tensor): Tensor {
  checkRank('gather', x);
  const along = normalizeAxis('gather', axis, x.rank);
  const numbers = asIndex('gather', index);
  const part = cutTo('gather', x, index.shape, along);
  return apply1(gatherOp, [part, numbers], { axis: along });
}

/** x, index and source have equal sizes but along the axis, where x may differ. */
export const scatterAddOp: Op<Tensor, AxisParams> = routineOp<
  AxisParams,
  readonly ['x', 'index', 'source'],
  'index'
>({
  name: 'scatterAdd',
  args: ['x', 'index', 'source'],
  traits: { class: 'index', remat: 'cheap' },
  infer: (inputs, { axis }) => {
    const [x, index, source] = [present(inputs[0]), present(inputs[1]), present(inputs[2])];
    if (x.dtype !== 'int32' && x.dtype !== 'uint32') requireFloat32('scatterAdd', [x, source]);
    checkOtherAxes('scatterAdd', x.shape, index.shape, axis);
    if (!sameShape(index.shape, source.shape)) {
      throw new ShapeError(
        `scatterAdd: the source must have the shape of the index (got ${formatShape(source.shape)} and ` +
          `${formatShape(index.shape)}). Slice the source.`,
        { index: index.shape, source: source.shape },
      );
    }
    return [x];
  },
  flops: ([, index]) => numElements(present(index).shape),
  saves: ['index'],
  vjp: ([g], { params: { axis }, needs, saved }) => [
    g,
    undefined,
    g && needs(2) ? gather(g, axis, saved('index')) : undefined,
  ],
  routine: {
    wasm: ([x, index], _, { axis }, target) => {
      const { shape, dtype } = present(x).aval;
      const { outer, size, inner } = axisView(shape, axis);
      const count = present(index).aval.shape[axis] ?? 0;
      const type = dtype === 'float32' ? 'f32' : 'i32';
      return scatterAddElements({ outer, size, count, inner }, type, target);
    },
    wgsl: { none: 'the kernel is written for processors' },
    reference: ([x, index, source], [out], avals, { axis }) => {
      const { size, inner } = axisView(present(avals.inputs[0]).shape, axis);
      const count = present(avals.inputs[1]).shape[axis] ?? 0;
      const [numbers, parts, result] = [present(index), present(source), present(out)];
      result.set(present(x));
      for (let at = 0; at < numbers.length; at++) {
        const row = Math.floor(at / (count * inner)) * size;
        const number = checkedIndex('scatterAdd', numbers[at] ?? 0, size);
        const to = (row + number) * inner + (at % inner);
        result[to] = (result[to] ?? 0) + (parts[at] ?? 0);
      }
    },
  },
  samples: [
    {
      label: 'last',
      inputs: [floats([3, 5]), { shape: [3, 7], dtype: 'int32', range: [0, 5] }, floats([3, 7])],
      params: { axis: 1 },
    },
    {
      label: 'first',
      inputs: [floats([4, 3]), { shape: [6, 3], dtype: 'int32', range: [0, 4] }, floats([6, 3])],
      params: { axis: 0 },
    },
  ],
});

/**
 * x plus source[.., i, ..] at [.., index[.., i, ..], ..] along `axis` (torch.scatter_add); repeated indices
 * add up, in order of i. The index may be smaller than `x` and `source` along the other axes. 16-bit floats
 * are summed in float32. An index out of range fails when the kernel runs. Throws ShapeError, DTypeError.
 */
export function scatterAdd(x: Tensor, axis: number, index: Tensor, source: Tensor): Tensor {
  checkRank('scatterAdd', x);
  const along = normalizeAxis('scatterAdd', axis, x.rank);
  if (x.dtype !== source.dtype || x.dtype === 'bool') {
    throw new DTypeError(
      `scatterAdd: x and source must be numbers of one dtype (got ${formatAval(x)} and ${formatAval(source)}). Cast one.`,
      { x: x.dtype, source: source.dtype },
    );
  }
  const wide = x.dtype === 'float16' || x.dtype === 'bfloat16' ? 'float32' : 'int32';
  if (x.dtype !== 'float32' && x.dtype !== 'int32' && x.dtype !== 'uint32') {
    return cast(scatterAdd(cast(x, wide), axis, index, cast(source, wide)), x.dtype);
  }
  const numbers = asIndex('scatterAdd', index);
  const parts = cutTo('scatterAdd', source, index.shape);
  const small = withAxis(index.shape, along, x.shape[along] ?? 0);
  if (sameShape(small, x.shape)) {
    return apply1(scatterAddOp, [x, numbers, parts], { axis: along });
  }
  checkRanks('scatterAdd', x.shape, index.shape);
  const start = zeros(small, { dtype: x.dtype });
  const sums = apply1(scatterAddOp, [start, numbers, parts], { axis: along });
  const origin = x.shape.map(() => 0);
  return add(x, sliceScatter(sums, x.shape, origin));
}

/** The leading part of `x` of the sizes in `shape`; `keep` names an axis that stays whole. */
function cutTo(who: string, x: Tensor, shape: Shape, keep = -1): Tensor {
  checkRanks(who, x.shape, shape);
  const wanted = x.shape.map((dim, axis) => (axis === keep ? dim : (shape[axis] ?? 0)));
  if (sameShape(wanted, x.shape)) return x;
  const fits = wanted.every((dim, axis) => dim <= (x.shape[axis] ?? 0));
  if (!fits) checkOtherAxes(who, x.shape, shape, keep);
  return slice(
    x,
    wanted.map((dim) => [0, dim]),
  );
}

function checkRanks(who: string, x: Shape, index: Shape): void {
  if (x.length === index.length) return;
  throw new ShapeError(
    `${who}: the index must have as many axes as the tensor (got ${formatShape(index)} and ${formatShape(x)}). ` +
      'Reshape or expand the index.',
    { x, index },
  );
}

function checkOtherAxes(who: string, x: Shape, index: Shape, axis: number): void {
  checkRanks(who, x, index);
  const wrong = x.findIndex((dim, i) => i !== axis && dim !== index[i]);
  if (wrong < 0) return;
  throw new ShapeError(
    `${who}: sizes differ at axis ${wrong}, which is not indexed (got ${formatShape(index)} and ${formatShape(x)}). ` +
      'Slice or expand the index.',
    { x, index, axis: wrong },
  );
}
