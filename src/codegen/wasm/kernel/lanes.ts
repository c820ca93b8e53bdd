/**
 * What the kernel generator adds to a function builder: named temporaries that are reused, constants
 * that are set up once at the function's entry instead of inside loops, and the few vector idioms that
 * all element-wise code needs. All values of an expression are 4 lanes wide; `bool` is a mask of all
 * bits set or none. A scalar is a vector with equal lanes, so that every path through a kernel runs the
 * same instructions on an element and gives the same bits.
 */

import type { FunctionBuilder, Kind, Kinds } from '../function.ts';
import { control } from '../opcodes.ts';
import type { Value, Var } from '../scalars.ts';
import type { Vector } from '../vector-bases.ts';
import { F32x4, F64x2, I32x4, I64x2 } from '../vectors.ts';

/** One value of the expression IR in four lanes: f32, or i32 / u32 / mask. */
export type Lane4 = F32x4 | I32x4;

type VectorKind = 'f32x4' | 'i32x4' | 'f64x2' | 'i64x2' | 'i8x16' | 'i16x8';

export class Lanes {
  readonly f: FunctionBuilder;
  /** Locals of the constants in use, by their text. */
  private readonly constants = new Map<string, number>();
  private readonly slots: number[] = [];
  private used = 0;

  constructor(f: FunctionBuilder) {
    this.f = f;
  }

  f32(value: number): F32x4 {
    const key = Object.is(value, -0) ? 'f32 -0' : `f32 ${value}`;
    return this.constant('f32x4', key, () => F32x4.of(value));
  }
  i32(value: number): I32x4 {
    return this.constant('i32x4', `i32 ${value | 0}`, () => I32x4.of(value | 0));
  }
  f64(value: number): F64x2 {
    return this.constant('f64x2', `f64 ${value}`, () => F64x2.of(value));
  }
  i64(value: number): I64x2 {
    return this.constant('i64x2', `i64 ${value}`, () => I64x2.of(value));
  }
  i32Lanes(lanes: readonly [number, number, number, number]): I32x4 {
    return this.constant('i32x4', `lanes ${lanes}`, () => I32x4.constant(lanes));
  }

  /** Evaluates `value` now and names it, unless it is a local already. Lives until the scope ends. */
  hold<V extends Vector>(value: V): V {
    if (value.code[0] === control.localGet && value.code.length === 2) return value;
    return this.temporary(value);
  }
  /** A fresh variable that starts as `value`. Lives until the scope ends. */
  temporary<V extends Value>(value: V): Var<V> {
    if (this.used === this.slots.length) this.slots.push(this.f.local('i32x4').index);
    const index = this.slots[this.used++]!;
    const kind = (value as unknown as { readonly kind: Kind }).kind;
    const variable = this.f.variable(kind, index);
    variable.set(value as unknown as Kinds[Kind]);
    return variable as unknown as Var<V>;
  }
  /** Temporaries made inside `body` are reused after it. */
  scope(body: () => void): void {
    const before = this.used;
    body();
    this.used = before;
  }

  /** a * b + c */
  fma(a: F32x4, b: F32x4, c: F32x4): F32x4 {
    return this.f.madd(a, b, c);
  }
  /** `ifSet` where `mask` is set, else `ifClear`. */
  select<V extends Vector>(mask: I32x4, ifSet: V, ifClear: V): V {
    return this.f.laneSelect(mask, ifSet, ifClear);
  }
  /** The polynomial sum of coefficients[i] * x^i by Horner's rule; `x` must be held. */
  polynomial(x: F32x4, coefficients: readonly number[]): F32x4 {
    const [first, ...rest] = coefficients.toReversed();
    return rest.reduce<F32x4>((sum, c) => this.fma(sum, x, this.f32(c)), this.f32(first!));
  }

  private constant<K extends VectorKind>(kind: K, key: string, value: () => Kinds[K]): Kinds[K] {
    let index = this.constants.get(key);
    if (index === undefined) {
      index = this.f.atEntry(value() as unknown as I32x4).index;
      this.constants.set(key, index);
    }
    return this.f.variable(kind, index);
  }
}

export const asF32 = (value: Vector): F32x4 => value.as(F32x4);
export const asI32 = (value: Vector): I32x4 => value.as(I32x4);
