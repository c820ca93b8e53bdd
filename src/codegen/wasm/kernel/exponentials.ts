/**
 * exp, log and what is made of them, on four float32 lanes, to about 2 units in the last place. The
 * polynomials are minimax fits on the reduced ranges; range reduction is Cody and Waite's ("Software
 * Manual for the Elementary Functions", 1980). NaN, infinities, signed zeros at the ends of the range,
 * overflow and gradual underflow follow IEEE 754 and C.
 */

import { F32x4, I32x4 } from '../vectors.ts';
import { asF32, asI32, type Lanes } from './lanes.ts';

/** ln 2 in two parts; products of the first with integers below 2^15 are exact. */
const ln2High = 0.693359375;
const ln2Low = -2.1219444005469057e-4;
/** Below -150 ln 2 the exponential rounds to 0. */
const vanishing = -103.97208;
/** Adding this rounds to an integer, which then lies in the low mantissa bits. */
const rounder = 12582912;
const rounderBits = 0x4b400000;

/** (exp(r) - 1 - r) / r^2 on |r| <= ln(2) / 2, relative error of exp 3e-9. */
const expTail = [
  0.499999934331, 0.166665204014, 0.0416683903521, 0.00836874497873, 0.00138145696476,
];
/** (log(1 + f) - f + f^2 / 2) / f^3 on sqrt(1/2) - 1 <= f <= sqrt(2) - 1, relative error of log 7e-10. */
const logTail = [
  0.33333312607, -0.250000095437, 0.200021183708, -0.166679989197, 0.142195614387, -0.124055383684,
  0.118880400273, -0.116759130606, 0.0674724223844,
];
/** erf(x) / x - 1 in x^2 for |x| <= 1, relative error 1e-9. */
const erfNear = [
  0.128379165727, -0.376126258237, 0.112835851437, -0.0268538118229, 0.00518832762086,
  -0.000801019413066, 7.85386593056e-5,
];
/** -log(erfc(x)) / x for 1 <= x <= 4, relative error of erf 4e-10. */
const erfFar = [
  1.12869434079, 0.634969515139, 0.106530891831, -0.0240100913914, 0.00375748761769,
  -0.000350594696182, 1.39627105156e-5,
];

export function exp(l: Lanes, x: F32x4): F32x4 {
  x = l.hold(x);
  const { scale, mantissa } = expParts(l, l.hold(x.pmax(l.f32(-104)).pmin(l.f32(89))));
  // Masked scores are -infinity: an exact zero here spares the slow path that processors take when a
  // product underflows.
  const vanishes = x.lt(l.f32(vanishing));
  return mantissa.as(I32x4).andnot(vanishes).as(F32x4).mul(scale[0]).mul(scale[1]);
}

/** exp of arguments from -104 to 89, held, as a product of three factors. */
function expParts(l: Lanes, x: F32x4): { mantissa: F32x4; scale: readonly [F32x4, F32x4] } {
  const { shifted, remainder } = reduce(l, x);
  const tail = l.polynomial(remainder, expTail);
  const mantissa = l.fma(tail, remainder.mul(remainder), remainder).add(l.f32(1));
  // 2^power in two factors, since the whole of it may lie outside the normal range: exponent fields
  // power + 2 * 127 halved, and the rest.
  const biased = l.hold(asI32(shifted).sub(l.i32(rounderBits - 254)));
  const half = l.hold(biased.shrS(1));
  return { mantissa, scale: [asF32(half.shl(23)), asF32(biased.sub(half).shl(23))] };
}

/** exp(x) - 1 without cancellation near 0. */
export function expm1(l: Lanes, x: F32x4): F32x4 {
  x = l.hold(x);
  const y = l.hold(expm1Core(l, x));
  // Where x^2 / 2 no longer counts, x itself: keeps subnormals and the sign of zero.
  return l.select(x.abs().lt(l.f32(2 ** -25)), x, y);
}

function expm1Core(l: Lanes, x: F32x4): F32x4 {
  const { shifted, remainder } = reduce(l, l.hold(x.pmax(l.f32(-30)).pmin(l.f32(89))));
  const tail = l.polynomial(remainder, expTail);
  const near = l.fma(tail, remainder.mul(remainder), remainder);
  // Half of 2^power is finite for every argument.
  const half = l.hold(
    asF32(
      asI32(shifted)
        .sub(l.i32(rounderBits - 126))
        .shl(23),
    ),
  );
  const y = l.hold(l.fma(near, half, half.sub(l.f32(0.5))));
  return y.add(y);
}

export function log(l: Lanes, x: F32x4): F32x4 {
  x = l.hold(x);
  const tiny = l.hold(x.lt(l.f32(2 ** -126)));
  const bits = l.hold(asI32(l.select(tiny, x.mul(l.f32(2 ** 23)), x)));
  // Split at sqrt(1/2): mantissa in [sqrt(1/2), sqrt(2)).
  const power = l.hold(bits.sub(l.i32(0x3f3504f3)).shrS(23));
  const f = l.hold(asF32(bits.sub(power.shl(23))).sub(l.f32(1)));
  const e = l.hold(F32x4.convertS(power.sub(tiny.and(l.i32(23)))));
  const square = l.hold(f.mul(f));
  const cubic = l.polynomial(f, logTail).mul(square.mul(f));
  const low = l.fma(square, l.f32(-0.5), l.fma(e, l.f32(ln2Low), cubic));
  const y = l.fma(e, l.f32(ln2High), f.add(low));
  // Setting all bits makes NaN of negative and NaN arguments.
  const valid = y.or(asF32(x.ge(F32x4.of(0)).not()));
  const infinite = l.f32(Number.POSITIVE_INFINITY);
  const finite = l.select(x.eq(F32x4.of(0)), l.f32(Number.NEGATIVE_INFINITY), valid);
  return l.select(x.eq(infinite), x, finite);
}

/** log(1 + x): log of the rounded sum, corrected for what rounding lost. */
export function log1p(l: Lanes, x: F32x4): F32x4 {
  x = l.hold(x);
  const u = l.hold(x.add(l.f32(1)));
  const main = l.hold(log(l, u));
  const lost = l.hold(x.sub(u.sub(l.f32(1))).div(u));
  const corrected = l.select(lost.eq(lost), main.add(lost), main);
  return l.select(u.eq(l.f32(1)), x, corrected);
}

export function sigmoid(l: Lanes, x: F32x4): F32x4 {
  x = l.hold(x);
  const negative = asF32(asI32(x).or(l.i32(0x80000000)));
  const { mantissa, scale } = expParts(l, l.hold(negative.pmax(l.f32(-104))));
  const z = l.hold(mantissa.mul(scale[0]).mul(scale[1]));
  const one = l.f32(1);
  return l.select(x.lt(F32x4.of(0)), z, one).div(z.add(one));
}

export function tanh(l: Lanes, x: F32x4): F32x4 {
  x = l.hold(x);
  const size = l.hold(x.abs().pmin(l.f32(10)));
  const t = l.hold(expm1Core(l, size.add(size)));
  return withSignOf(l, t.div(t.add(l.f32(2))), x);
}

export function erf(l: Lanes, x: F32x4): F32x4 {
  x = l.hold(x);
  const size = l.hold(x.abs().pmin(l.f32(4)));
  const square = l.hold(size.mul(size));
  const near = l.hold(l.fma(l.polynomial(square, erfNear), size, size));
  const far = l.f32(1).sub(l.hold(exp(l, l.polynomial(size, erfFar).mul(size).neg())));
  return withSignOf(l, l.select(size.le(l.f32(1)), near, far), x);
}

/**
 * x = power * ln 2 + remainder, with power in the low mantissa bits of `shifted`, above rounderBits.
 * The argument must be held and |x| below 2^14.
 */
function reduce(l: Lanes, x: F32x4): { shifted: F32x4; remainder: F32x4 } {
  const shifted = l.hold(l.fma(x, l.f32(Math.LOG2E), l.f32(rounder)));
  const n = l.hold(shifted.sub(l.f32(rounder)));
  const high = l.fma(n, l.f32(-ln2High), x);
  const remainder = l.hold(l.fma(n, l.f32(-ln2Low), high));
  return { shifted, remainder };
}

/** A non-negative `value` with the sign of `x`. */
function withSignOf(l: Lanes, value: F32x4, x: F32x4): F32x4 {
  return asF32(asI32(value).or(asI32(x).and(l.i32(0x80000000))));
}
