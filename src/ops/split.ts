/**
 * Cutting an axis into parts. The parts are views; backward joins their gradients with one concat, where
 * the gradient of a lone slice would be a tensor of zeros for each part.
 */

import { ArgumentError, ShapeError } from '../core/errors.ts';
import { formatShape, normalizeAxis } from '../core/shape.ts';
import { attachBackward } from '../tensor/apply.ts';
import { noGrad } from '../tensor/context.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { reshape } from './broadcast.ts';
import { zeros } from './creation.ts';
import { concat } from './index/concat.ts';
import { narrow } from './slice.ts';

/**
 * Consecutive parts along an axis (torch.split): of the given sizes, which must add up, or of one size
 * with a smaller last part. Views.
 */
export function split(x: Tensor, sizes: number | readonly number[], axis = 0): Tensor[] {
  const at = normalizeAxis('split', axis, x.rank);
  const dim = x.shape[at] ?? 0;
  const list = typeof sizes === 'number' ? equalParts(dim, sizes) : sizes;
  const total = list.reduce((a, b) => a + b, 0);
  if (total !== dim || !list.every((size) => Number.isInteger(size) && size >= 0)) {
    throw new ShapeError(
      `split: the sizes must add up to axis ${at} (got [${list.join(', ')}] for shape ${formatShape(x.shape)}). ` +
        `Make their sum ${dim}.`,
      { shape: x.shape, axis: at, sizes: list },
    );
  }
  let start = 0;
  const parts = noGrad(() =>
    list.map((size) => {
      const part = narrow(x, at, start, size);
      start += size;
      return part;
    }),
  );
  const avals = parts.map((part) => part.aval);
  const backward = (cotangents: readonly (Tensor | undefined)[]): Tensor[] => {
    const whole = avals.map(({ shape, dtype }, i) => cotangents[i] ?? zeros(shape, { dtype }));
    return [concat(whole, at)];
  };
  attachBackward({ name: 'split', backward }, [x], parts, []);
  return parts;
}

/** `count` parts along an axis, equal but for a smaller last (torch.chunk). Views. */
export function chunk(x: Tensor, count: number, axis = 0): Tensor[] {
  const dim = x.shape[normalizeAxis('chunk', axis, x.rank)] ?? 0;
  if (!Number.isInteger(count) || count < 1) {
    throw new ArgumentError(
      `chunk: the count must be a positive integer (got ${count}). Give the number of parts.`,
    );
  }
  return split(x, Math.max(1, Math.ceil(dim / count)), axis);
}

/** The parts along an axis, without that axis (torch.unbind). Views. */
export function unbind(x: Tensor, axis = 0): Tensor[] {
  const at = normalizeAxis('unbind', axis, x.rank);
  if (x.shape[at] === 0) return [];
  const rest = x.shape.filter((_, i) => i !== at);
  return split(x, 1, at).map((part) => reshape(part, rest));
}

function equalParts(dim: number, size: number): number[] {
  if (!Number.isInteger(size) || size < 1) {
    throw new ArgumentError(
      `split: the size must be a positive integer (got ${size}). Give the size of a part.`,
    );
  }
  const parts: number[] = [];
  for (let start = 0; start < dim; start += size) parts.push(Math.min(size, dim - start));
  return parts.length > 0 ? parts : [0];
}
