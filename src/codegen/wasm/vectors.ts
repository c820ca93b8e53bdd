/**
 * 128-bit vector expressions, one class per lane shape. The classes share one machine type:
 * `as(Class)` reads the same bits as another shape at no cost. A plain number as operand stands for
 * a vector with that constant in every lane. Comparisons give masks: all bits set or none, per lane.
 */

import type { Code } from './encoding.ts';
import { f32Bytes, f64Bytes, i32Bytes } from './encoding.ts';
import { F32, F64, I32, I64 } from './scalars.ts';
import * as opcodes from './simd-opcodes.ts';
import { simd, vector } from './simd-opcodes.ts';
import { FloatVector, IntegerVector, NarrowVector } from './vector-bases.ts';

/** Sixteen 8-bit integers. */
export class I8x16 extends NarrowVector<I8x16> {
  readonly kind = 'i8x16';
  protected readonly ops = opcodes.i8x16;
  static of(value: I8x16 | number): I8x16 {
    return typeof value === 'number' ? new I8x16(constant(repeat([value & 255], 16))) : value;
  }
  static splat(value: I32 | number): I8x16 {
    return new I8x16([I32.of(value).code, simd(opcodes.i8x16.splat)]);
  }
  static constant(bytes: readonly number[]): I8x16 {
    return new I8x16(constant(bytes.map((byte) => byte & 255)));
  }
  /** 16-bit lanes of `low` then `high`, saturated to signed 8 bits. */
  static narrowS(low: I16x8, high: I16x8): I8x16 {
    return new I8x16([low.code, high.code, simd(opcodes.i8x16.narrowI16x8S)]);
  }
  static narrowU(low: I16x8, high: I16x8): I8x16 {
    return new I8x16([low.code, high.code, simd(opcodes.i8x16.narrowI16x8U)]);
  }
  protected literal(value: number): Code {
    return I8x16.of(value).code;
  }
  protected same(code: Code): I8x16 {
    return new I8x16(code);
  }
  laneS(lane: number): I32 {
    return new I32([this.code, simd(opcodes.i8x16.extractS), lane]);
  }
  laneU(lane: number): I32 {
    return new I32([this.code, simd(opcodes.i8x16.extractU), lane]);
  }
  withLane(lane: number, value: I32 | number): I8x16 {
    return new I8x16([this.code, I32.of(value).code, simd(opcodes.i8x16.replace), lane]);
  }
  /** Byte i of the result is byte `indices[i]` of this vector, 0 where the index is above 15. */
  swizzle(indices: I8x16): I8x16 {
    return new I8x16([this.code, indices.code, simd(vector.swizzle)]);
  }
  popcnt(): I8x16 {
    return this.unary(opcodes.i8x16.popcnt);
  }
  addSatS(other: I8x16 | number): I8x16 {
    return this.binary(opcodes.i8x16.addSatS, other);
  }
  subSatS(other: I8x16 | number): I8x16 {
    return this.binary(opcodes.i8x16.subSatS, other);
  }
}

/** Eight 16-bit integers. */
export class I16x8 extends NarrowVector<I16x8> {
  readonly kind = 'i16x8';
  protected readonly ops = opcodes.i16x8;
  static of(value: I16x8 | number): I16x8 {
    return typeof value === 'number'
      ? new I16x8(constant(repeat([value & 255, (value >> 8) & 255], 8)))
      : value;
  }
  static splat(value: I32 | number): I16x8 {
    return new I16x8([I32.of(value).code, simd(opcodes.i16x8.splat)]);
  }
  /** 32-bit lanes of `low` then `high`, saturated to signed 16 bits. */
  static narrowS(low: I32x4, high: I32x4): I16x8 {
    return new I16x8([low.code, high.code, simd(opcodes.i16x8.narrowI32x4S)]);
  }
  static narrowU(low: I32x4, high: I32x4): I16x8 {
    return new I16x8([low.code, high.code, simd(opcodes.i16x8.narrowI32x4U)]);
  }
  static extendLowS(value: I8x16): I16x8 {
    return new I16x8([value.code, simd(opcodes.i16x8.extendLowS)]);
  }
  static extendHighS(value: I8x16): I16x8 {
    return new I16x8([value.code, simd(opcodes.i16x8.extendHighS)]);
  }
  static extendLowU(value: I8x16): I16x8 {
    return new I16x8([value.code, simd(opcodes.i16x8.extendLowU)]);
  }
  static extendHighU(value: I8x16): I16x8 {
    return new I16x8([value.code, simd(opcodes.i16x8.extendHighU)]);
  }
  /** Products of the low (or high) halves, in double width. */
  static extmulLowS(a: I8x16, b: I8x16): I16x8 {
    return new I16x8([a.code, b.code, simd(opcodes.i16x8.extmulLowS)]);
  }
  static extmulHighS(a: I8x16, b: I8x16): I16x8 {
    return new I16x8([a.code, b.code, simd(opcodes.i16x8.extmulHighS)]);
  }
  protected literal(value: number): Code {
    return I16x8.of(value).code;
  }
  protected same(code: Code): I16x8 {
    return new I16x8(code);
  }
  mul(other: I16x8 | number): I16x8 {
    return this.binary(opcodes.i16x8.mul, other);
  }
  laneS(lane: number): I32 {
    return new I32([this.code, simd(opcodes.i16x8.extractS), lane]);
  }
  laneU(lane: number): I32 {
    return new I32([this.code, simd(opcodes.i16x8.extractU), lane]);
  }
  withLane(lane: number, value: I32 | number): I16x8 {
    return new I16x8([this.code, I32.of(value).code, simd(opcodes.i16x8.replace), lane]);
  }
}

/** Four 32-bit integers. */
export class I32x4 extends NarrowVector<I32x4> {
  readonly kind = 'i32x4';
  protected readonly ops = opcodes.i32x4;
  static of(value: I32x4 | number): I32x4 {
    return typeof value === 'number' ? new I32x4(constant(repeat(i32Bytes(value), 4))) : value;
  }
  static splat(value: I32 | number): I32x4 {
    if (typeof value === 'number') return I32x4.of(value);
    return new I32x4([value.code, simd(opcodes.i32x4.splat)]);
  }
  static constant(lanes: readonly [number, number, number, number]): I32x4 {
    return new I32x4(constant(lanes.flatMap(i32Bytes)));
  }
  /** Truncates; saturates outside the range, NaN becomes 0. */
  static truncS(value: F32x4): I32x4 {
    return new I32x4([value.code, simd(opcodes.i32x4.truncSatF32x4S)]);
  }
  static truncU(value: F32x4): I32x4 {
    return new I32x4([value.code, simd(opcodes.i32x4.truncSatF32x4U)]);
  }
  /** Two lanes truncated, the upper two zero. */
  static truncF64x2S(value: F64x2): I32x4 {
    return new I32x4([value.code, simd(opcodes.i32x4.truncSatF64x2SZero)]);
  }
  static truncF64x2U(value: F64x2): I32x4 {
    return new I32x4([value.code, simd(opcodes.i32x4.truncSatF64x2UZero)]);
  }
  static extendLowS(value: I16x8): I32x4 {
    return new I32x4([value.code, simd(opcodes.i32x4.extendLowS)]);
  }
  static extendHighS(value: I16x8): I32x4 {
    return new I32x4([value.code, simd(opcodes.i32x4.extendHighS)]);
  }
  static extendLowU(value: I16x8): I32x4 {
    return new I32x4([value.code, simd(opcodes.i32x4.extendLowU)]);
  }
  static extendHighU(value: I16x8): I32x4 {
    return new I32x4([value.code, simd(opcodes.i32x4.extendHighU)]);
  }
  static extmulLowS(a: I16x8, b: I16x8): I32x4 {
    return new I32x4([a.code, b.code, simd(opcodes.i32x4.extmulLowS)]);
  }
  static extmulHighS(a: I16x8, b: I16x8): I32x4 {
    return new I32x4([a.code, b.code, simd(opcodes.i32x4.extmulHighS)]);
  }
  static dotS(a: I16x8, b: I16x8): I32x4 {
    return new I32x4([a.code, b.code, simd(opcodes.i32x4.dotI16x8S)]);
  }
  protected literal(value: number): Code {
    return I32x4.of(value).code;
  }
  protected same(code: Code): I32x4 {
    return new I32x4(code);
  }
  mul(other: I32x4 | number): I32x4 {
    return this.binary(opcodes.i32x4.mul, other);
  }
  lane(lane: number): I32 {
    return new I32([this.code, simd(opcodes.i32x4.extract), lane]);
  }
  withLane(lane: number, value: I32 | number): I32x4 {
    return new I32x4([this.code, I32.of(value).code, simd(opcodes.i32x4.replace), lane]);
  }
}

/** Two 64-bit integers. */
export class I64x2 extends IntegerVector<I64x2> {
  readonly kind = 'i64x2';
  protected readonly ops = opcodes.i64x2;
  static of(value: I64x2 | number): I64x2 {
    if (typeof value !== 'number') return value;
    const bytes = [...new Uint8Array(new BigInt64Array([BigInt(value)]).buffer)];
    return new I64x2(constant(repeat(bytes, 2)));
  }
  static splat(value: I64 | number): I64x2 {
    return new I64x2([I64.of(value).code, simd(opcodes.i64x2.splat)]);
  }
  static extendLowU(value: I32x4): I64x2 {
    return new I64x2([value.code, simd(opcodes.i64x2.extendLowU)]);
  }
  static extendHighU(value: I32x4): I64x2 {
    return new I64x2([value.code, simd(opcodes.i64x2.extendHighU)]);
  }
  /** Full 64-bit products of the low (or high) two unsigned 32-bit lanes. */
  static extmulLowU(a: I32x4, b: I32x4): I64x2 {
    return new I64x2([a.code, b.code, simd(opcodes.i64x2.extmulLowU)]);
  }
  static extmulHighU(a: I32x4, b: I32x4): I64x2 {
    return new I64x2([a.code, b.code, simd(opcodes.i64x2.extmulHighU)]);
  }
  static extmulLowS(a: I32x4, b: I32x4): I64x2 {
    return new I64x2([a.code, b.code, simd(opcodes.i64x2.extmulLowS)]);
  }
  static extmulHighS(a: I32x4, b: I32x4): I64x2 {
    return new I64x2([a.code, b.code, simd(opcodes.i64x2.extmulHighS)]);
  }
  protected literal(value: number): Code {
    return I64x2.of(value).code;
  }
  protected same(code: Code): I64x2 {
    return new I64x2(code);
  }
  mul(other: I64x2 | number): I64x2 {
    return this.binary(opcodes.i64x2.mul, other);
  }
  lane(lane: number): I64 {
    return new I64([this.code, simd(opcodes.i64x2.extract), lane]);
  }
  withLane(lane: number, value: I64 | number): I64x2 {
    return new I64x2([this.code, I64.of(value).code, simd(opcodes.i64x2.replace), lane]);
  }
}

/** Four float32. */
export class F32x4 extends FloatVector<F32x4, I32x4> {
  readonly kind = 'f32x4';
  protected readonly ops = opcodes.f32x4;
  static of(value: F32x4 | number): F32x4 {
    return typeof value === 'number' ? new F32x4(constant(repeat(f32Bytes(value), 4))) : value;
  }
  static splat(value: F32 | number): F32x4 {
    if (typeof value === 'number') return F32x4.of(value);
    return new F32x4([value.code, simd(opcodes.f32x4.splat)]);
  }
  static constant(lanes: readonly [number, number, number, number]): F32x4 {
    return new F32x4(constant(lanes.flatMap(f32Bytes)));
  }
  static convertS(value: I32x4): F32x4 {
    return new F32x4([value.code, simd(opcodes.f32x4.convertI32x4S)]);
  }
  static convertU(value: I32x4): F32x4 {
    return new F32x4([value.code, simd(opcodes.f32x4.convertI32x4U)]);
  }
  /** Two lanes rounded from float64, the upper two zero. */
  static demote(value: F64x2): F32x4 {
    return new F32x4([value.code, simd(opcodes.f32x4.demoteF64x2Zero)]);
  }
  protected literal(value: number): Code {
    return F32x4.of(value).code;
  }
  protected same(code: Code): F32x4 {
    return new F32x4(code);
  }
  protected mask(code: Code): I32x4 {
    return new I32x4(code);
  }
  lane(lane: number): F32 {
    return new F32([this.code, simd(opcodes.f32x4.extract), lane]);
  }
  withLane(lane: number, value: F32 | number): F32x4 {
    return new F32x4([this.code, F32.of(value).code, simd(opcodes.f32x4.replace), lane]);
  }
}

/** Two float64. */
export class F64x2 extends FloatVector<F64x2, I64x2> {
  readonly kind = 'f64x2';
  protected readonly ops = opcodes.f64x2;
  static of(value: F64x2 | number): F64x2 {
    return typeof value === 'number' ? new F64x2(constant(repeat(f64Bytes(value), 2))) : value;
  }
  static splat(value: F64 | number): F64x2 {
    if (typeof value === 'number') return F64x2.of(value);
    return new F64x2([value.code, simd(opcodes.f64x2.splat)]);
  }
  static promoteLow(value: F32x4): F64x2 {
    return new F64x2([value.code, simd(opcodes.f64x2.promoteLowF32x4)]);
  }
  static convertLowS(value: I32x4): F64x2 {
    return new F64x2([value.code, simd(opcodes.f64x2.convertLowI32x4S)]);
  }
  static convertLowU(value: I32x4): F64x2 {
    return new F64x2([value.code, simd(opcodes.f64x2.convertLowI32x4U)]);
  }
  protected literal(value: number): Code {
    return F64x2.of(value).code;
  }
  protected same(code: Code): F64x2 {
    return new F64x2(code);
  }
  protected mask(code: Code): I64x2 {
    return new I64x2(code);
  }
  lane(lane: number): F64 {
    return new F64([this.code, simd(opcodes.f64x2.extract), lane]);
  }
  withLane(lane: number, value: F64 | number): F64x2 {
    return new F64x2([this.code, F64.of(value).code, simd(opcodes.f64x2.replace), lane]);
  }
}

function constant(bytes: readonly number[]): Code {
  return [simd(vector.const), bytes];
}

function repeat(bytes: readonly number[], times: number): number[] {
  return Array.from({ length: times }, () => bytes).flat();
}
