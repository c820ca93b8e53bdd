/** Views: other shapes over the same memory, no kernel; and copies. See also broadcast.ts and slice.ts. */

import { ShapeError } from '../core/errors.ts';
import { formatShape, isContiguous, normalizeAxes, normalizeAxis } from '../core/shape.ts';
import type { Op } from '../ir/op.ts';
import { apply1 } from '../tensor/apply.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { reshape } from './broadcast.ts';
import {
  arithmeticCost,
  broadcastTemplate,
  defineOp,
  floats,
  inputExpr,
  present,
  viewOp,
} from './define.ts';

type AxesParams = { readonly axes: readonly number[] };

export const permuteOp: Op<Tensor, AxesParams> = viewOp<AxesParams>({
  name: 'permute',
  infer: (x, { axes }) => ({ shape: axes.map((axis) => present(x.shape[axis])), dtype: x.dtype }),
  view: (_, { offset, strides }, __, { axes }) => ({
    offset,
    strides: axes.map((axis) => present(strides[axis])),
  }),
  vjp: (g, { axes }) => apply1(permuteOp, [g], { axes: axes.map((_, i) => axes.indexOf(i)) }),
  samples: [
    { label: 'rotate', inputs: [floats([2, 3, 5])], params: { axes: [2, 0, 1] } },
    { label: 'swap', inputs: [floats([4, 7])], params: { axes: [1, 0] } },
  ],
});

/** Axes in another order: axis i of the result is axis `axes[i]` of x (torch.permute). */
export function permute(x: Tensor, axes: readonly number[]): Tensor {
  const order = axes.map((axis) => normalizeAxis('permute', axis, x.rank));
  if (order.length !== x.rank || new Set(order).size !== x.rank) {
    throw new ShapeError(
      `permute: each axis of ${formatShape(x.shape)} must be named once (got [${axes.join(', ')}]). ` +
        `Give ${x.rank} different axes.`,
      { shape: x.shape, axes },
    );
  }
  return apply1(permuteOp, [x], { axes: order });
}

/** Exchanges two axes (torch.transpose); default the last two. */
export function transpose(x: Tensor, axis0 = -2, axis1 = -1): Tensor {
  const [a, b] = [
    normalizeAxis('transpose', axis0, x.rank),
    normalizeAxis('transpose', axis1, x.rank),
  ];
  const axes = x.shape.map((_, axis) => (axis === a ? b : axis === b ? a : axis));
  return apply1(permuteOp, [x], { axes });
}

/** Drops axes of size 1: the one named, those named, or all (torch.squeeze). Others stay. */
export function squeeze(x: Tensor, axes?: number | readonly number[]): Tensor {
  const list = normalizeAxes('squeeze', axes, x.rank);
  return reshape(
    x,
    x.shape.filter((dim, axis) => dim !== 1 || !list.includes(axis)),
  );
}

/** Adds an axis of size 1, so that it becomes axis `axis` of the result (torch.unsqueeze). */
export function unsqueeze(x: Tensor, axis: number): Tensor {
  const at = normalizeAxis('unsqueeze', axis, x.rank + 1);
  return reshape(x, [...x.shape.slice(0, at), 1, ...x.shape.slice(at)]);
}

/** Merges axes `from` to `to` into one (torch.flatten). */
export function flatten(x: Tensor, from = 0, to = -1): Tensor {
  if (x.rank === 0) return reshape(x, [1]);
  const first = normalizeAxis('flatten', from, x.rank);
  const last = normalizeAxis('flatten', to, x.rank);
  if (first > last) {
    throw new ShapeError(
      `flatten: axis ${from} comes after axis ${to} (got shape ${formatShape(x.shape)}). Name them in order.`,
    );
  }
  const merged = x.shape.slice(first, last + 1).reduce((a, b) => a * b, 1);
  return reshape(x, [...x.shape.slice(0, first), merged, ...x.shape.slice(last + 1)]);
}

type NoParams = Readonly<Record<never, never>>;

export const cloneOp: Op<Tensor, NoParams> = defineOp<NoParams, readonly ['x'], never>({
  name: 'clone',
  args: ['x'],
  traits: { class: 'elementwise', remat: 'cheap' },
  infer: ([x]) => [present(x)],
  cost: (inputs, outputs) => arithmeticCost(inputs, outputs, 0),
  saves: [],
  vjp: ([g]) => [g],
  lower: {
    kind: 'kernel',
    template: ([x]) =>
      broadcastTemplate(present(x).shape, [present(x)], [inputExpr(0, present(x))]),
  },
  samples: [
    { label: 'matrix', inputs: [floats([3, 5])], params: {} },
    { label: 'ints', inputs: [{ shape: [7], dtype: 'int32', range: [-9, 9] }], params: {} },
  ],
});

export const contiguousOp: Op<Tensor, NoParams> = viewOp<NoParams>({
  name: 'contiguous',
  infer: (x) => x,
  view: (x, layout) => (isContiguous(x.shape, layout.strides) ? layout : undefined),
  vjp: (g) => g,
  samples: [{ label: 'matrix', inputs: [floats([3, 5])], params: {} }],
});

/** A dense copy in memory of its own (torch.clone). */
export function clone(x: Tensor): Tensor {
  return apply1(cloneOp, [x]);
}

/** x itself when it is dense and row-major, seen through a new handle; else a dense copy (torch.Tensor.contiguous). */
export function contiguous(x: Tensor): Tensor {
  return apply1(contiguousOp, [x]);
}
