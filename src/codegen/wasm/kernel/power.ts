/**
 * x^y on four float32 lanes with C's special cases, computed in float64 as 2^(y log2 x) two lanes at a
 * time, so that the result is within one unit in the last place over the whole range.
 */

import { F32x4, F64x2, I64x2 } from '../vectors.ts';
import { asF32, asI32, type Lanes } from './lanes.ts';

/** log(m) = 2 atanh(s) with s = (m - 1) / (m + 1): 2 / (2k + 1), in s^2. */
const atanhTerms = Array.from({ length: 9 }, (_, k) => 2 / (2 * k + 1) / Math.LN2);
/** 2^f = exp(f ln 2): (ln 2)^k / k!. */
const exp2Terms = Array.from({ length: 11 }, (_, k) => {
  let term = 1;
  for (let i = 1; i <= k; i++) term *= Math.LN2 / i;
  return term;
});
const rounder = 6755399441055744; // 1.5 * 2^52
/** Float64 bits of sqrt(1/2), to the precision of the upper word. */
const sqrtHalfBits = 0x3fe6a09e * 2 ** 32;

export function pow(l: Lanes, x: F32x4, y: F32x4): F32x4 {
  x = l.hold(x);
  y = l.hold(y);
  const size = l.hold(x.abs());
  const low = half(l, F64x2.promoteLow(size), F64x2.promoteLow(y));
  const upper = (v: F32x4): F32x4 => v.shuffle(v, [2, 3, 2, 3]);
  const high = half(l, F64x2.promoteLow(upper(size)), F64x2.promoteLow(upper(y)));
  const magnitude = l.hold(F32x4.demote(low).shuffle(F32x4.demote(high), [0, 1, 4, 5]));

  // A negative base needs an integer exponent; an odd one keeps the sign.
  const zero = F32x4.of(0);
  const integer = l.hold(y.nearest().eq(y));
  const halved = y.mul(l.f32(0.5));
  const odd = l.hold(integer.andnot(halved.nearest().eq(halved)));
  const signBit = asI32(x).and(l.i32(0x80000000)).and(odd);
  const infinity = l.f32(Number.POSITIVE_INFINITY);
  const invalid = x.lt(zero).andnot(integer).and(size.lt(infinity));
  const signed = asF32(asI32(magnitude).or(signBit).or(invalid));
  const nan = x.ne(x).or(y.ne(y));
  const value = asF32(asI32(signed).or(nan));
  const one = l.f32(1);
  const unit = x
    .eq(one)
    .or(y.eq(zero))
    .or(size.eq(one).and(y.abs().eq(infinity)));
  return l.select(l.hold(unit), one, l.hold(value));
}

/** a^b for a >= 0, both float64; NaN arguments give anything. */
function half(l: Lanes, a: F64x2, b: F64x2): F64x2 {
  a = l.hold(a);
  // Float32 subnormals are normal here, so only 0 and infinity need care: their logarithms are pinned
  // far outside the range that the exponential resolves.
  const bits = l.hold(a.as(I64x2));
  const power = l.hold(bits.sub(l.i64(sqrtHalfBits)).shrS(52));
  const m = l.hold(bits.sub(power.shl(52)).as(F64x2));
  const s = l.hold(m.sub(l.f64(1)).div(m.add(l.f64(1))));
  const square = l.hold(s.mul(s));
  const fraction = polynomial(l, square, atanhTerms).mul(s);
  const exponent = integerToFloat(l, power);
  const log2 = l.hold(exponent.add(fraction));
  const large = l.f64(2 ** 200);
  const pinned = a
    .eq(l.f64(0))
    .bitselect(large.neg(), a.eq(l.f64(Number.POSITIVE_INFINITY)).bitselect(large, log2));
  const t = l.hold(l.hold(b.mul(pinned)).pmin(l.f64(400)).pmax(l.f64(-400)));
  const shifted = l.hold(t.add(l.f64(rounder)));
  const f = l.hold(t.sub(shifted.sub(l.f64(rounder))));
  const scale = shifted.as(I64x2).add(l.i64(1023)).shl(52).as(F64x2);
  return polynomial(l, f, exp2Terms).mul(scale);
}

/** Small 64-bit integers as float64, by way of the mantissa of 1.5 * 2^52. */
function integerToFloat(l: Lanes, n: I64x2): F64x2 {
  const rounderBits = l.f64(rounder).as(I64x2);
  return n.add(rounderBits).as(F64x2).sub(l.f64(rounder));
}

function polynomial(l: Lanes, x: F64x2, coefficients: readonly number[]): F64x2 {
  const [first, ...rest] = coefficients.toReversed();
  return rest.reduce<F64x2>((sum, c) => l.f.madd(sum, x, l.f64(c)), l.f64(first!));
}
