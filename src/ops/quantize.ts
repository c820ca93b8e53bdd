/**
 * Floats in one byte each, with one float32 scale per block (a row of the operand): how activations are
 * kept compressed. `int8` has 255 equal steps over the block's range; `fp8` is e4m3 of the Open Compute
 * Project (4 exponent and 3 mantissa bits, largest 448, no infinities), scaled so that the block's
 * largest value becomes 448. Its bits are stored in int8, for there is no dtype for it. Rounding is to
 * nearest, ties to even. A block with an infinity or NaN comes back as NaN; one whose largest magnitude
 * is below 2^-116 comes back as zeros.
 */

import type { DType } from '../core/dtype.ts';
import { ShapeError } from '../core/errors.ts';
import { formatShape, numElements } from '../core/shape.ts';
import type { Aval } from '../ir/aval.ts';
import { type Expr, e } from '../ir/expr.ts';
import type { Op } from '../ir/op.ts';
import { apply, apply1 } from '../tensor/apply.ts';
import type { Tensor } from '../tensor/tensor.ts';
import {
  arithmeticCost,
  defineOp,
  flopsOf,
  floats,
  inputExpr,
  ownAxes,
  present,
  requireFloat,
  storedAs,
} from './define.ts';

export type ByteFormat = 'int8' | 'fp8';

type QuantizeParams = { readonly format: ByteFormat };

/** The value that a block's largest magnitude is scaled to. */
const largest: Readonly<Record<ByteFormat, number>> = { int8: 127, fp8: 448 };

const smallestBlock = 2 ** -116;

/** x [R, C] -> codes int8 [R, C], scales float32 [R]. */
export const quantizeOp: Op<Tensor, QuantizeParams> = defineOp({
  name: 'quantize',
  args: ['x'],
  traits: { class: 'reduction', remat: 'cheap' },
  infer: ([input]) => {
    const x = present(input);
    requireFloat('quantize', x);
    requireBlocks('quantize', x);
    return [
      { shape: x.shape, dtype: 'int8' },
      { shape: [x.shape[0] ?? 0], dtype: 'float32' },
    ];
  },
  cost: (inputs, outputs, params) => {
    const x = present(inputs[0]);
    const work = flopsOf(encoded(inputExpr(0, x), params.format)) * numElements(x.shape);
    return arithmeticCost(inputs, outputs, work);
  },
  saves: [],
  vjp: 'nondifferentiable',
  lower: {
    kind: 'kernel',
    template: ([x], _, { format }: QuantizeParams) => {
      const { shape } = present(x);
      const [codes, scale] = encoded(inputExpr(0, present(x)), format);
      return {
        space: shape,
        reduced: [1],
        inputs: [{ operand: 0, axes: ownAxes(shape) }],
        outputs: [
          { axes: ownAxes(shape), expr: codes },
          { axes: [0, -1], expr: scale },
        ],
      };
    },
  },
  samples: [
    { label: 'int8', inputs: [floats([3, 32])], params: { format: 'int8' } },
    { label: 'fp8', inputs: [floats([3, 32])], params: { format: 'fp8' } },
    { label: 'oddBlocks', inputs: [floats([5, 19], [-1e4, 1e4])], params: { format: 'fp8' } },
  ],
});

type DequantizeParams = { readonly format: ByteFormat; readonly dtype: DType };

/** codes int8 [R, C], scales float32 [R] -> [R, C] of `dtype`. */
export const dequantizeOp: Op<Tensor, DequantizeParams> = defineOp({
  name: 'dequantize',
  args: ['codes', 'scales'],
  traits: { class: 'elementwise', remat: 'cheap' },
  infer: ([codes], { dtype }: DequantizeParams) => {
    requireBlocks('dequantize', present(codes));
    return [{ shape: present(codes).shape, dtype }];
  },
  cost: (inputs, outputs, { format }) => {
    const work = flopsOf([decoded(e.input(0, 'i32'), e.input(1), format)]);
    return arithmeticCost(inputs, outputs, work * numElements(present(inputs[0]).shape));
  },
  saves: [],
  vjp: 'nondifferentiable',
  lower: {
    kind: 'kernel',
    template: ([codes], [out], { format }: DequantizeParams) => {
      const { shape } = present(codes);
      const value = decoded(e.input(0, 'i32'), e.input(1), format);
      return {
        space: shape,
        reduced: [],
        inputs: [
          { operand: 0, axes: ownAxes(shape) },
          { operand: 1, axes: [0, -1] },
        ],
        outputs: [{ axes: ownAxes(shape), expr: storedAs(value, present(out)) }],
      };
    },
  },
  samples: (['int8', 'fp8'] as const).map((format) => ({
    label: format,
    inputs: [
      { shape: [3, 19], dtype: 'int8' as const, range: [-126, 127] as const },
      floats([3], [0.1, 2]),
    ],
    params: { format, dtype: 'float32' as const },
  })),
});

/** Bytes and scales of x [R, C], whose rows are blocks. Throws ShapeError and DTypeError. */
export function quantize(
  x: Tensor,
  format: ByteFormat,
): { readonly codes: Tensor; readonly scales: Tensor } {
  const [codes, scales] = apply(quantizeOp, [x], { format });
  return { codes: present(codes), scales: present(scales) };
}

/** The values that `quantize` stored, as `dtype`. */
export function dequantize(
  codes: Tensor,
  scales: Tensor,
  format: ByteFormat,
  dtype: DType = 'float32',
): Tensor {
  return apply1(dequantizeOp, [codes, scales], { format, dtype });
}

function requireBlocks(who: string, { shape }: Aval): void {
  if (shape.length === 2 && shape[1] !== 0) return;
  throw new ShapeError(
    `${who}: the operand must be a matrix whose rows are blocks (got ${formatShape(shape)}). Reshape it.`,
    { shape },
  );
}

/** Code and scale of an element. */
function encoded(x: Expr, format: ByteFormat): [codes: Expr, scale: Expr] {
  const top = e.reduce('max', e.unary('abs', x));
  const usable = e.binary('ge', top, e.f32(smallestBlock));
  const limit = e.f32(largest[format]);
  const factor = e.select(usable, e.div(limit, top), e.f32(0));
  // Not a plain zero for unusable blocks: NaN must stay NaN.
  const scale = e.select(usable, e.div(top, limit), e.mul(top, e.f32(0)));
  const scaled = e.mul(x, factor);
  const codes = format === 'int8' ? e.cast(e.unary('round', scaled), 'i32') : fp8Bits(scaled);
  return [codes, scale];
}

/**
 * e4m3 bits of |y| <= 448. With E the exponent field of the result, at least 1 for normal values, the
 * mantissa counts steps of 2^(E - 10); E * 8 + mantissa are the bits, and rounding up to the next power
 * of two carries into E by itself.
 */
function fp8Bits(y: Expr): Expr {
  const size = e.unary('abs', y);
  // floor(log2(size)) + 6 by halving, at least 0: what lies below 2^-6 is subnormal.
  let rest = e.binary('max', e.mul(size, e.f32(2 ** 6)), e.f32(1));
  let exponent = e.f32(0);
  let unit = e.f32(1);
  for (const step of [8, 4, 2, 1]) {
    const above = e.binary('ge', rest, e.f32(2 ** step));
    rest = e.select(above, e.mul(rest, e.f32(2 ** -step)), rest);
    exponent = e.select(above, e.add(exponent, e.f32(step)), exponent);
    unit = e.select(above, e.mul(unit, e.f32(2 ** -step)), unit);
  }
  const steps = e.unary('round', e.mul(e.mul(size, e.f32(2 ** 9)), unit));
  const bits = e.cast(e.add(e.mul(exponent, e.f32(8)), steps), 'i32');
  return e.binary('or', bits, e.select(e.binary('lt', y, e.f32(0)), e.i32(128), e.i32(0)));
}

function decoded(code: Expr, scale: Expr, format: ByteFormat): Expr {
  const value = format === 'int8' ? e.cast(code, 'f32') : fp8Value(code);
  return e.mul(value, scale);
}

function fp8Value(code: Expr): Expr {
  const field = e.binary('and', e.binary('shr', code, e.i32(3)), e.i32(15));
  const normal = e.binary('gt', field, e.i32(0));
  const low = e.binary('and', code, e.i32(7));
  const mantissa = e.select(normal, e.add(low, e.i32(8)), low);
  const power = e.binary('shl', e.i32(1), e.select(normal, field, e.i32(1)));
  const size = e.mul(e.cast(e.binary('mul', mantissa, power), 'f32'), e.f32(2 ** -10));
  return e.select(e.binary('lt', code, e.i32(0)), e.unary('neg', size), size);
}
