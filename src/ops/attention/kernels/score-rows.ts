/**
 * What happens to one row of a tile of scores between the matrix multiplies: softmax in the forward,
 * probabilities and score gradients in the backward. Scores come in units of log2, so that 2^x is all
 * the exponential that is needed.
 *
 * Of a row of `count` columns only [from, to) are visible. The others get zero, up to the next multiple
 * of 4 beyond `count`, which must lie in the row's padding.
 */

import type { FunctionBuilder, FunctionRef } from '../../../codegen/wasm/function.ts';
import type { ModuleBuilder } from '../../../codegen/wasm/module.ts';
import type { Ptr } from '../../../codegen/wasm/pointer.ts';
import { type F32, F64, type I32, type Var } from '../../../codegen/wasm/scalars.ts';
import { F32x4, I32x4 } from '../../../codegen/wasm/vectors.ts';

/** Minimax coefficients of 2^r - 1 on [-1/2, 1/2], relative error of 2^r about 1e-7. */
const coefficients = [0.6931469776, 0.2402224207, 0.05550733767, 0.009671513547, 0.001326472076];

/** Adding it leaves the nearest integer in the low bits of a float32. */
const magic = 12582912;

/** Below this 2^x is given as 0. */
const lowest = -125;

/** What exp2 needs in locals of the function that uses it; one set serves all its calls there. */
export interface Exp2Constants {
  readonly lowest: Var<F32x4>;
  readonly magic: Var<F32x4>;
  readonly one: Var<F32x4>;
  readonly coefficients: readonly Var<F32x4>[];
}

export function exp2Constants(f: FunctionBuilder): Exp2Constants {
  const constant = (value: number): Var<F32x4> => f.atEntry(F32x4.of(value));
  return {
    lowest: constant(lowest),
    magic: constant(magic),
    one: constant(1),
    coefficients: coefficients.map(constant),
  };
}

/** 2^x on four lanes, for x up to about 1; NaN stays NaN. */
export function exp2(f: FunctionBuilder, x: Var<F32x4>, constants: Exp2Constants): F32x4 {
  const clamped = f.let(x.pmax(constants.lowest));
  const shifted = f.let(clamped.add(constants.magic));
  const r = f.let(clamped.sub(shifted.sub(constants.magic)));
  let sum: F32x4 = constants.coefficients.at(-1)!;
  for (let i = constants.coefficients.length - 2; i >= 0; i--) {
    sum = f.madd(sum, r, constants.coefficients[i]!);
  }
  const one = f.madd(sum, r, constants.one);
  const bits = one.as(I32x4).add(shifted.as(I32x4).shl(23));
  return bits.andnot(x.lt(constants.lowest)).as(F32x4);
}

/** 2^x of one number. */
export function exp2Scalar(f: FunctionBuilder, x: F32, constants: Exp2Constants): F32 {
  return exp2(f, f.let(F32x4.splat(x)), constants).lane(0);
}

const rowParams = ['ptr', 'i32', 'i32', 'i32'] as const; // row, count, from, to

/** row, count, from, to, state. `state`: the running maximum and sum of the row, then the correction. */
export type SoftmaxRow = FunctionRef<readonly [...typeof rowParams, 'ptr'], 'none'>;

/** Offsets in a row's state. */
export const rowState = { max: 0, sum: 4, correction: 8, bytes: 16 } as const;

/**
 * Turns scores into 2^(score - m) with the running maximum m, adds them to the running sum, and says
 * by which factor earlier results of the row must be multiplied.
 */
export function softmaxRow(module: ModuleBuilder): SoftmaxRow {
  return module.func(
    'softmaxRow',
    [...rowParams, 'ptr'] as const,
    (f, row, count, from, to, state) => {
      f.if(from.geS(to), () => {
        f.fill(row, 0, roundUp(count).shl(2));
        f.store(state, f.value('f32', 1), rowState.correction);
        f.return();
      });
      const { first, end } = trimmed(f, row, from, to, Number.NEGATIVE_INFINITY);
      const constants = exp2Constants(f);
      const at = f.local('ptr');
      const old = f.let(state.f32(rowState.max));
      const a = f.let(F32x4.splat(old));
      const b = f.let(F32x4.splat(old));
      vectorLoop(f, at, first, end, (offset) => {
        const best = offset === 0 ? a : b;
        best.set(best.pmax(at.f32x4(offset)));
      });
      a.set(a.pmax(b));
      a.set(a.pmax(a.shuffle(a, [2, 3, 0, 1])));
      a.set(a.pmax(a.shuffle(a, [1, 0, 3, 2])));
      const best = f.let(a.lane(0));
      b.set(0);
      const total = f.local('f32x4', 0);
      vectorLoop(f, at, first, end, (offset) => {
        const x = f.let(at.f32x4(offset).sub(a));
        const p = f.let(exp2(f, x, constants));
        const sum = offset === 0 ? total : b;
        sum.set(sum.add(p));
        f.store(at, p, offset);
      });
      zeroOutside(f, row, first, end, count);
      const correction = f.let(exp2Scalar(f, old.sub(best), constants));
      const sum = horizontalSum(f, f.let(total.add(b)));
      f.store(state, best, rowState.max);
      f.store(state, state.f32(rowState.sum).mul(correction).add(sum), rowState.sum);
      f.store(state, correction, rowState.correction);
    },
    { export: false },
  );
}

/** row of scores, count, from, to, row of dP, lse in units of log2, delta. */
export type GradientRow = FunctionRef<readonly [...typeof rowParams, 'ptr', 'f32', 'f32'], 'none'>;

/** Turns scores into probabilities p = 2^(score - lse), and dP into p * (dP - delta). */
export function gradientRow(module: ModuleBuilder): GradientRow {
  return module.func(
    'gradientRow',
    [...rowParams, 'ptr', 'f32', 'f32'] as const,
    (f, row, count, from, to, gradients, lse, delta) => {
      f.if(from.geS(to), () => {
        f.fill(row, 0, roundUp(count).shl(2));
        f.fill(gradients, 0, roundUp(count).shl(2));
        f.return();
      });
      const { first, end } = trimmed(f, row, from, to, Number.NEGATIVE_INFINITY);
      const constants = exp2Constants(f);
      // Columns that the vector loop takes along must be finite, or 0 * x would not be 0.
      trimmed(f, gradients, from, to, 0);
      const at = f.local('ptr');
      const twin = f.local('ptr');
      const distance = f.let(gradients.sub(row));
      const lses = f.let(F32x4.splat(lse));
      const deltas = f.let(F32x4.splat(delta));
      vectorLoop(f, at, first, end, (offset) => {
        const x = f.let(at.f32x4(offset).sub(lses));
        const p = f.let(exp2(f, x, constants));
        f.store(at, p, offset);
        twin.set(at.add(distance));
        f.store(twin, p.mul(twin.f32x4(offset).sub(deltas)), offset);
      });
      zeroOutside(f, row, first, end, count);
      zeroOutside(f, gradients, f.let(first.add(distance)), f.let(end.add(distance)), count);
    },
    { export: false },
  );
}

/** a, b, count: the sum of a[i] * b[i]. */
export type DotRow = FunctionRef<readonly ['ptr', 'ptr', 'i32'], 'f32'>;

export function dotRow(module: ModuleBuilder): DotRow {
  return module.func(
    'dotRow',
    ['ptr', 'ptr', 'i32'] as const,
    (f, a, b, count) => {
      const at = f.local('ptr');
      const distance = f.let(b.sub(a));
      const sum = f.local('f32x4', 0);
      const full = f.let(a.at(count.and(-4), 4));
      f.forRange(at, a, full, 16, () => {
        sum.set(f.madd(at.f32x4(), at.add(distance).f32x4(), sum));
      });
      const total = f.let(horizontalSum(f, sum));
      f.forRange(at, full, f.let(a.at(count, 4)), 4, () => {
        total.set(total.add(at.f32().mul(at.add(distance).f32())));
      });
      return total;
    },
    { export: false, result: 'f32' },
  );
}

/** row, count, factor. */
export type ScaleRow = FunctionRef<readonly ['ptr', 'i32', 'f32'], 'none'>;

export function scaleRow(module: ModuleBuilder): ScaleRow {
  return module.func(
    'scaleRow',
    ['ptr', 'i32', 'f32'] as const,
    (f, row, count, factor) => {
      const at = f.local('ptr');
      const factors = f.let(F32x4.splat(factor));
      const full = f.let(row.at(count.and(-4), 4));
      f.forRange(at, row, full, 16, () => f.store(at, at.f32x4().mul(factors)));
      f.forRange(at, full, f.let(row.at(count, 4)), 4, () => f.store(at, at.f32().mul(factor)));
    },
    { export: false },
  );
}

/** log2 of a float32 that is not below the smallest normal one; NaN stays NaN. */
export type Log2 = FunctionRef<readonly ['f32'], 'f32'>;

export function log2(module: ModuleBuilder): Log2 {
  return module.func(
    'log2',
    ['f32'] as const,
    (f, x) => {
      // x = 2^e * m with m in [sqrt(1/2), sqrt(2)); log(m) = 2 artanh(t), t = (m - 1) / (m + 1).
      const bits = f.let(x.reinterpretI32().sub(0x3f3504f3));
      const exponent = f.let(bits.shrS(23));
      const m = f.let(bits.and(0x7fffff).add(0x3f3504f3).reinterpretF32().toF64());
      const t = f.let(m.sub(1).div(m.add(1)));
      const square = f.let(t.mul(t));
      let series: F64 = F64.of(1 / 13);
      for (const odd of [11, 9, 7, 5, 3, 1]) series = series.mul(square).add(1 / odd);
      const result = t
        .mul(series)
        .mul(2 / Math.LN2)
        .add(exponent.toF64S());
      return result.toF32().add(x.mul(0));
    },
    { export: false, result: 'f32' },
  );
}

/** Sum of four lanes in a fixed order. */
function horizontalSum(f: FunctionBuilder, x: Var<F32x4>): F32 {
  const pairs = f.let(x.add(x.shuffle(x, [2, 3, 0, 1])));
  return pairs.lane(0).add(pairs.lane(1));
}

/** Visible columns widened to whole vectors: the added ones are filled with `value`. */
function trimmed(
  f: FunctionBuilder,
  row: Ptr,
  from: I32,
  to: I32,
  value: number,
): { readonly first: Var<Ptr>; readonly end: Var<Ptr> } {
  const first = f.let(row.at(from.and(-4), 4));
  const end = f.let(row.at(roundUp(to), 4));
  const at = f.local('ptr');
  f.forRange(at, first, f.let(row.at(from, 4)), 4, () => f.store(at, f.value('f32', value)));
  f.forRange(at, f.let(row.at(to, 4)), end, 4, () => f.store(at, f.value('f32', value)));
  return { first, end };
}

function zeroOutside(f: FunctionBuilder, row: Ptr, first: Ptr, end: Ptr, count: I32): void {
  const at = f.local('ptr');
  const zero = F32x4.of(0);
  f.forRange(at, row, first, 16, () => f.store(at, zero));
  f.forRange(at, end, f.let(row.at(roundUp(count), 4)), 16, () => f.store(at, zero));
}

/** Runs `body` for each vector in [first, end): two per pass, at byte offsets 0 and 16 from `at`. */
function vectorLoop(
  f: FunctionBuilder,
  at: Var<Ptr>,
  first: Ptr,
  end: Ptr,
  body: (offset: number) => void,
): void {
  const pairs = f.let(first.add(end.sub(first).and(-32)));
  f.forRange(at, first, pairs, 32, () => {
    body(0);
    body(16);
  });
  f.if(at.lt(end), () => body(0));
}

function roundUp(count: I32): I32 {
  return count.add(3).and(-4);
}
