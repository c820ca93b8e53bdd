/** The abstract value of a tensor: what is known of it without running anything. */

import { type DType, bytesPerElement } from '../core/dtype.ts';
import { type Shape, formatShape, numElements, sameShape } from '../core/shape.ts';

export interface Aval {
  readonly shape: Shape;
  readonly dtype: DType;
}

export function aval(shape: Shape, dtype: DType): Aval {
  return { shape, dtype };
}

/** Bytes of a dense tensor of this aval. */
export function avalBytes(value: Aval): number {
  return numElements(value.shape) * bytesPerElement(value.dtype);
}

export function sameAval(a: Aval, b: Aval): boolean {
  return a.dtype === b.dtype && sameShape(a.shape, b.shape);
}

export function formatAval(value: Aval): string {
  return `${value.dtype}${formatShape(value.shape)}`;
}
