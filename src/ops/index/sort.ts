/** sort and topk along an axis. */

import { isFloat } from '../../core/dtype.ts';
import { ArgumentError } from '../../core/errors.ts';
import { normalizeAxis, numElements } from '../../core/shape.ts';
import type { Op, Params } from '../../ir/op.ts';
import { apply } from '../../tensor/apply.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { cast, reshape } from '../broadcast.ts';
import { zeros } from '../creation.ts';
import { floats, present, routineOp } from '../define.ts';
import { requireFloat32 } from '../float32.ts';
import { transpose } from '../views.ts';
import { withAxis } from './axis-view.ts';
import { scatterAdd } from './gather.ts';
import { type SortedType, sortRows } from './kernels/sort.ts';

/** The first `count` of each row of the last axis, sorted. */
export interface SortParams extends Params {
  readonly count: number;
  readonly descending: boolean;
}

/** Outputs: values, and their positions as int32. */
export const sortOp: Op<Tensor, SortParams> = routineOp<SortParams, readonly ['x'], 'out1'>({
  name: 'sort',
  args: ['x'],
  traits: { class: 'index', remat: 'costly', keep: true },
  infer: ([x], { count }) => {
    const { shape, dtype } = present(x);
    if (dtype !== 'int32' && dtype !== 'uint32') requireFloat32('sort', [present(x)]);
    const sorted = withAxis(shape, shape.length - 1, count);
    return [
      { shape: sorted, dtype },
      { shape: sorted, dtype: 'int32' },
    ];
  },
  flops: ([x]) => {
    const { shape } = present(x);
    return numElements(shape) * Math.ceil(Math.log2((shape.at(-1) ?? 1) + 1));
  },
  saves: ['out1'],
  vjp: ([g], { inputs, saved }) => {
    const x = present(inputs[0]);
    return [g && scatterAdd(zeros(x.shape, { dtype: x.dtype }), -1, saved('out1'), g)];
  },
  routine: {
    wasm: ([x], _, { count, descending }, target) => {
      const { shape, dtype } = present(x).aval;
      const length = shape.at(-1) ?? 1;
      const rows = numElements(shape.slice(0, -1));
      return sortRows({ rows, length, count }, dtype as SortedType, descending, target);
    },
    wgsl: { none: 'the kernel is written for processors' },
    reference: ([x], [values, indices], avals, { count, descending }) => {
      const length = present(avals.inputs[0]).shape.at(-1) ?? 1;
      const [data, sorted, places] = [present(x), present(values), present(indices)];
      const order = (a: number, b: number): number => {
        if (Number.isNaN(a) || Number.isNaN(b))
          return Number(Number.isNaN(a)) - Number(Number.isNaN(b));
        return a < b ? -1 : Number(a > b);
      };
      for (let start = 0, to = 0; start < data.length; start += length, to += count) {
        const row = data.subarray(start, start + length);
        const at = (i: number): number => row[i] ?? 0;
        const sign = descending ? -1 : 1;
        const ranks = Array.from(row, (_, i) => i).sort(
          (i, j) => sign * order(at(i), at(j)) || i - j,
        );
        for (let i = 0; i < count; i++) {
          places[to + i] = ranks[i] ?? 0;
          sorted[to + i] = at(ranks[i] ?? 0);
        }
      }
    },
  },
  samples: [
    { label: 'rising', inputs: [floats([3, 17])], params: { count: 17, descending: false } },
    { label: 'top', inputs: [floats([2, 9])], params: { count: 4, descending: true } },
    {
      label: 'ties',
      inputs: [{ shape: [2, 21], dtype: 'int32', range: [0, 4] }],
      params: { count: 21, descending: true },
    },
  ],
});

export interface Sorted {
  readonly values: Tensor;
  /** int32 positions along the axis. */
  readonly indices: Tensor;
}

/**
 * `x` sorted along `axis` (torch.sort with stable=True): equal elements keep their order, NaN counts as
 * largest. Gradients flow to the elements that were moved.
 */
export function sort(
  x: Tensor,
  options: { readonly axis?: number; readonly descending?: boolean } = {},
): Sorted {
  const axis = normalizeAxis('sort', options.axis ?? -1, x.rank);
  return sorted(x, axis, { count: x.shape[axis] ?? 1, descending: options.descending ?? false });
}

/**
 * The `k` largest elements along `axis`, sorted (torch.topk), or the smallest. Of equal elements the first
 * come first. Throws ArgumentError unless 1 <= k <= size of the axis.
 */
export function topk(
  x: Tensor,
  k: number,
  options: { readonly axis?: number; readonly largest?: boolean } = {},
): Sorted {
  const axis = normalizeAxis('topk', options.axis ?? -1, x.rank);
  const size = x.shape[axis] ?? 1;
  if (!Number.isInteger(k) || k < 1 || k > size) {
    throw new ArgumentError(
      `topk: k must be an integer from 1 to the size of the axis (got ${k} for ${size}). Choose a smaller k.`,
      { k, size },
    );
  }
  return sorted(x, axis, { count: k, descending: options.largest ?? true });
}

function sorted(x: Tensor, axis: number, params: SortParams): Sorted {
  if (x.rank === 0) {
    const { values, indices } = sorted(reshape(x, [1]), 0, params);
    return { values: reshape(values, []), indices: reshape(indices, []) };
  }
  if (x.dtype !== 'float32' && x.dtype !== 'int32' && x.dtype !== 'uint32') {
    const { values, indices } = sorted(
      cast(x, isFloat(x.dtype) ? 'float32' : 'int32'),
      axis,
      params,
    );
    return { values: cast(values, x.dtype), indices };
  }
  const last = x.rank - 1;
  if (axis !== last) {
    const { values, indices } = sorted(transpose(x, axis, last), last, params);
    return { values: transpose(values, axis, last), indices: transpose(indices, axis, last) };
  }
  const [values, indices] = apply(sortOp, [x], params);
  return { values: present(values), indices: present(indices) };
}
