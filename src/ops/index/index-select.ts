/** Slices by number along one axis, and sums of slices by number, which is its transpose. */

import { bytesPerElement } from '../../core/dtype.ts';
import { ShapeError } from '../../core/errors.ts';
import { formatShape, normalizeAxis, numElements } from '../../core/shape.ts';
import type { Op } from '../../ir/op.ts';
import { apply1 } from '../../tensor/apply.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { cast } from '../broadcast.ts';
import { floats, present, requireFloat, routineOp } from '../define.ts';
import { requireFloat32 } from '../float32.ts';
import { asIndex, axisView, checkRank, checkedIndex, withAxis } from './axis-view.ts';
import { gatherRows, sumRows } from './kernels/rows.ts';

export type AxisParams = { readonly axis: number };

export const indexSelectOp: Op<Tensor, AxisParams> = routineOp<
  AxisParams,
  readonly ['x', 'index'],
  'index'
>({
  name: 'indexSelect',
  args: ['x', 'index'],
  traits: { class: 'index', remat: 'cheap' },
  infer: (inputs, { axis }) => {
    const [x, index] = [present(inputs[0]), present(inputs[1])];
    checkIndexVector('indexSelect', index.shape);
    return [{ shape: withAxis(x.shape, axis, index.shape[0] ?? 0), dtype: x.dtype }];
  },
  flops: () => 0,
  saves: ['index'],
  vjp: ([g], { params: { axis }, inputs, saved }) => [
    g && segmentSum(g, axis, saved('index'), present(inputs[0]).shape[axis] ?? 0),
  ],
  routine: {
    wasm: ([x], [out], { axis }, target) => {
      const { outer, size, inner } = axisView(present(x).aval.shape, axis);
      const { aval } = present(out);
      const count = aval.shape[axis] ?? 0;
      return gatherRows({ outer, size, count, inner }, bytesPerElement(aval.dtype), target);
    },
    wgsl: { none: 'the kernel is written for processors' },
    reference: ([x, index], [out], avals, { axis }) => {
      const { outer, size, inner } = axisView(present(avals.inputs[0]).shape, axis);
      const [table, numbers, result] = [present(x), present(index), present(out)];
      let at = 0;
      for (let o = 0; o < outer; o++) {
        for (const number of numbers) {
          const row = o * size + checkedIndex('indexSelect', number, size);
          for (let i = 0; i < inner; i++) result[at++] = table[row * inner + i] ?? 0;
        }
      }
    },
  },
  samples: [
    {
      label: 'rows',
      inputs: [floats([5, 3]), { shape: [4], dtype: 'int32', range: [0, 5] }],
      params: { axis: 0 },
    },
    {
      label: 'middle',
      inputs: [floats([2, 5, 3]), { shape: [7], dtype: 'int32', range: [0, 5] }],
      params: { axis: 1 },
    },
  ],
});

/**
 * The slices of `x` along `axis` that the integer vector `index` names (torch.index_select). An index out
 * of range fails when the kernel runs. Throws ShapeError, DTypeError.
 */
export function indexSelect(x: Tensor, axis: number, index: Tensor): Tensor {
  checkRank('indexSelect', x);
  const along = normalizeAxis('indexSelect', axis, x.rank);
  return apply1(indexSelectOp, [x, asIndex('indexSelect', index)], { axis: along });
}

export type SegmentParams = AxisParams & { readonly size: number };

export const segmentSumOp: Op<Tensor, SegmentParams> = routineOp<
  SegmentParams,
  readonly ['source', 'index'],
  'index'
>({
  name: 'segmentSum',
  args: ['source', 'index'],
  traits: { class: 'index', remat: 'cheap' },
  infer: (inputs, { axis, size }) => {
    const [source, index] = [present(inputs[0]), present(inputs[1])];
    requireFloat32('segmentSum', [source]);
    checkIndexVector('segmentSum', index.shape);
    if (source.shape[axis] !== index.shape[0]) {
      throw new ShapeError(
        `segmentSum: one index per slice is wanted (got source ${formatShape(source.shape)}, axis ${axis}, index ` +
          `${formatShape(index.shape)}). Make the index as long as axis ${axis}.`,
        { source: source.shape, index: index.shape, axis },
      );
    }
    return [{ shape: withAxis(source.shape, axis, size), dtype: 'float32' }];
  },
  flops: ([source]) => numElements(present(source).shape),
  saves: ['index'],
  vjp: ([g], { params: { axis }, saved }) => [g && indexSelect(g, axis, saved('index'))],
  routine: {
    wasm: ([source], _, { axis, size }, target) => {
      const view = axisView(present(source).aval.shape, axis);
      return sumRows({ outer: view.outer, size, count: view.size, inner: view.inner }, target);
    },
    wgsl: { none: 'the kernel is written for processors' },
    reference: ([source, index], [out], avals, { axis, size }) => {
      const { outer, inner } = axisView(present(avals.inputs[0]).shape, axis);
      const [parts, numbers, result] = [present(source), present(index), present(out)];
      result.fill(0);
      let at = 0;
      for (let o = 0; o < outer; o++) {
        for (const number of numbers) {
          const row = o * size + checkedIndex('segmentSum', number, size);
          for (let i = 0; i < inner; i++) {
            const to = row * inner + i;
            result[to] = (result[to] ?? 0) + (parts[at++] ?? 0);
          }
        }
      }
    },
  },
  samples: [
    {
      label: 'rows',
      inputs: [floats([7, 5]), { shape: [7], dtype: 'int32', range: [0, 3] }],
      params: { axis: 0, size: 3 },
    },
    {
      label: 'middle',
      inputs: [floats([2, 4, 3]), { shape: [4], dtype: 'int32', range: [0, 6] }],
      params: { axis: 1, size: 6 },
    },
  ],
});

/**
 * Sums of the slices of `source` along `axis` that share an index: zeros with `size` slices, plus
 * source[k] at index[k] (torch.index_add on zeros). In order of k, so it is deterministic; 16-bit floats are
 * summed in float32. Throws ShapeError, DTypeError; an index out of range fails when the kernel runs.
 */
export function segmentSum(source: Tensor, axis: number, index: Tensor, size: number): Tensor {
  requireFloat('segmentSum', source, 'source');
  checkRank('segmentSum', source);
  const along = normalizeAxis('segmentSum', axis, source.rank);
  const wide = source.dtype === 'float32' ? source : cast(source, 'float32');
  const sum = apply1(segmentSumOp, [wide, asIndex('segmentSum', index)], { axis: along, size });
  return source.dtype === 'float32' ? sum : cast(sum, source.dtype);
}

function checkIndexVector(who: string, shape: readonly number[]): void {
  if (shape.length === 1) return;
  throw new ShapeError(
    `${who}: the index must be a vector (got shape ${formatShape(shape)}). Flatten it, or use gather.`,
    { index: shape },
  );
}
