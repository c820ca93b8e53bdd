/**
 * Splitting a reduction over everything into two, so that threads (which share kept points only) have
 * work: first to a few hundred partial results, then to one. The split depends on the shape alone.
 */

import { type Shape, numElements } from '../core/shape.ts';

/** A view of the input that splits no stride, and the axes of it that the first stage reduces. */
export interface Stage {
  readonly view: Shape;
  readonly reduced: readonly number[];
}

const worthSplitting = 1 << 16;
const minPartials = 64;
const maxPartials = 4096;

/** The first of two stages of a reduction of `shape` over `axes`; undefined when one is right. */
export function firstStage(shape: Shape, axes: readonly number[]): Stage | undefined {
  const total = numElements(shape);
  if (axes.length < shape.length || total < worthSplitting) return undefined;
  let kept = 1;
  for (let axis = 0; axis < shape.length; axis++) {
    const dim = shape[axis] ?? 1;
    if (kept * dim > maxPartials) {
      const part = divisorNear(dim, kept);
      if (kept * part < minPartials) return undefined;
      const view = [...shape.slice(0, axis), part, dim / part, ...shape.slice(axis + 1)];
      return { view, reduced: range(axis + 1, view.length) };
    }
    kept *= dim;
    if (kept >= minPartials) return { view: shape, reduced: range(axis + 1, shape.length) };
  }
  return undefined;
}

/** The divisor of `dim` that brings the number of partial results nearest to minPartials from above. */
function divisorNear(dim: number, kept: number): number {
  const from = Math.ceil(minPartials / kept);
  for (let part = from; part * kept <= maxPartials && part < dim; part++) {
    if (dim % part === 0) return part;
  }
  return 1;
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, i) => from + i);
}
