/** Joining tensors: concat, stack, pad. */

import { bytesPerElement } from '../../core/dtype.ts';
import { ArgumentError, DTypeError, ShapeError } from '../../core/errors.ts';
import { formatShape, normalizeAxis } from '../../core/shape.ts';
import { type Aval, formatAval } from '../../ir/aval.ts';
import type { Op } from '../../ir/op.ts';
import { apply1 } from '../../tensor/apply.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { full } from '../creation.ts';
import { floats, present, routineOp } from '../define.ts';
import { narrow } from '../slice.ts';
import { unsqueeze } from '../views.ts';
import { axisView, withAxis } from './axis-view.ts';
import type { AxisParams } from './index-select.ts';
import { concatRows } from './kernels/concat.ts';

/** Operands that one launch may take beside its output. */
const mostOperands = 1000;

export const concatOp: Op<Tensor, AxisParams> = routineOp<AxisParams, readonly ['...x'], never>({
  name: 'concat',
  args: ['...x'],
  traits: { class: 'index', remat: 'cheap' },
  infer: (inputs, { axis }) => {
    const first = present(inputs[0]);
    inputs.forEach((x, i) => {
      checkJoin(first, x, i, axis);
    });
    const size = inputs.reduce((total, x) => total + (x.shape[axis] ?? 0), 0);
    return [{ shape: withAxis(first.shape, axis, size), dtype: first.dtype }];
  },
  flops: () => 0,
  saves: [],
  vjp: ([g], { params: { axis }, inputs, needs }) => {
    let start = 0;
    return inputs.map((x, i) => {
      const length = x.shape[axis] ?? 0;
      const from = start;
      start += length;
      return g && needs(i) ? narrow(g, axis, from, length) : undefined;
    });
  },
  routine: {
    wasm: (inputs, _, { axis }, target) => {
      const first = present(inputs[0]).aval;
      const bytes = bytesPerElement(first.dtype);
      const widths = inputs.map(({ aval }) => {
        const { size, inner } = axisView(aval.shape, axis);
        return size * inner * bytes;
      });
      return concatRows(axisView(first.shape, axis).outer, widths, target);
    },
    wgsl: { none: 'the kernel is written for processors' },
    reference: (inputs, [out], avals, { axis }) => {
      const result = present(out);
      const rows = avals.inputs.map(({ shape }) => {
        const { outer, size, inner } = axisView(shape, axis);
        return { outer, width: size * inner };
      });
      const total = rows.reduce((sum, { width }) => sum + width, 0);
      let offset = 0;
      inputs.forEach((x, i) => {
        const { outer, width } = present(rows[i]);
        for (let o = 0; o < outer; o++) {
          result.set(x.subarray(o * width, (o + 1) * width), o * total + offset);
        }
        offset += width;
      });
    },
  },
  samples: [
    {
      label: 'last',
      inputs: [floats([2, 3]), floats([2, 1]), floats([2, 4])],
      params: { axis: 1 },
    },
    { label: 'first', inputs: [floats([1, 3]), floats([4, 3])], params: { axis: 0 } },
    { label: 'middle', inputs: [floats([2, 2, 3]), floats([2, 5, 3])], params: { axis: 1 } },
  ],
});

/**
 * The tensors one after another along `axis` (torch.cat); other axes and the dtype must be equal. Throws
 * ArgumentError for an empty list, ShapeError, DTypeError.
 */
export function concat(tensors: readonly Tensor[], axis = 0): Tensor {
  const first = tensors[0];
  if (!first) {
    throw new ArgumentError(
      'concat: there is nothing to join (got an empty list). Give at least one tensor.',
    );
  }
  if (first.rank === 0) {
    throw new ShapeError(
      `concat: numbers have no axis to join along (got shape ${formatShape(first.shape)}). Use stack.`,
    );
  }
  const along = normalizeAxis('concat', axis, first.rank);
  if (tensors.length <= mostOperands) return apply1(concatOp, tensors, { axis: along });
  const parts: Tensor[] = [];
  for (let i = 0; i < tensors.length; i += mostOperands) {
    parts.push(concat(tensors.slice(i, i + mostOperands), along));
  }
  return concat(parts, along);
}

/** The tensors side by side along a new axis (torch.stack). Throws as concat does. */
export function stack(tensors: readonly Tensor[], axis = 0): Tensor {
  const rank = (tensors[0]?.rank ?? 0) + 1;
  const along = normalizeAxis('stack', axis, rank);
  return concat(
    tensors.map((x) => unsqueeze(x, along)),
    along,
  );
}

/**
 * `x` with `value` around it: `widths[axis]` = [before, after] for the leading axes that are padded
 * (numpy.pad, torch.nn.functional.pad with mode constant). Throws ArgumentError for negative widths.
 */
export function pad(
  x: Tensor,
  widths: readonly (readonly [before: number, after: number])[],
  value = 0,
): Tensor {
  const legal =
    widths.length <= x.rank &&
    widths.flat().every((width) => Number.isInteger(width) && width >= 0);
  if (!legal) {
    throw new ArgumentError(
      `pad: widths are pairs of integers from 0 up, at most one per axis (got ${JSON.stringify(widths)} for shape ` +
        `${formatShape(x.shape)}). Use slice to cut.`,
      { widths },
    );
  }
  let padded = x;
  widths.forEach(([before, after], axis) => {
    const border = (size: number): Tensor[] =>
      size === 0 ? [] : [full(withAxis(padded.shape, axis, size), value, { dtype: x.dtype })];
    if (before + after > 0) padded = concat([...border(before), padded, ...border(after)], axis);
  });
  return padded;
}

function checkJoin(first: Aval, x: Aval, i: number, axis: number): void {
  if (x.dtype !== first.dtype) {
    throw new DTypeError(
      `concat: all tensors must have one dtype (got ${formatAval(first)} first and ${formatAval(x)} at ${i}). Cast them.`,
    );
  }
  const same =
    x.shape.length === first.shape.length &&
    x.shape.every((dim, at) => at === axis || dim === first.shape[at]);
  if (same) return;
  throw new ShapeError(
    `concat: sizes may differ along axis ${axis} only (got ${formatShape(first.shape)} first and ` +
      `${formatShape(x.shape)} at ${i}). Slice or reshape them.`,
    { first: first.shape, other: x.shape, axis },
  );
}
