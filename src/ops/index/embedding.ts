/** Rows of an embedding table. */

import { ShapeError } from '../../core/errors.ts';
import { formatShape } from '../../core/shape.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { reshape } from '../broadcast.ts';
import { indexSelect } from './index-select.ts';

/**
 * weight [rows, width], indices of any integer shape: their rows, [...indices.shape, width]
 * (torch.nn.functional.embedding). The gradient of the weight is dense and deterministic. An index out of
 * range fails when the kernel runs. Throws ShapeError, DTypeError.
 */
export function embedding(weight: Tensor, indices: Tensor): Tensor {
  if (weight.rank !== 2) {
    throw new ShapeError(
      `embedding: the weight must be [rows, width] (got ${formatShape(weight.shape)}). Reshape it to a matrix.`,
      { weight: weight.shape },
    );
  }
  const rows = indexSelect(weight, 0, reshape(indices, [indices.size]));
  return reshape(rows, [...indices.shape, weight.shape[1] ?? 0]);
}
