/**
 * Pointer expressions: byte addresses into the shared memory, 32 or 64 bits wide by the module's
 * addressing, with the loads. Stores are statements and live on the function builder. Kernels that
 * do all address arithmetic through `Ptr` build for both widths without a change.
 */

import { invariant } from '../../core/errors.ts';
import type { Code } from './encoding.ts';
import { i32Leb, i64Leb, unsignedLeb } from './encoding.ts';
import type { MemoryInstruction } from './opcodes.ts';
import {
  control,
  convert,
  integerArithmetic,
  integerArithmeticBase,
  integerCompare,
  integerCompareBase,
  memory,
} from './opcodes.ts';
import { F32, F64, I32, I64, Value } from './scalars.ts';
import type { Vector } from './vector-bases.ts';
import { F32x4, F64x2, I8x16, I16x8, I32x4, I64x2 } from './vectors.ts';

export type AddressType = 'i32' | 'i64';

/** A byte address. `offset` of a load is a constant number of bytes, encoded in the instruction. */
export abstract class Ptr extends Value {
  readonly kind = 'ptr';
  abstract override readonly type: AddressType;

  /** This address plus bytes; an I32 is taken as signed. */
  add(bytes: Ptr | I32 | number): Ptr {
    return bytes === 0 ? this : this.arithmetic('add', bytes);
  }
  sub(bytes: Ptr | I32 | number): Ptr {
    return this.arithmetic('sub', bytes);
  }
  mul(count: I32 | number): Ptr {
    return this.arithmetic('mul', count);
  }
  and(mask: number): Ptr {
    return this.arithmetic('and', mask);
  }
  /** The address of element `index` (signed) of elements `bytes` wide. */
  at(index: I32 | number, bytes: number): Ptr {
    if (typeof index === 'number') return this.add(index * bytes);
    const wide = pointer(this.type, this.widen(index));
    const shift = Math.log2(bytes);
    return this.add(
      Number.isInteger(shift)
        ? shift === 0
          ? wide
          : wide.arithmetic('shl', shift)
        : wide.arithmetic('mul', bytes),
    );
  }
  /** The lowest multiple of `bytes` (a power of two) that is not below this address. */
  alignUp(bytes: number): Ptr {
    return this.add(bytes - 1).and(-bytes);
  }
  /** The low 32 bits. */
  toI32(): I32 {
    return new I32(this.type === 'i64' ? [this.code, convert.i32WrapI64] : this.code);
  }
  eq(other: Ptr): I32 {
    return this.compare('eq', other);
  }
  ne(other: Ptr): I32 {
    return this.compare('ne', other);
  }
  lt(other: Ptr): I32 {
    return this.compare('ltU', other);
  }
  gt(other: Ptr): I32 {
    return this.compare('gtU', other);
  }
  le(other: Ptr): I32 {
    return this.compare('leU', other);
  }
  ge(other: Ptr): I32 {
    return this.compare('geU', other);
  }

  i32(offset = 0): I32 {
    return new I32(this.access('i32Load', offset));
  }
  i8S(offset = 0): I32 {
    return new I32(this.access('i32Load8S', offset));
  }
  i8U(offset = 0): I32 {
    return new I32(this.access('i32Load8U', offset));
  }
  i16S(offset = 0): I32 {
    return new I32(this.access('i32Load16S', offset));
  }
  i16U(offset = 0): I32 {
    return new I32(this.access('i32Load16U', offset));
  }
  i64(offset = 0): I64 {
    return new I64(this.access('i64Load', offset));
  }
  f32(offset = 0): F32 {
    return new F32(this.access('f32Load', offset));
  }
  f64(offset = 0): F64 {
    return new F64(this.access('f64Load', offset));
  }
  /** A pointer stored in 8 bytes (with 32-bit addressing the low 4 count). */
  ptr(offset = 0): Ptr {
    return pointer(this.type, this.access(this.type === 'i64' ? 'i64Load' : 'i32Load', offset));
  }

  f32x4(offset = 0): F32x4 {
    return new F32x4(this.access('v128Load', offset));
  }
  f64x2(offset = 0): F64x2 {
    return new F64x2(this.access('v128Load', offset));
  }
  i32x4(offset = 0): I32x4 {
    return new I32x4(this.access('v128Load', offset));
  }
  i16x8(offset = 0): I16x8 {
    return new I16x8(this.access('v128Load', offset));
  }
  i8x16(offset = 0): I8x16 {
    return new I8x16(this.access('v128Load', offset));
  }
  i64x2(offset = 0): I64x2 {
    return new I64x2(this.access('v128Load', offset));
  }
  /** One element in every lane. */
  f32x4Splat(offset = 0): F32x4 {
    return new F32x4(this.access('v128Load32Splat', offset));
  }
  i32x4Splat(offset = 0): I32x4 {
    return new I32x4(this.access('v128Load32Splat', offset));
  }
  i16x8Splat(offset = 0): I16x8 {
    return new I16x8(this.access('v128Load16Splat', offset));
  }
  i8x16Splat(offset = 0): I8x16 {
    return new I8x16(this.access('v128Load8Splat', offset));
  }
  i64x2Splat(offset = 0): I64x2 {
    return new I64x2(this.access('v128Load64Splat', offset));
  }
  f64x2Splat(offset = 0): F64x2 {
    return new F64x2(this.access('v128Load64Splat', offset));
  }
  /** Eight bytes widened to eight 16-bit lanes. */
  i16x8FromI8S(offset = 0): I16x8 {
    return new I16x8(this.access('v128Load8x8S', offset));
  }
  i16x8FromI8U(offset = 0): I16x8 {
    return new I16x8(this.access('v128Load8x8U', offset));
  }
  /** Four 16-bit integers widened to four 32-bit lanes. */
  i32x4FromI16S(offset = 0): I32x4 {
    return new I32x4(this.access('v128Load16x4S', offset));
  }
  i32x4FromI16U(offset = 0): I32x4 {
    return new I32x4(this.access('v128Load16x4U', offset));
  }
  i64x2FromI32S(offset = 0): I64x2 {
    return new I64x2(this.access('v128Load32x2S', offset));
  }
  i64x2FromI32U(offset = 0): I64x2 {
    return new I64x2(this.access('v128Load32x2U', offset));
  }
  /** 4 bytes into the lowest lane, the rest zero. */
  f32x4Zero(offset = 0): F32x4 {
    return new F32x4(this.access('v128Load32Zero', offset));
  }
  i32x4Zero(offset = 0): I32x4 {
    return new I32x4(this.access('v128Load32Zero', offset));
  }
  /** 8 bytes into the lower half, the rest zero. */
  f32x4Low(offset = 0): F32x4 {
    return new F32x4(this.access('v128Load64Zero', offset));
  }
  i32x4Low(offset = 0): I32x4 {
    return new I32x4(this.access('v128Load64Zero', offset));
  }
  /** `into` with one lane replaced from memory; the lane width is that of its class. */
  lane<V extends Vector>(into: V, lane: number, offset = 0): V {
    const name = `v128Load${laneBits(into)}Lane` as const;
    const Class = into.constructor as new (code: Code) => V;
    const [opcode, align] = memory[name];
    return new Class([this.code, into.code, opcode, this.memarg(align, offset), lane]);
  }
  /** Sequentially consistent loads. */
  atomicI32(offset = 0): I32 {
    return new I32(this.access('i32AtomicLoad', offset));
  }
  atomicI64(offset = 0): I64 {
    return new I64(this.access('i64AtomicLoad', offset));
  }

  /** Alignment and offset immediates of a memory instruction at this address. */
  memarg(alignLog2: number, offset: number): Code {
    invariant(
      Number.isInteger(offset) && offset >= 0 && offset < 2 ** 32,
      () => `Ptr: a load or store offset must be in 0..2^32-1, got ${offset}; use add()`,
    );
    return [alignLog2, unsignedLeb(offset)];
  }

  private access(name: MemoryInstruction, offset: number): Code {
    const [opcode, align] = memory[name];
    // Vectors may sit at any float boundary; alignment is only a hint and 1 byte is always valid.
    return [this.code, opcode, this.memarg(name.includes('Atomic') ? align : 0, offset)];
  }
  private arithmetic(op: 'add' | 'sub' | 'and' | 'shl' | 'mul', other: Ptr | I32 | number): Ptr {
    const opcode = integerArithmeticBase[this.type] + integerArithmetic[op];
    return pointer(this.type, [this.code, this.widen(other), opcode]);
  }
  private compare(op: keyof typeof integerCompare, other: Ptr): I32 {
    return new I32([this.code, other.code, integerCompareBase[this.type] + integerCompare[op]]);
  }
  private widen(value: Ptr | I32 | number): Code {
    if (typeof value === 'number') return pointerConstant(this.type, value);
    if (value.type === this.type) return value.code;
    invariant(value.type === 'i32', () => 'Ptr: a 64-bit pointer in 32-bit addressing');
    return [value.code, convert.i64ExtendI32S];
  }
}

/** An address in a memory with 32-bit addressing. */
export class Ptr32 extends Ptr {
  readonly type = 'i32';
}

/** An address in a memory with 64-bit addressing. */
export class Ptr64 extends Ptr {
  readonly type = 'i64';
}

/** A pointer expression of the given width. */
export function pointer(type: AddressType, code: Code): Ptr {
  return type === 'i64' ? new Ptr64(code) : new Ptr32(code);
}

/** Code of a constant address or byte count. */
export function pointerConstant(type: AddressType, value: number): Code {
  return type === 'i64' ? [control.i64Const, i64Leb(value)] : [control.i32Const, i32Leb(value)];
}

/** Width in bits of one lane of a vector's class. */
export function laneBits(value: Vector): 8 | 16 | 32 | 64 {
  if (value instanceof I8x16) return 8;
  if (value instanceof I16x8) return 16;
  return value instanceof I64x2 || value instanceof F64x2 ? 64 : 32;
}
