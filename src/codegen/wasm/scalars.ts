/**
 * Scalar expressions of generated code. An expression is code that runs where it is used, once per
 * use; `FunctionBuilder.let` evaluates it at once and names the result. Methods carry WebAssembly's
 * names in camelCase: a trailing S or U is the signed or unsigned reading. Wherever an operand is
 * expected, a plain number stands for a constant of that type.
 */

import type { Code } from './encoding.ts';
import { f32Bytes, f64Bytes, i32Leb, i64Leb } from './encoding.ts';
import type { ValueType } from './opcodes.ts';
import {
  control,
  convert,
  floatArithmetic,
  floatArithmeticBase,
  floatCompare,
  floatCompareBase,
  integerArithmetic,
  integerArithmeticBase,
  integerCompare,
  integerCompareBase,
} from './opcodes.ts';

/** An expression that leaves one value of `type` on the stack. */
export abstract class Value {
  abstract readonly type: ValueType;
  readonly code: Code;
  constructor(code: Code) {
    this.code = code;
  }
}

/** A local: an expression that reads it, and a statement that writes it. */
export type Var<V extends Value> = V & {
  readonly index: number;
  set(value: V | number): void;
};

abstract class Integer<Self extends Value> extends Value {
  abstract override readonly type: 'i32' | 'i64';
  protected abstract literal(value: number): Code;
  protected abstract same(code: Code): Self;

  add(other: Self | number): Self {
    return this.arithmetic('add', other);
  }
  sub(other: Self | number): Self {
    return this.arithmetic('sub', other);
  }
  mul(other: Self | number): Self {
    return this.arithmetic('mul', other);
  }
  divS(other: Self | number): Self {
    return this.arithmetic('divS', other);
  }
  divU(other: Self | number): Self {
    return this.arithmetic('divU', other);
  }
  remS(other: Self | number): Self {
    return this.arithmetic('remS', other);
  }
  remU(other: Self | number): Self {
    return this.arithmetic('remU', other);
  }
  and(other: Self | number): Self {
    return this.arithmetic('and', other);
  }
  or(other: Self | number): Self {
    return this.arithmetic('or', other);
  }
  xor(other: Self | number): Self {
    return this.arithmetic('xor', other);
  }
  shl(other: Self | number): Self {
    return this.arithmetic('shl', other);
  }
  shrS(other: Self | number): Self {
    return this.arithmetic('shrS', other);
  }
  shrU(other: Self | number): Self {
    return this.arithmetic('shrU', other);
  }
  rotl(other: Self | number): Self {
    return this.arithmetic('rotl', other);
  }
  rotr(other: Self | number): Self {
    return this.arithmetic('rotr', other);
  }
  neg(): Self {
    return this.same([this.literal(0), this.code, this.arithmeticOpcode('sub')]);
  }
  clz(): Self {
    return this.same([this.code, this.arithmeticOpcode('clz')]);
  }
  ctz(): Self {
    return this.same([this.code, this.arithmeticOpcode('ctz')]);
  }
  popcnt(): Self {
    return this.same([this.code, this.arithmeticOpcode('popcnt')]);
  }

  eqz(): I32 {
    return new I32([this.code, integerCompareBase[this.type]]);
  }
  eq(other: Self | number): I32 {
    return this.compare('eq', other);
  }
  ne(other: Self | number): I32 {
    return this.compare('ne', other);
  }
  ltS(other: Self | number): I32 {
    return this.compare('ltS', other);
  }
  ltU(other: Self | number): I32 {
    return this.compare('ltU', other);
  }
  gtS(other: Self | number): I32 {
    return this.compare('gtS', other);
  }
  gtU(other: Self | number): I32 {
    return this.compare('gtU', other);
  }
  leS(other: Self | number): I32 {
    return this.compare('leS', other);
  }
  leU(other: Self | number): I32 {
    return this.compare('leU', other);
  }
  geS(other: Self | number): I32 {
    return this.compare('geS', other);
  }
  geU(other: Self | number): I32 {
    return this.compare('geU', other);
  }

  private arithmetic(op: keyof typeof integerArithmetic, other: Self | number): Self {
    return this.same([this.code, this.operand(other), this.arithmeticOpcode(op)]);
  }
  private compare(op: keyof typeof integerCompare, other: Self | number): I32 {
    const opcode = integerCompareBase[this.type] + integerCompare[op];
    return new I32([this.code, this.operand(other), opcode]);
  }
  private arithmeticOpcode(op: keyof typeof integerArithmetic): number {
    return integerArithmeticBase[this.type] + integerArithmetic[op];
  }
  private operand(other: Self | number): Code {
    return typeof other === 'number' ? this.literal(other) : other.code;
  }
}

/** A 32-bit integer; also the result of every comparison (0 or 1). */
export class I32 extends Integer<I32> {
  readonly kind = 'i32';
  readonly type = 'i32';

  static of(value: I32 | number): I32 {
    return typeof value === 'number' ? new I32([control.i32Const, i32Leb(value)]) : value;
  }
  protected literal(value: number): Code {
    return [control.i32Const, i32Leb(value)];
  }
  protected same(code: Code): I32 {
    return new I32(code);
  }

  /** The smaller of two, signed; both operands are evaluated twice. */
  minS(other: I32 | number): I32 {
    const right = I32.of(other);
    return select(this.ltS(right), this, right);
  }
  /** The larger of two, signed; both operands are evaluated twice. */
  maxS(other: I32 | number): I32 {
    const right = I32.of(other);
    return select(this.gtS(right), this, right);
  }
  extend8S(): I32 {
    return new I32([this.code, convert.i32Extend8S]);
  }
  extend16S(): I32 {
    return new I32([this.code, convert.i32Extend16S]);
  }
  toI64S(): I64 {
    return new I64([this.code, convert.i64ExtendI32S]);
  }
  toI64U(): I64 {
    return new I64([this.code, convert.i64ExtendI32U]);
  }
  toF32S(): F32 {
    return new F32([this.code, convert.f32ConvertI32S]);
  }
  toF32U(): F32 {
    return new F32([this.code, convert.f32ConvertI32U]);
  }
  toF64S(): F64 {
    return new F64([this.code, convert.f64ConvertI32S]);
  }
  toF64U(): F64 {
    return new F64([this.code, convert.f64ConvertI32U]);
  }
  reinterpretF32(): F32 {
    return new F32([this.code, convert.f32ReinterpretI32]);
  }
}

/** A 64-bit integer. */
export class I64 extends Integer<I64> {
  readonly kind = 'i64';
  readonly type = 'i64';

  static of(value: I64 | number | bigint): I64 {
    return value instanceof I64 ? value : new I64([control.i64Const, i64Leb(value)]);
  }
  protected literal(value: number): Code {
    return [control.i64Const, i64Leb(value)];
  }
  protected same(code: Code): I64 {
    return new I64(code);
  }

  extend8S(): I64 {
    return new I64([this.code, convert.i64Extend8S]);
  }
  extend16S(): I64 {
    return new I64([this.code, convert.i64Extend16S]);
  }
  extend32S(): I64 {
    return new I64([this.code, convert.i64Extend32S]);
  }
  toI32(): I32 {
    return new I32([this.code, convert.i32WrapI64]);
  }
  toF32S(): F32 {
    return new F32([this.code, convert.f32ConvertI64S]);
  }
  toF32U(): F32 {
    return new F32([this.code, convert.f32ConvertI64U]);
  }
  toF64S(): F64 {
    return new F64([this.code, convert.f64ConvertI64S]);
  }
  toF64U(): F64 {
    return new F64([this.code, convert.f64ConvertI64U]);
  }
  reinterpretF64(): F64 {
    return new F64([this.code, convert.f64ReinterpretI64]);
  }
}

abstract class Float<Self extends Value> extends Value {
  abstract override readonly type: 'f32' | 'f64';
  protected abstract literal(value: number): Code;
  protected abstract same(code: Code): Self;

  add(other: Self | number): Self {
    return this.arithmetic('add', other);
  }
  sub(other: Self | number): Self {
    return this.arithmetic('sub', other);
  }
  mul(other: Self | number): Self {
    return this.arithmetic('mul', other);
  }
  div(other: Self | number): Self {
    return this.arithmetic('div', other);
  }
  /** NaN if either operand is NaN. */
  min(other: Self | number): Self {
    return this.arithmetic('min', other);
  }
  /** NaN if either operand is NaN. */
  max(other: Self | number): Self {
    return this.arithmetic('max', other);
  }
  copysign(other: Self | number): Self {
    return this.arithmetic('copysign', other);
  }
  abs(): Self {
    return this.unary('abs');
  }
  neg(): Self {
    return this.unary('neg');
  }
  ceil(): Self {
    return this.unary('ceil');
  }
  floor(): Self {
    return this.unary('floor');
  }
  trunc(): Self {
    return this.unary('trunc');
  }
  /** Rounds to the nearest integer, ties to even. */
  nearest(): Self {
    return this.unary('nearest');
  }
  sqrt(): Self {
    return this.unary('sqrt');
  }

  eq(other: Self | number): I32 {
    return this.compare('eq', other);
  }
  ne(other: Self | number): I32 {
    return this.compare('ne', other);
  }
  lt(other: Self | number): I32 {
    return this.compare('lt', other);
  }
  gt(other: Self | number): I32 {
    return this.compare('gt', other);
  }
  le(other: Self | number): I32 {
    return this.compare('le', other);
  }
  ge(other: Self | number): I32 {
    return this.compare('ge', other);
  }

  private arithmetic(op: keyof typeof floatArithmetic, other: Self | number): Self {
    const opcode = floatArithmeticBase[this.type] + floatArithmetic[op];
    return this.same([this.code, this.operand(other), opcode]);
  }
  private unary(op: keyof typeof floatArithmetic): Self {
    return this.same([this.code, floatArithmeticBase[this.type] + floatArithmetic[op]]);
  }
  private compare(op: keyof typeof floatCompare, other: Self | number): I32 {
    const opcode = floatCompareBase[this.type] + floatCompare[op];
    return new I32([this.code, this.operand(other), opcode]);
  }
  private operand(other: Self | number): Code {
    return typeof other === 'number' ? this.literal(other) : other.code;
  }
}

/** A float32. */
export class F32 extends Float<F32> {
  readonly kind = 'f32';
  readonly type = 'f32';

  static of(value: F32 | number): F32 {
    return typeof value === 'number' ? new F32([control.f32Const, f32Bytes(value)]) : value;
  }
  protected literal(value: number): Code {
    return [control.f32Const, f32Bytes(value)];
  }
  protected same(code: Code): F32 {
    return new F32(code);
  }

  toF64(): F64 {
    return new F64([this.code, convert.f64PromoteF32]);
  }
  /** Truncates; saturates outside the range, NaN becomes 0. */
  toI32S(): I32 {
    return new I32([this.code, convert.i32TruncSatF32S]);
  }
  toI32U(): I32 {
    return new I32([this.code, convert.i32TruncSatF32U]);
  }
  toI64S(): I64 {
    return new I64([this.code, convert.i64TruncSatF32S]);
  }
  toI64U(): I64 {
    return new I64([this.code, convert.i64TruncSatF32U]);
  }
  reinterpretI32(): I32 {
    return new I32([this.code, convert.i32ReinterpretF32]);
  }
}

/** A float64. */
export class F64 extends Float<F64> {
  readonly kind = 'f64';
  readonly type = 'f64';

  static of(value: F64 | number): F64 {
    return typeof value === 'number' ? new F64([control.f64Const, f64Bytes(value)]) : value;
  }
  protected literal(value: number): Code {
    return [control.f64Const, f64Bytes(value)];
  }
  protected same(code: Code): F64 {
    return new F64(code);
  }

  toF32(): F32 {
    return new F32([this.code, convert.f32DemoteF64]);
  }
  /** Truncates; saturates outside the range, NaN becomes 0. */
  toI32S(): I32 {
    return new I32([this.code, convert.i32TruncSatF64S]);
  }
  toI32U(): I32 {
    return new I32([this.code, convert.i32TruncSatF64U]);
  }
  toI64S(): I64 {
    return new I64([this.code, convert.i64TruncSatF64S]);
  }
  toI64U(): I64 {
    return new I64([this.code, convert.i64TruncSatF64U]);
  }
  reinterpretI64(): I64 {
    return new I64([this.code, convert.i64ReinterpretF64]);
  }
}

/**
 * `ifTrue` where `condition` is not zero, else `ifFalse`; both are evaluated. Scalars only: for
 * vectors use a mask's `bitselect`.
 */
export function select<V extends Value>(condition: I32, ifTrue: V, ifFalse: V): V {
  const Class = ifTrue.constructor as new (code: Code) => V;
  return new Class([ifTrue.code, ifFalse.code, condition.code, control.select]);
}
