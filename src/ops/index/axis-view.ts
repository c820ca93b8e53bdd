/** A tensor seen as [outer, size, inner] around one axis, and checks of index arguments. */

import { ArgumentError, DTypeError, ShapeError } from '../../core/errors.ts';
import { type Shape, formatShape, numElements } from '../../core/shape.ts';
import { type Aval, formatAval } from '../../ir/aval.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { cast } from '../broadcast.ts';

export interface AxisView {
  readonly outer: number;
  readonly size: number;
  readonly inner: number;
}

export function axisView(shape: Shape, axis: number): AxisView {
  return {
    outer: numElements(shape.slice(0, axis)),
    size: shape[axis] ?? 1,
    inner: numElements(shape.slice(axis + 1)),
  };
}

/** `shape` with another size along `axis`. */
export function withAxis(shape: Shape, axis: number, size: number): number[] {
  return shape.map((dim, i) => (i === axis ? size : dim));
}

/** Index arguments as int32; throws DTypeError for floats and bools. */
export function asIndex(who: string, index: Tensor): Tensor {
  switch (index.dtype) {
    case 'int32':
      return index;
    case 'uint32':
    case 'int8':
      return cast(index, 'int32');
    default:
      throw new DTypeError(
        `${who}: the index must be an integer tensor (got ${formatAval(index)}). Cast it with cast(index, 'int32').`,
        { dtype: index.dtype },
      );
  }
}

/** Throws ShapeError unless `axis` is an axis of `x`. */
export function checkRank(who: string, x: Aval): void {
  if (x.shape.length > 0) return;
  throw new ShapeError(
    `${who}: a number has no axis to index (got shape ${formatShape(x.shape)}). Reshape it to [1] first.`,
  );
}

/** An index that a kernel would refuse, on the reference backend. */
export function checkedIndex(who: string, index: number, size: number): number {
  if (Number.isInteger(index) && index >= 0 && index < size) return index;
  throw new ArgumentError(
    `${who}: an index is out of range (got ${index} for an axis of size ${size}). Use indices from 0 to ${size - 1}.`,
    { index, size },
  );
}
