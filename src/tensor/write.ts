/** Writing host values into an existing tensor: loading weights, this step's learning rate. */

import { CompileError, ShapeError } from '../core/errors.ts';
import type { HostTensor } from '../core/host-tensor.ts';
import { bytesPerElement } from '../core/dtype.ts';
import { formatShape, isContiguous, sameShape } from '../core/shape.ts';
import { BufferData } from './data.ts';
import { currentMode } from './mode.ts';
import type { Tensor } from './tensor.ts';

/**
 * Overwrites `target` with `source`; both have one shape and dtype, and `target` is dense. Throws
 * ShapeError otherwise. Counts as an in-place change. Throws CompileError inside a compiled step, where only what
 * `Mode.onEachRun` is given can write.
 */
export function writeTensor(target: Tensor, source: HostTensor): void {
  if (!sameShape(target.shape, source.shape) || target.dtype !== source.dtype) {
    throw new ShapeError(
      `writeTensor: ${target.describe()} cannot take ${source.dtype}${formatShape(source.shape)}. ` +
        "Convert the values to the tensor's shape and dtype first.",
      { target: target.aval, source: { shape: source.shape, dtype: source.dtype } },
    );
  }
  const { data } = target;
  if (data.kind === 'traced' || currentMode().tracing) {
    throw new CompileError(
      `writeTensor: host values were written into a tensor inside a compiled step (got ${target.describe()}). ` +
        'A run does not repeat that: write before the step, or pass the values as an argument and use copyInPlace.',
    );
  }
  if (!(data instanceof BufferData) || !isContiguous(target.shape, data.layout.strides)) {
    throw new ShapeError(
      `writeTensor: ${target.describe()} is not a dense tensor in memory. Write to its base tensor instead.`,
    );
  }
  const byteOffset = data.layout.offset * bytesPerElement(target.dtype);
  data.storage.backend.write({ block: data.storage.block, byteOffset }, source.data, source.dtype);
  data.bumpVersion();
}
