/**
 * Parts of a tensor. `slice` is a view; its gradient, `sliceScatter`, lays the part back into zeros.
 * narrow, select and flip are slices.
 */

import { bytesPerElement } from '../core/dtype.ts';
import { ArgumentError, ShapeError } from '../core/errors.ts';
import {
  type Shape,
  contiguousStrides,
  formatShape,
  normalizeAxes,
  normalizeAxis,
  numElements,
} from '../core/shape.ts';
import type { Op, Params } from '../ir/op.ts';
import { apply1 } from '../tensor/apply.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { reshape } from './broadcast.ts';
import { floats, present, routineOp, viewOp } from './define.ts';
import { sliceScatterKernel } from './kernels/slice-scatter.ts';

/** For each axis: elements start, start + step, ... (`sizes` of them). Steps may be negative. */
export interface SliceParams extends Params {
  readonly starts: readonly number[];
  readonly steps: readonly number[];
  readonly sizes: readonly number[];
}

export const sliceOp: Op<Tensor, SliceParams> = viewOp<SliceParams>({
  name: 'slice',
  infer: (x, { sizes }) => ({ shape: sizes, dtype: x.dtype }),
  view: (_, layout, __, { starts, steps }) => ({
    offset: starts.reduce(
      (offset, start, axis) => offset + start * present(layout.strides[axis]),
      layout.offset,
    ),
    strides: layout.strides.map((stride, axis) => stride * present(steps[axis])),
  }),
  vjp: (g, { starts, steps }, x) => apply1(sliceScatterOp, [g], { shape: x.shape, starts, steps }),
  samples: [
    {
      label: 'inner',
      inputs: [floats([3, 7])],
      params: { starts: [0, 2], steps: [1, 1], sizes: [3, 4] },
    },
    {
      label: 'steps',
      inputs: [floats([5, 9])],
      params: { starts: [1, 0], steps: [2, 3], sizes: [2, 3] },
    },
    {
      label: 'backwards',
      inputs: [floats([2, 6])],
      params: { starts: [0, 5], steps: [1, -2], sizes: [2, 3] },
    },
  ],
});

interface ScatterParams extends Params {
  readonly shape: Shape;
  readonly starts: readonly number[];
  readonly steps: readonly number[];
}

export const sliceScatterOp: Op<Tensor, ScatterParams> = routineOp<
  ScatterParams,
  readonly ['part'],
  never
>({
  name: 'sliceScatter',
  args: ['part'],
  traits: { class: 'index', remat: 'cheap' },
  infer: ([part], { shape, starts, steps }) => {
    const { shape: sizes, dtype } = present(part);
    const fits = sizes.every((size, axis) => {
      const first = starts[axis] ?? -1;
      const last = first + (size - 1) * (steps[axis] ?? 0);
      const dim = shape[axis] ?? 0;
      return size === 0 || (first >= 0 && first < dim && last >= 0 && last < dim);
    });
    if (sizes.length !== shape.length || !fits) {
      throw new ShapeError(
        `sliceScatter: the part does not lie inside the result (got ${formatShape(sizes)} at [${starts.join(', ')}] ` +
          `with steps [${steps.join(', ')}] in ${formatShape(shape)}). Choose starts and steps that stay inside.`,
        { shape, sizes, starts, steps },
      );
    }
    return [{ shape, dtype }];
  },
  flops: () => 0,
  saves: [],
  vjp: ([g], { params: { starts, steps }, inputs }) => [
    g && apply1(sliceOp, [g], { starts, steps, sizes: present(inputs[0]).shape }),
  ],
  routine: {
    wasm: ([part], [out], { starts, steps }, target) => {
      const axes = present(out).aval.shape.map((dim, axis) => ({
        dim,
        start: present(starts[axis]),
        step: present(steps[axis]),
        size: present(present(part).aval.shape[axis]),
      }));
      const bytes = bytesPerElement(present(out).aval.dtype) as 1 | 2 | 4;
      return sliceScatterKernel(axes, bytes, target);
    },
    wgsl: { none: 'not written yet' },
    reference: ([part], [out], avals, { shape, starts, steps }) => {
      const sizes = present(avals.inputs[0]).shape;
      const target = present(out);
      const strides = contiguousStrides(shape);
      const at = new Array<number>(sizes.length).fill(0);
      target.fill(0);
      for (let i = 0; i < numElements(sizes); i++) {
        const index = at.reduce(
          (sum, c, a) => sum + (present(starts[a]) + c * present(steps[a])) * present(strides[a]),
          0,
        );
        target[index] = present(present(part)[i]);
        for (let axis = sizes.length - 1; axis >= 0; axis--) {
          at[axis] = present(at[axis]) + 1;
          if (present(at[axis]) < present(sizes[axis])) break;
          at[axis] = 0;
        }
      }
    },
  },
  samples: [
    {
      label: 'inner',
      inputs: [floats([3, 4])],
      params: { shape: [3, 7], starts: [0, 2], steps: [1, 1] },
    },
    {
      label: 'outer',
      inputs: [floats([2, 3, 5])],
      params: { shape: [2, 7, 5], starts: [0, 3, 0], steps: [1, 1, 1] },
    },
    {
      label: 'steps',
      inputs: [floats([2, 3])],
      params: { shape: [5, 9], starts: [3, 8], steps: [-2, -3] },
    },
  ],
});

/**
 * Zeros of `shape` in which `part` lies at `starts` (torch.slice_scatter into zeros); steps default to 1.
 * Throws ShapeError when the part does not fit.
 */
export function sliceScatter(
  part: Tensor,
  shape: Shape,
  starts: readonly number[],
  steps: readonly number[] = starts.map(() => 1),
): Tensor {
  return apply1(sliceScatterOp, [part], { shape, starts, steps });
}

/**
 * Part of an axis: all of it (null), or [start, end] or [start, end, step]. Negative starts and ends
 * count from the end; both are clipped to the axis. A negative step walks backwards, from start to
 * just before end; an undefined bound then is the last and past the first element.
 */
export type Range =
  | null
  | readonly [start: number | undefined, end?: number | undefined, step?: number];

/** A view of part of each axis; axes without a range are whole. x[1:3, ::2] is slice(x, [[1, 3], [0, undefined, 2]]). */
export function slice(x: Tensor, ranges: readonly Range[]): Tensor {
  if (ranges.length > x.rank) {
    throw new ShapeError(
      `slice: more ranges than axes (got ${ranges.length} for shape ${formatShape(x.shape)}). Give at most one for each.`,
      { shape: x.shape },
    );
  }
  const parts = x.shape.map((dim, axis) => resolveRange(ranges[axis] ?? null, dim));
  return apply1(sliceOp, [x], {
    starts: parts.map((part) => part.start),
    steps: parts.map((part) => part.step),
    sizes: parts.map((part) => part.size),
  });
}

function resolveRange(range: Range, dim: number): { start: number; step: number; size: number } {
  if (range === null) return { start: 0, step: 1, size: dim };
  const [first, last, step = 1] = range;
  if (!Number.isInteger(step) || step === 0) {
    throw new ArgumentError(
      `slice: a step must be an integer other than 0 (got ${step}). Leave it out for 1.`,
    );
  }
  const low = step > 0 ? 0 : -1;
  const high = step > 0 ? dim : dim - 1;
  const clip = (at: number | undefined, missing: number): number =>
    at === undefined ? missing : Math.min(Math.max(at < 0 ? at + dim : at, low), high);
  const start = clip(first, step > 0 ? 0 : high);
  const end = clip(last, step > 0 ? dim : -1);
  const size = Math.max(0, Math.ceil((end - start) / step));
  return { start: size === 0 ? 0 : start, step, size };
}

/** `length` elements of one axis from `start` on (torch.narrow). Throws ShapeError outside the axis. */
export function narrow(x: Tensor, axis: number, start: number, length: number): Tensor {
  const at = normalizeAxis('narrow', axis, x.rank);
  const dim = x.shape[at] ?? 0;
  const from = start < 0 ? start + dim : start;
  if (!(from >= 0 && length >= 0 && from + length <= dim)) {
    throw new ShapeError(
      `narrow: elements ${from} to ${from + length} do not lie in axis ${at} of size ${dim} ` +
        `(got shape ${formatShape(x.shape)}). Choose a start and length inside it.`,
      { shape: x.shape, axis: at, start, length },
    );
  }
  return apply1(sliceOp, [x], {
    starts: x.shape.map((_, i) => (i === at ? from : 0)),
    steps: x.shape.map(() => 1),
    sizes: x.shape.map((size, i) => (i === at ? length : size)),
  });
}

/** The part of x at `index` along an axis, without that axis (torch.select). */
export function select(x: Tensor, axis: number, index: number): Tensor {
  const at = normalizeAxis('select', axis, x.rank);
  const dim = x.shape[at] ?? 0;
  if (!Number.isInteger(index) || index < -dim || index >= dim) {
    throw new ShapeError(
      `select: index ${index} does not lie in axis ${at} of size ${dim} (got shape ${formatShape(x.shape)}). ` +
        `Use an integer from ${-dim} to ${dim - 1}.`,
      { shape: x.shape, axis: at, index },
    );
  }
  const part = narrow(x, at, index, 1);
  return reshape(part, [...x.shape.slice(0, at), ...x.shape.slice(at + 1)]);
}

/** A view that walks `axes` backwards (torch.flip, which copies). */
export function flip(x: Tensor, axes: number | readonly number[]): Tensor {
  const list = normalizeAxes('flip', axes, x.rank);
  return apply1(sliceOp, [x], {
    starts: x.shape.map((dim, axis) => (list.includes(axis) && dim > 0 ? dim - 1 : 0)),
    steps: x.shape.map((_, axis) => (list.includes(axis) ? -1 : 1)),
    sizes: x.shape,
  });
}
