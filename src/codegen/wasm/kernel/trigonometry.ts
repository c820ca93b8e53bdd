/**
 * sin and cos on four float32 lanes, for every finite argument. Range reduction runs in float64: up to
 * 2^30 with pi/2 in three parts whose products with the quotient are exact; beyond, lane by lane, by
 * multiplying with the right 64 bits of 2/pi (Payne and Hanek, "Radian reduction for trigonometric
 * functions", 1983).
 */

import { F64, I32, I64, select } from '../scalars.ts';
import { F32x4, F64x2, I32x4 } from '../vectors.ts';
import { asF32, asI32, type Lanes } from './lanes.ts';

/** pi/2 in parts of 22 bits, 22 bits and the rest. */
const halfPi = [1.570796012878418, 3.139164164167596e-7, 6.223372171896613e-14] as const;
/** The first 192 bits of 2/pi after the binary point. */
const twoOverPi = [0xa2f9836e4e441529n, 0xfc2757d1f534ddc0n, 0xdb6295993c439041n] as const;

/** (sin(r) - r) / r^3 in r^2 for |r| <= pi/4, relative error of sin 4e-9. */
const sinTail = [-0.166666549402, 0.00833217791636, -0.000195172668409];
/** (cos(r) - 1 + r^2 / 2) / r^4 in r^2 for |r| <= pi/4, relative error of cos 1e-10. */
const cosTail = [0.0416666456769, -0.00138873159521, 2.44331215384e-5];

export function sin(l: Lanes, x: F32x4): F32x4 {
  return circular(l, x, 0);
}

export function cos(l: Lanes, x: F32x4): F32x4 {
  return circular(l, x, 1);
}

/** sin(x + shift * pi/2) */
function circular(l: Lanes, x: F32x4, shift: 0 | 1): F32x4 {
  x = l.hold(x);
  const low = reduceHalf(l, F64x2.promoteLow(x));
  const high = reduceHalf(l, F64x2.promoteLow(x.shuffle(x, [2, 3, 2, 3])));
  const r = l.temporary(F32x4.demote(low.r).shuffle(F32x4.demote(high.r), [0, 1, 4, 5]));
  const n = l.temporary(I32x4.truncF64x2S(low.n).shuffle(I32x4.truncF64x2S(high.n), [0, 1, 4, 5]));
  l.f.if(
    x
      .abs()
      .ge(l.f32(2 ** 30))
      .anyTrue(),
    () => reduceLargeLanes(l, x, r, n),
  );
  const quadrant = l.hold(shift === 0 ? n : n.add(l.i32(shift)));
  const square = l.hold(r.mul(r));
  const sine = l.fma(l.polynomial(square, sinTail).mul(square), r, r);
  const cosine = l.fma(
    l.polynomial(square, cosTail),
    square.mul(square),
    l.fma(square, l.f32(-0.5), l.f32(1)),
  );
  const odd = quadrant.shl(31).shrS(31);
  const sign = quadrant.and(l.i32(2)).shl(30);
  const y = asF32(asI32(l.select(l.hold(odd), l.hold(cosine), l.hold(sine))).xor(sign));
  const finite = l.select(x.abs().lt(l.f32(Number.POSITIVE_INFINITY)), y, x.sub(x));
  return shift === 0 ? l.select(x.eq(F32x4.of(0)), x, finite) : finite;
}

/** x = n * pi/2 + r for |x| below 2^31 */
function reduceHalf(l: Lanes, x: F64x2): { n: F64x2; r: F64x2 } {
  x = l.hold(x);
  const n = l.hold(x.mul(l.f64(2 / Math.PI)).nearest());
  const r = halfPi.reduce<F64x2>((rest, part) => rest.sub(n.mul(l.f64(part))), x);
  return { n, r };
}

/** Replaces remainder and quotient in those lanes whose argument is 2^30 or larger, and finite. */
function reduceLargeLanes(
  l: Lanes,
  x: F32x4,
  r: F32x4 & { set(value: F32x4): void },
  n: I32x4 & { set(value: I32x4): void },
): void {
  const { f } = l;
  const argument = l.temporary(x);
  const lane = f.local('i32');
  // Four times: handle lane 0, then rotate everything by one lane.
  f.forRange(lane, 0, 4, 1, () => {
    const bits = f.let(argument.lane(0).reinterpretI32());
    const exponent = f.let(bits.shrU(23).and(255).sub(150));
    f.if(exponent.geS(7).and(exponent.ltS(105)), () => {
      const mantissa = f.let(bits.and(0x7fffff).or(0x800000).toI64U());
      const skip = f.let(exponent.sub(2));
      const later = f.let(skip.geS(64));
      const word = (i: number): I64 => I64.of(twoOverPi[i]!);
      const first = f.let(select(later, word(1), word(0)));
      const second = f.let(select(later, word(2), word(1)));
      const shift = f.let(skip.and(63).toI64U());
      // A shift by 64 - 0 is taken modulo 64, so the second part needs two steps.
      const window = first.shl(shift).or(second.shrU(1).shrU(I64.of(63).sub(shift)));
      // In units of 2^-62 quarter turns; whole turns vanish in the overflow.
      const product = f.let(window.mul(mantissa));
      const quarter = f.let(product.add(I64.of(2n ** 61n)).shrU(62));
      const rest = product.sub(quarter.shl(62)).toF64S();
      const angle = f.let(rest.mul(F64.of(Math.PI / 2 ** 63)));
      const negative = f.let(bits.ltS(0));
      const signed = select(negative, angle.neg(), angle);
      const turns = f.let(quarter.toI32());
      r.set(r.withLane(0, signed.toF32()));
      n.set(n.withLane(0, select(negative, I32.of(0).sub(turns), turns)));
    });
    argument.set(argument.shuffle(argument, [1, 2, 3, 0]));
    r.set(r.shuffle(r, [1, 2, 3, 0]));
    n.set(n.shuffle(n, [1, 2, 3, 0]));
  });
}
