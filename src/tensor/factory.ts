/** Tensors from host values, and host values from tensors. */

import { type DType, bytesPerElement } from '../core/dtype.ts';
import { ArgumentError, ShapeError } from '../core/errors.ts';
import { type HostTensor, type NumberArray, hostTensor, hostValues } from '../core/host-tensor.ts';
import type { Shape } from '../core/shape.ts';
import { formatShape } from '../core/shape.ts';
import type { MemoryCategory } from '../runtime/allocator.ts';
import { currentMode } from './mode.ts';
import { Tensor } from './tensor.ts';

export type NestedNumbers = number | boolean | readonly NestedNumbers[];

export interface TensorOptions {
  readonly dtype?: DType;
  readonly shape?: Shape;
  readonly requiresGrad?: boolean;
  /** What statistics count it as; default 'input'. */
  readonly category?: MemoryCategory;
}

/**
 * A tensor from numbers (torch.tensor): a number, nested arrays, or a typed array with `shape`.
 * dtype defaults to the typed array's, else float32. Throws ShapeError for ragged arrays.
 */
export function tensor(values: NestedNumbers | NumberArray, options: TensorOptions = {}): Tensor {
  const flat = ArrayBuffer.isView(values)
    ? { values: values as NumberArray, shape: [(values as Float32Array).length] }
    : flatten(values as NestedNumbers);
  const dtype = options.dtype ?? dtypeOf(values);
  const host = hostTensor(flat.values, options.shape ?? flat.shape, dtype);
  const made = fromHost(host, options.category);
  if (options.requiresGrad) made.requiresGrad = true;
  return made;
}

/** A tensor of a host tensor's bytes. */
export function fromHost(host: HostTensor, category: MemoryCategory = 'input'): Tensor {
  const expected = host.shape.reduce((a, b) => a * b, 1) * bytesPerElement(host.dtype);
  if (host.data.byteLength !== expected) {
    throw new ShapeError(
      `fromHost: ${host.dtype}${formatShape(host.shape)} needs ${expected} bytes (got ${host.data.byteLength}). ` +
        'Give exactly the bytes of the tensor.',
    );
  }
  return new Tensor(currentMode().fromHost(host, category), host.shape, host.dtype);
}

/** Copies a tensor to the host; waits for the device. Inside a compiled step this is a CompileError. */
export function toHost(x: Tensor): HostTensor {
  return { dtype: x.dtype, shape: x.shape, data: currentMode().toHost(x) };
}

export async function toHostAsync(x: Tensor): Promise<HostTensor> {
  const data = await currentMode().toHostAsync(x);
  return { dtype: x.dtype, shape: x.shape, data };
}

/** The elements in row-major order. */
export function toArray(x: Tensor): Float64Array {
  return hostValues(toHost(x));
}

/** The value of a one-element tensor (torch.Tensor.item). Throws ArgumentError for any other size. */
export function item(x: Tensor): number {
  if (x.size !== 1) {
    throw new ArgumentError(
      `item: only a tensor of one element has a value (got ${x.describe()}). Use toArray().`,
    );
  }
  return toArray(x)[0] ?? Number.NaN;
}

function flatten(values: NestedNumbers): { values: number[]; shape: number[] } {
  const shape: number[] = [];
  for (let level = values; Array.isArray(level); level = level[0] as NestedNumbers) {
    shape.push(level.length);
    if (level.length === 0) break;
  }
  const out: number[] = [];
  const walk = (level: NestedNumbers, axis: number): void => {
    if (!Array.isArray(level)) {
      if (axis !== shape.length) raggedError(shape, axis);
      out.push(Number(level));
      return;
    }
    if (axis >= shape.length || level.length !== shape[axis]) raggedError(shape, axis);
    for (const part of level) walk(part, axis + 1);
  };
  walk(values, 0);
  return { values: out, shape };
}

function raggedError(shape: Shape, axis: number): never {
  throw new ShapeError(
    `tensor: nested arrays have unequal lengths at axis ${axis} (got a first branch of shape ${formatShape(shape)}). ` +
      'Make every array of one level equally long.',
  );
}

function dtypeOf(values: NestedNumbers | NumberArray): DType {
  if (values instanceof Int32Array) return 'int32';
  if (values instanceof Uint32Array) return 'uint32';
  if (values instanceof Int8Array) return 'int8';
  if (values instanceof Uint8Array) return 'int32';
  let first: unknown = values;
  while (Array.isArray(first)) first = first[0];
  return typeof first === 'boolean' ? 'bool' : 'float32';
}
