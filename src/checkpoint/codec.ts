/**
 * The forms of compressed values (docs/internals/offload.md O3), as ops that whoever uses them applies in his own way: to
 * tensors, or to values of a graph.
 */

import { type DType, bytesPerElement } from '../core/dtype.ts';
import { definite } from '../core/errors.ts';
import { type Shape, numElements } from '../core/shape.ts';
import type { Aval } from '../ir/aval.ts';
import type { SaveFormat } from '../ir/graph.ts';
import type { AnyOp, Params } from '../ir/op.ts';
import { castOp, reshapeOp } from '../ops/broadcast.ts';
import { type ByteFormat, dequantizeOp, quantizeOp } from '../ops/quantize.ts';

/** Elements that share a scale: the largest divisor of a tensor's size in this range. */
const smallestBlock = 16;
const largestBlock = 64;

/** Applies an op; one result per output. */
export type Applier<V> = (op: AnyOp, inputs: readonly V[], params: Params) => readonly V[];

/** What is kept of `x`: codes, and scales for the formats with blocks. */
export function encode<V>(
  apply: Applier<V>,
  x: V,
  { shape }: Aval,
  format: SaveFormat,
): readonly V[] {
  if (format === 'bf16') return apply(castOp, [x], { dtype: 'bfloat16' });
  const rows = apply(reshapeOp, [x], { shape: blocksOf(shape) });
  return apply(quantizeOp, rows, { format });
}

/** A value of `aval` from what `encode` kept. */
export function decode<V>(
  apply: Applier<V>,
  parts: readonly V[],
  { shape, dtype }: Aval,
  format: SaveFormat,
): V {
  const made =
    format === 'bf16'
      ? apply(castOp, parts, { dtype })
      : apply(dequantizeOp, parts, dequantizing(format, dtype));
  return definite(apply(reshapeOp, made, { shape })[0]);
}

function dequantizing(format: ByteFormat, dtype: DType): Params {
  return { format, dtype };
}

/** Bytes of the compressed form; undefined where there is none. */
export function encodedBytes({ shape, dtype }: Aval, format: SaveFormat): number | undefined {
  const size = numElements(shape);
  if (format === 'bf16') return bytesPerElement(dtype) > 2 ? 2 * size : undefined;
  const block = blockSize(size);
  return block === undefined ? undefined : size + (4 * size) / block;
}

/** Blocks as rows. */
function blocksOf(shape: Shape): Shape {
  const size = numElements(shape);
  const block = blockSize(size) ?? 1;
  return [size / block, block];
}

function blockSize(size: number): number | undefined {
  for (let block = largestBlock; block >= smallestBlock; block--) {
    if (size % block === 0) return block;
  }
  return undefined;
}
