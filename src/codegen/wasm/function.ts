/**
 * The body of one generated function: typed locals, statements and structured control. Statements
 * are emitted in the order in which the methods are called; expressions (see scalars.ts, vectors.ts,
 * pointer.ts) are emitted where they are used.
 */

import { invariant } from '../../core/errors.ts';
import type { Code } from './encoding.ts';
import { append, flatten, unsignedLeb, vectorBytes } from './encoding.ts';
import type { AtomicRmw, ValueType } from './opcodes.ts';
import { atomicRmw, control, memory, valueTypes } from './opcodes.ts';
import type { AddressType } from './pointer.ts';
import { laneBits, pointer, pointerConstant, Ptr } from './pointer.ts';
import { F32, F64, I32, I64, Value, type Var } from './scalars.ts';
import * as opcodes from './simd-opcodes.ts';
import { simd } from './simd-opcodes.ts';
import type { Vector } from './vector-bases.ts';
import { F32x4, F64x2, I8x16, I16x8, I32x4, I64x2 } from './vectors.ts';

/** The value classes by the name that signatures and local declarations use. */
export interface Kinds {
  i32: I32;
  i64: I64;
  f32: F32;
  f64: F64;
  ptr: Ptr;
  f32x4: F32x4;
  f64x2: F64x2;
  i8x16: I8x16;
  i16x8: I16x8;
  i32x4: I32x4;
  i64x2: I64x2;
}

export type Kind = keyof Kinds;

/** Values (or plain numbers) for a parameter list. */
export type Arguments<P extends readonly Kind[]> = {
  readonly [I in keyof P]: Kinds[P[I]] | number;
};

/** The locals that hold the parameters. */
export type Parameters<P extends readonly Kind[]> = { readonly [I in keyof P]: Var<Kinds[P[I]]> };

/** A function of the module, imported or generated, to be called from a body. */
export interface FunctionRef<
  P extends readonly Kind[] = readonly Kind[],
  R extends Kind | 'none' = Kind | 'none',
> {
  readonly name: string;
  readonly index: number;
  readonly params: P;
  readonly result: R;
}

/** A place that `br` jumps to: the end of a block or if, the beginning of a loop. */
export interface Label {
  readonly depth: number;
}

const classes = {
  i32: I32,
  i64: I64,
  f32: F32,
  f64: F64,
  f32x4: F32x4,
  f64x2: F64x2,
  i8x16: I8x16,
  i16x8: I16x8,
  i32x4: I32x4,
  i64x2: I64x2,
};

/** The machine type that holds values of a kind. */
export function machineType(kind: Kind, address: AddressType): ValueType {
  if (kind === 'ptr') return address;
  return kind in { i32: 0, i64: 0, f32: 0, f64: 0 } ? (kind as ValueType) : 'v128';
}

export interface BodyOptions {
  readonly address: AddressType;
  readonly relaxed: boolean;
}

export class FunctionBuilder {
  readonly address: AddressType;
  /** Whether `madd`, `nmadd` and `laneSelect` use relaxed SIMD. */
  readonly relaxed: boolean;
  private readonly body: number[] = [];
  private readonly entry: number[] = [];
  private readonly locals: ValueType[] = [];
  private readonly parameterCount: number;
  private depth = 0;

  constructor(parameterCount: number, options: BodyOptions) {
    this.parameterCount = parameterCount;
    this.address = options.address;
    this.relaxed = options.relaxed;
  }

  // Values

  /** An expression of `kind` from a constant; a value passes through. */
  value<K extends Kind>(kind: K, value: Kinds[K] | number): Kinds[K] {
    if (value instanceof Value) return value;
    if (kind === 'ptr') {
      return pointer(this.address, pointerConstant(this.address, value)) as unknown as Kinds[K];
    }
    return classes[kind as Exclude<Kind, 'ptr'>].of(value) as unknown as Kinds[K];
  }

  /** `count * bytes` as a pointer-sized number: a stride or a size. `count` is signed. */
  stride(count: I32 | number, bytes: number): Ptr {
    return this.value('ptr', 0).at(count, bytes);
  }

  /** Declares a local. Without `initial` it holds zero when the function is entered. */
  local<K extends Kind>(kind: K, initial?: Kinds[K] | number): Var<Kinds[K]> {
    const index = this.parameterCount + this.locals.length;
    this.locals.push(machineType(kind, this.address));
    const variable = this.variable(kind, index);
    if (initial !== undefined) variable.set(initial);
    return variable;
  }

  /**
   * Evaluates a constant at the function's entry, wherever in the body it is asked for, and names it:
   * engines build vector constants anew at each use, so loops should find them in a local.
   */
  atEntry<V extends Value>(constant: V): Var<V> {
    const kind = (constant as unknown as { readonly kind: Kind }).kind;
    const variable = this.local(kind);
    append(this.entry, [constant.code, control.localSet, unsignedLeb(variable.index)]);
    return variable as unknown as Var<V>;
  }

  /** Evaluates `value` now, once, and names the result. */
  let<V extends Value>(value: V): Var<V> {
    const kind = (value as unknown as { readonly kind: Kind }).kind;
    return this.local(kind, value as unknown as Kinds[Kind]) as unknown as Var<V>;
  }

  /** The local at `index`, as a variable. The module builder makes those of the parameters. */
  variable<K extends Kind>(kind: K, index: number): Var<Kinds[K]> {
    const get: Code = [control.localGet, unsignedLeb(index)];
    const value =
      kind === 'ptr' ? pointer(this.address, get) : new classes[kind as Exclude<Kind, 'ptr'>](get);
    const set = (next: Kinds[K] | number): void =>
      this.emit([this.value(kind, next).code, control.localSet, unsignedLeb(index)]);
    return Object.assign(value, { index, set }) as unknown as Var<Kinds[K]>;
  }

  // Arithmetic that depends on the features the module may use

  /** a * b + c: fused (one rounding) with relaxed SIMD where the machine has it, else mul then add. */
  madd<V extends F32x4 | F64x2>(a: V, b: V, c: V): V {
    return this.fused('relaxedMadd', a, b, c, () => c.add(a.mul(b as never) as never) as V);
  }
  /** c - a * b */
  nmadd<V extends F32x4 | F64x2>(a: V, b: V, c: V): V {
    return this.fused('relaxedNmadd', a, b, c, () => c.sub(a.mul(b as never) as never) as V);
  }
  /** `ifSet` in lanes where `mask` is all ones, `ifClear` where it is 0; other masks are undefined. */
  laneSelect<V extends Vector>(mask: Vector, ifSet: V, ifClear: V): V {
    if (!this.relaxed) return mask.bitselect(ifSet, ifClear);
    const shape = { 8: opcodes.i8x16, 16: opcodes.i16x8, 32: opcodes.i32x4, 64: opcodes.i64x2 };
    const opcode = shape[laneBits(ifSet)].relaxedLaneselect;
    const Class = ifSet.constructor as new (code: Code) => V;
    return new Class([ifSet.code, ifClear.code, mask.code, simd(opcode)]);
  }

  // Stores

  /** Writes a value at the full width of its class. Vectors need no alignment. */
  store(at: Ptr, value: Exclude<Kinds[Kind], Ptr> | Ptr, offset = 0): void {
    const name = (
      {
        i32: 'i32Store',
        i64: 'i64Store',
        f32: 'f32Store',
        f64: 'f64Store',
        v128: 'v128Store',
      } as const
    )[value.type];
    this.access(at, value, memory[name][0], offset);
  }
  /** Writes the low byte. */
  store8(at: Ptr, value: I32 | number, offset = 0): void {
    this.access(at, I32.of(value), memory.i32Store8[0], offset);
  }
  /** Writes the low two bytes. */
  store16(at: Ptr, value: I32 | number, offset = 0): void {
    this.access(at, I32.of(value), memory.i32Store16[0], offset);
  }
  /** Writes one lane of a vector. */
  storeLane(at: Ptr, value: Vector, lane: number, offset = 0): void {
    const name = `v128Store${laneBits(value)}Lane` as const;
    this.emit([at.code, value.code, memory[name][0], at.memarg(0, offset), lane]);
  }
  /** Writes the lower half of a vector (two float32). */
  storeLow(at: Ptr, value: Vector, offset = 0): void {
    this.emit([at.code, value.code, memory.v128Store64Lane[0], at.memarg(0, offset), 0]);
  }
  /** memory.copy: regions may overlap. */
  copy(to: Ptr, from: Ptr, bytes: Ptr | I32 | number): void {
    this.emit([to.code, from.code, this.bytes(bytes), 0xfc, 10, 0, 0]);
  }
  /** memory.fill with one byte value. */
  fill(at: Ptr, byte: I32 | number, bytes: Ptr | I32 | number): void {
    this.emit([at.code, I32.of(byte).code, this.bytes(bytes), 0xfc, 11, 0]);
  }

  // Threads

  /** Sequentially consistent store of 4 or 8 bytes. */
  atomicStore(at: Ptr, value: I32 | I64, offset = 0): void {
    const [opcode, align] = memory[value.type === 'i64' ? 'i64AtomicStore' : 'i32AtomicStore'];
    this.emit([at.code, value.code, opcode, at.memarg(align, offset)]);
  }
  /** Read-modify-write of 4 or 8 bytes; gives the old value. */
  atomicRmw<V extends I32 | I64>(
    op: Exclude<AtomicRmw, 'cmpxchg'>,
    at: Ptr,
    value: V,
    offset = 0,
  ): Var<V> {
    const wide = value.type === 'i64';
    const memarg = at.memarg(wide ? 3 : 2, offset);
    const code: Code = [at.code, value.code, 0xfe, atomicRmw[op] + (wide ? 1 : 0), memarg];
    return this.let(new (value.constructor as new (code: Code) => V)(code));
  }
  /** Writes `replacement` if the old value equals `expected`; gives the old value. */
  atomicCompareExchange<V extends I32 | I64>(
    at: Ptr,
    expected: V,
    replacement: V,
    offset = 0,
  ): Var<V> {
    const wide = expected.type === 'i64';
    const operands: Code = [at.code, expected.code, replacement.code];
    const opcode = atomicRmw.cmpxchg + (wide ? 1 : 0);
    const code: Code = [operands, 0xfe, opcode, at.memarg(wide ? 3 : 2, offset)];
    return this.let(new (expected.constructor as new (code: Code) => V)(code));
  }
  /** Sleeps while the i32 at `at` equals `expected`: 0 woken, 1 not equal, 2 timed out (ns; -1: never). */
  atomicWait(at: Ptr, expected: I32 | number, timeout: I64 | number, offset = 0): Var<I32> {
    const operands: Code = [at.code, I32.of(expected).code, I64.of(timeout).code];
    return this.let(new I32([operands, memory.atomicWait32[0], at.memarg(2, offset)]));
  }
  /** Wakes up to `count` waiters; gives how many. */
  atomicNotify(at: Ptr, count: I32 | number, offset = 0): Var<I32> {
    return this.let(
      new I32([at.code, I32.of(count).code, memory.atomicNotify[0], at.memarg(2, offset)]),
    );
  }
  fence(): void {
    this.emit([0xfe, 3, 0]);
  }

  // Control

  /** Runs `body` if `condition` is not zero, else `otherwise`. */
  if(condition: I32, body: (end: Label) => void, otherwise?: (end: Label) => void): void {
    this.emit([condition.code, control.if, control.emptyBlockType]);
    const label = this.enter();
    body(label);
    if (otherwise) {
      this.emit([control.else]);
      otherwise(label);
    }
    this.leave();
  }
  /** `br` to its label leaves it. */
  block(body: (end: Label) => void): void {
    this.emit([control.block, control.emptyBlockType]);
    body(this.enter());
    this.leave();
  }
  /** Runs once; `br` to its label runs it again. */
  loop(body: (again: Label) => void): void {
    this.emit([control.loop, control.emptyBlockType]);
    body(this.enter());
    this.leave();
  }
  br(label: Label): void {
    this.emit([control.br, unsignedLeb(this.depth - label.depth)]);
  }
  brIf(label: Label, condition: I32): void {
    this.emit([condition.code, control.brIf, unsignedLeb(this.depth - label.depth)]);
  }
  /**
   * `for (i = from; i < to; i += step) body()`, signed for I32 and unsigned for Ptr. `step` is a
   * positive constant; `to` is evaluated once. The last value plus `step` must not overflow.
   */
  forRange<V extends I32 | Ptr>(
    i: Var<V>,
    from: V | number,
    to: V | number,
    step: number | I32,
    body: () => void,
  ): void {
    const kind: 'i32' | 'ptr' = i.kind;
    const end = this.pin(this.value(kind, to as number));
    const less = (): I32 =>
      i instanceof Ptr ? i.lt(end as Ptr) : (i as unknown as I32).ltS(end as I32);
    i.set(from);
    this.if(less(), () => {
      this.loop((again) => {
        body();
        const next = i instanceof Ptr ? i.add(step) : (i as unknown as I32).add(step);
        i.set(next as unknown as V);
        this.brIf(again, less());
      });
    });
  }
  /** `condition` is built anew for each test, at the top and after the body. */
  whileLoop(condition: () => I32, body: () => void): void {
    this.if(condition(), () => {
      this.loop((again) => {
        body();
        this.brIf(again, condition());
      });
    });
  }
  return(value?: Value): void {
    this.emit([value?.code ?? [], control.return]);
  }
  /** Traps: for states that the caller promised not to produce. */
  unreachable(): void {
    this.emit([control.unreachable]);
  }
  /** Calls a function; a result is evaluated at once and named. */
  call<P extends readonly Kind[], R extends Kind | 'none'>(
    callee: FunctionRef<P, R>,
    args: Arguments<P>,
  ): R extends Kind ? Var<Kinds[R]> : undefined {
    const operands = callee.params.map((kind, i) => this.value(kind, args[i] as number).code);
    const code: Code = [operands, control.call, unsignedLeb(callee.index)];
    const kind: Kind | 'none' = callee.result;
    let result: Var<Value> | undefined;
    if (kind === 'none') this.emit(code);
    else if (kind === 'ptr') result = this.let<Value>(pointer(this.address, code));
    else result = this.let<Value>(new classes[kind](code));
    return result as unknown as R extends Kind ? Var<Kinds[R]> : undefined;
  }

  /** Size-prefixed bytes of the code section's entry. */
  seal(result?: Value): Code {
    invariant(this.depth === 0, () => 'FunctionBuilder: an open block at the end of a body');
    const groups = this.locals.map((type): Code => [1, valueTypes[type]]);
    const statements: Code = [this.entry, this.body, result?.code ?? [], control.end];
    const code = flatten([vectorBytes(groups), statements]);
    return [unsignedLeb(code.length), code];
  }

  private emit(code: Code): void {
    append(this.body, code);
  }
  private enter(): Label {
    this.depth++;
    return { depth: this.depth };
  }
  private leave(): void {
    this.depth--;
    this.emit([control.end]);
  }
  private access(at: Ptr, value: Value, opcode: readonly number[], offset: number): void {
    this.emit([at.code, value.code, opcode, at.memarg(0, offset)]);
  }
  private bytes(count: Ptr | I32 | number): Code {
    return this.value('ptr', 0).and(0).add(count).code;
  }
  private pin<V extends Value>(value: V): V {
    const first = flatten(value.code)[0];
    const constant = first === control.i32Const || first === control.i64Const;
    return constant && value.code.length === 2 ? value : this.let(value);
  }
  private fused<V extends F32x4 | F64x2>(
    op: 'relaxedMadd' | 'relaxedNmadd',
    a: V,
    b: V,
    c: V,
    plain: () => V,
  ): V {
    if (!this.relaxed) return plain();
    const opcode = (a instanceof F64x2 ? opcodes.f64x2 : opcodes.f32x4)[op];
    return new (a.constructor as new (code: Code) => V)([a.code, b.code, c.code, simd(opcode)]);
  }
}
