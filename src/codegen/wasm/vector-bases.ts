/**
 * What the vector classes of vectors.ts share: operations on 128 bits, on lanes of integers, and on
 * lanes of floats.
 */

import { invariant } from '../../core/errors.ts';
import type { Code } from './encoding.ts';
import { I32, Value } from './scalars.ts';
import { simd, vector } from './simd-opcodes.ts';

export interface VectorClass<V> {
  new (code: Code): V;
}

export abstract class Vector<Self extends Value = Value> extends Value {
  readonly type = 'v128';
  protected abstract literal(value: number): Code;
  protected abstract same(code: Code): Self;

  /** The same 128 bits seen as another lane shape. */
  as<C extends VectorClass<Vector>>(Class: C): InstanceType<C> {
    return new Class(this.code) as InstanceType<C>;
  }
  not(): Self {
    return this.same([this.code, simd(vector.not)]);
  }
  and(other: Self | number): Self {
    return this.binary(vector.and, other);
  }
  /** this & ~other */
  andnot(other: Self | number): Self {
    return this.binary(vector.andnot, other);
  }
  or(other: Self | number): Self {
    return this.binary(vector.or, other);
  }
  xor(other: Self | number): Self {
    return this.binary(vector.xor, other);
  }
  anyTrue(): I32 {
    return new I32([this.code, simd(vector.anyTrue)]);
  }
  /** With `this` as mask: bits of `ifSet` where the mask is 1, of `ifClear` where it is 0. */
  bitselect<V extends Vector>(ifSet: V, ifClear: V): V {
    const Class = ifSet.constructor as VectorClass<V>;
    return new Class([ifSet.code, ifClear.code, this.code, simd(vector.bitselect)]);
  }
  /** 16 bytes picked by number: 0-15 from `this`, 16-31 from `other`. */
  shuffleBytes(other: Self, bytes: readonly number[]): Self {
    invariant(
      bytes.length === 16 && bytes.every((byte) => byte >= 0 && byte < 32),
      () => `shuffleBytes: want 16 numbers below 32, got [${bytes}]`,
    );
    return this.same([this.code, other.code, simd(vector.shuffle), bytes]);
  }
  /** Lanes picked by number, counted through `this` and then `other`. */
  shuffle(other: Self, lanes: readonly number[]): Self {
    const width = 16 / lanes.length;
    const bytes = lanes.flatMap((lane) =>
      Array.from({ length: width }, (_, byte) => lane * width + byte),
    );
    return this.shuffleBytes(other, bytes);
  }

  protected binary(opcode: number, other: Self | number): Self {
    return this.same([this.code, this.operand(other), simd(opcode)]);
  }
  protected unary(opcode: number): Self {
    return this.same([this.code, simd(opcode)]);
  }
  protected operand(other: Self | number): Code {
    return typeof other === 'number' ? this.literal(other) : other.code;
  }
}

/** The operations that every integer lane shape has. */
export interface IntegerOpcodes {
  readonly eq: number;
  readonly ne: number;
  readonly ltS: number;
  readonly gtS: number;
  readonly leS: number;
  readonly geS: number;
  readonly abs: number;
  readonly neg: number;
  readonly allTrue: number;
  readonly bitmask: number;
  readonly shl: number;
  readonly shrS: number;
  readonly shrU: number;
  readonly add: number;
  readonly sub: number;
}

export abstract class IntegerVector<Self extends Value> extends Vector<Self> {
  protected abstract readonly ops: IntegerOpcodes;
  add(other: Self | number): Self {
    return this.binary(this.ops.add, other);
  }
  sub(other: Self | number): Self {
    return this.binary(this.ops.sub, other);
  }
  abs(): Self {
    return this.unary(this.ops.abs);
  }
  neg(): Self {
    return this.unary(this.ops.neg);
  }
  /** Shifts take one count for all lanes. */
  shl(count: I32 | number): Self {
    return this.same([this.code, I32.of(count).code, simd(this.ops.shl)]);
  }
  shrS(count: I32 | number): Self {
    return this.same([this.code, I32.of(count).code, simd(this.ops.shrS)]);
  }
  shrU(count: I32 | number): Self {
    return this.same([this.code, I32.of(count).code, simd(this.ops.shrU)]);
  }
  eq(other: Self | number): Self {
    return this.binary(this.ops.eq, other);
  }
  ne(other: Self | number): Self {
    return this.binary(this.ops.ne, other);
  }
  ltS(other: Self | number): Self {
    return this.binary(this.ops.ltS, other);
  }
  gtS(other: Self | number): Self {
    return this.binary(this.ops.gtS, other);
  }
  leS(other: Self | number): Self {
    return this.binary(this.ops.leS, other);
  }
  geS(other: Self | number): Self {
    return this.binary(this.ops.geS, other);
  }
  allTrue(): I32 {
    return new I32([this.code, simd(this.ops.allTrue)]);
  }
  /** The top bit of each lane, gathered into the low bits. */
  bitmask(): I32 {
    return new I32([this.code, simd(this.ops.bitmask)]);
  }
}

/** What 8-, 16- and 32-bit lanes have and 64-bit lanes lack. */
export interface NarrowOpcodes extends IntegerOpcodes {
  readonly ltU: number;
  readonly gtU: number;
  readonly leU: number;
  readonly geU: number;
  readonly minS: number;
  readonly minU: number;
  readonly maxS: number;
  readonly maxU: number;
}

export abstract class NarrowVector<Self extends Value> extends IntegerVector<Self> {
  protected abstract override readonly ops: NarrowOpcodes;
  ltU(other: Self | number): Self {
    return this.binary(this.ops.ltU, other);
  }
  gtU(other: Self | number): Self {
    return this.binary(this.ops.gtU, other);
  }
  leU(other: Self | number): Self {
    return this.binary(this.ops.leU, other);
  }
  geU(other: Self | number): Self {
    return this.binary(this.ops.geU, other);
  }
  minS(other: Self | number): Self {
    return this.binary(this.ops.minS, other);
  }
  minU(other: Self | number): Self {
    return this.binary(this.ops.minU, other);
  }
  maxS(other: Self | number): Self {
    return this.binary(this.ops.maxS, other);
  }
  maxU(other: Self | number): Self {
    return this.binary(this.ops.maxU, other);
  }
}

export interface FloatOpcodes {
  readonly abs: number;
  readonly neg: number;
  readonly sqrt: number;
  readonly add: number;
  readonly sub: number;
  readonly mul: number;
  readonly div: number;
  readonly min: number;
  readonly max: number;
  readonly pmin: number;
  readonly pmax: number;
  readonly ceil: number;
  readonly floor: number;
  readonly trunc: number;
  readonly nearest: number;
  readonly eq: number;
  readonly ne: number;
  readonly lt: number;
  readonly gt: number;
  readonly le: number;
  readonly ge: number;
}

export abstract class FloatVector<Self extends Value, Mask> extends Vector<Self> {
  protected abstract readonly ops: FloatOpcodes;
  protected abstract mask(code: Code): Mask;
  add(other: Self | number): Self {
    return this.binary(this.ops.add, other);
  }
  sub(other: Self | number): Self {
    return this.binary(this.ops.sub, other);
  }
  mul(other: Self | number): Self {
    return this.binary(this.ops.mul, other);
  }
  div(other: Self | number): Self {
    return this.binary(this.ops.div, other);
  }
  /** NaN where either operand is NaN; several instructions on x86. */
  min(other: Self | number): Self {
    return this.binary(this.ops.min, other);
  }
  max(other: Self | number): Self {
    return this.binary(this.ops.max, other);
  }
  /** `other < this ? other : this`: one instruction; `this` where either is NaN. */
  pmin(other: Self | number): Self {
    return this.binary(this.ops.pmin, other);
  }
  /** `this < other ? other : this`: one instruction; `this` where either is NaN. */
  pmax(other: Self | number): Self {
    return this.binary(this.ops.pmax, other);
  }
  abs(): Self {
    return this.unary(this.ops.abs);
  }
  neg(): Self {
    return this.unary(this.ops.neg);
  }
  sqrt(): Self {
    return this.unary(this.ops.sqrt);
  }
  ceil(): Self {
    return this.unary(this.ops.ceil);
  }
  floor(): Self {
    return this.unary(this.ops.floor);
  }
  trunc(): Self {
    return this.unary(this.ops.trunc);
  }
  /** Rounds to the nearest integer, ties to even. */
  nearest(): Self {
    return this.unary(this.ops.nearest);
  }
  eq(other: Self | number): Mask {
    return this.compare(this.ops.eq, other);
  }
  ne(other: Self | number): Mask {
    return this.compare(this.ops.ne, other);
  }
  lt(other: Self | number): Mask {
    return this.compare(this.ops.lt, other);
  }
  gt(other: Self | number): Mask {
    return this.compare(this.ops.gt, other);
  }
  le(other: Self | number): Mask {
    return this.compare(this.ops.le, other);
  }
  ge(other: Self | number): Mask {
    return this.compare(this.ops.ge, other);
  }
  private compare(opcode: number, other: Self | number): Mask {
    return this.mask([this.code, this.operand(other), simd(opcode)]);
  }
}
