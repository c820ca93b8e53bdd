/** Tensors for the samples of op records, and exact float64 access to those on the reference backend. */

import { isFloat } from '../../src/core/dtype.ts';
import { hostTensor } from '../../src/core/host-tensor.ts';
import { numElements } from '../../src/core/shape.ts';
import type { AnyOp, Sample, SampleInput } from '../../src/ir/op.ts';
import { contiguous, transpose } from '../../src/ops/views.ts';
import type { ReferenceBackend } from '../../src/runtime/reference/backend.ts';
import { apply } from '../../src/tensor/apply.ts';
import { noGrad } from '../../src/tensor/context.ts';
import { BufferData } from '../../src/tensor/data.ts';
import { fromHost } from '../../src/tensor/factory.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';

/** Reproducible values in [0, 1), one stream per text. */
export function stream(text: string): () => number {
  let state = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) state = Math.imul(state ^ text.charCodeAt(i), 0x01000193);
  return () => {
    // The mixing of SplitMix32.
    state = (state + 0x9e3779b9) | 0;
    let z = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return ((z ^ (z >>> 15)) >>> 0) / 2 ** 32;
  };
}

/** Values of one sample input, as its dtype holds them. */
export function sampleValues(input: SampleInput, next: () => number): Float64Array {
  const [low, high] = input.range ?? (input.dtype === 'bool' ? [0, 2] : [-1, 1]);
  return Float64Array.from({ length: numElements(input.shape) }, () => {
    const value = low + (high - low) * next();
    if (isFloat(input.dtype)) return Math.fround(value);
    return Math.floor(value);
  });
}

/** Values of all inputs of a sample. */
export function valuesOf(op: AnyOp, sample: Sample<unknown>): Float64Array[] {
  const next = stream(`${op.name} ${sample.label}`);
  return sample.inputs.map((input) => sampleValues(input, next));
}

/** A tensor of these values on the current backend. */
export function made(input: SampleInput, values: Float64Array): Tensor {
  return fromHost(hostTensor(values, input.shape, input.dtype));
}

/** The same values behind a transposed view, where there are two axes. */
export function madeTransposed(input: SampleInput, values: Float64Array): Tensor {
  const dense = made(input, values);
  return dense.rank < 2 ? dense : transpose(contiguous(transpose(dense, 0, -1)), 0, -1);
}

/** Applies an op as a user would: an in-place op works on a copy of its first input. */
export function applySample(op: AnyOp, inputs: readonly Tensor[], params: unknown): Tensor[] {
  const [first, ...rest] = inputs;
  const list = op.traits.updates && first ? [first.mul(1), ...rest] : inputs;
  return apply(op, list, params as Record<string, unknown>);
}

/** Values as the reference backend holds them, not rounded. */
export function exactValues(x: Tensor): Float64Array {
  const dense = noGrad(() => contiguous(x));
  const { data } = dense;
  if (!(data instanceof BufferData)) throw new Error('not an eager tensor');
  const backend = data.storage.backend as ReferenceBackend;
  const ref = {
    block: data.storage.block,
    byteOffset: data.layout.offset * (dense.dtype === 'float32' ? 4 : 0),
  };
  return backend.readValues(ref, dense.size, dense.dtype);
}

/** A float32 tensor on the reference backend that holds these values without rounding. */
export function exactTensor(shape: readonly number[], values: Float64Array): Tensor {
  const made = fromHost(hostTensor(values, shape, 'float32'));
  const { data } = made;
  if (!(data instanceof BufferData)) throw new Error('not an eager tensor');
  const backend = data.storage.backend as ReferenceBackend;
  backend.writeValues({ block: data.storage.block, byteOffset: 0 }, values, 'float32');
  return made;
}
