/** The ops of the expression IR on four lanes. */

import { invariant } from '../../../core/errors.ts';
import type { BinaryOp, ComputeType, ReduceOp, UnaryOp } from '../../../ir/expr.ts';
import { simd } from '../simd-opcodes.ts';
import * as opcodes from '../simd-opcodes.ts';
import { F32x4, F64x2, I32x4 } from '../vectors.ts';
import { roundLanes } from './elements.ts';
import { erf, exp, expm1, log, log1p, sigmoid, tanh } from './exponentials.ts';
import { asF32, asI32, type Lane4, type Lanes } from './lanes.ts';
import { pow } from './power.ts';
import { cos, sin } from './trigonometry.ts';

type FloatFunction = (l: Lanes, x: F32x4) => F32x4;

const floatFunctions: Partial<Record<UnaryOp, FloatFunction>> = {
  neg: (_, x) => x.neg(),
  abs: (_, x) => x.abs(),
  sign: (l, x) => {
    const held = l.hold(x);
    const one = l.f32(1);
    const positive = asF32(asI32(one).and(held.gt(F32x4.of(0))));
    const negative = asF32(asI32(one).and(held.lt(F32x4.of(0))));
    const nan = held.ne(held);
    return l.select(l.hold(nan), held, l.hold(positive.sub(negative)));
  },
  exp,
  expm1,
  log,
  log1p,
  sqrt: (_, x) => x.sqrt(),
  rsqrt: (l, x) => l.f32(1).div(x.sqrt()),
  reciprocal: (l, x) => l.f32(1).div(x),
  sin,
  cos,
  tanh,
  erf,
  sigmoid,
  floor: (_, x) => x.floor(),
  ceil: (_, x) => x.ceil(),
  round: (_, x) => x.nearest(),
  roundF16: (l, x) => roundLanes(l, 'float16', x),
  roundBf16: (l, x) => roundLanes(l, 'bfloat16', x),
};

/** The value of a unary op on operands of `type`. */
export function unaryLanes(l: Lanes, op: UnaryOp, type: ComputeType, x: Lane4): Lane4 {
  if (op === 'isNan') {
    const held = l.hold(asF32(x));
    return held.ne(held);
  }
  if (op === 'not' || op === 'bitNot') return x.not();
  if (type === 'f32') {
    const run = floatFunctions[op];
    invariant(run, () => `unaryLanes: ${op} has no float form`);
    return run(l, asF32(x));
  }
  invariant(op === 'neg' || op === 'abs', () => `unaryLanes: ${op} has no integer form`);
  return asI32(x)[op]();
}

/** The value of a binary op on operands of `type`. */
export function binaryLanes(l: Lanes, op: BinaryOp, type: ComputeType, a: Lane4, b: Lane4): Lane4 {
  if (type === 'f32') return binaryFloat(l, op, asF32(a), asF32(b));
  if (type === 'bool') return binaryMask(op, asI32(a), asI32(b));
  return binaryInteger(l, op, type === 'i32', asI32(a), asI32(b));
}

/** The value of a cast. */
export function castLanes(l: Lanes, from: ComputeType, to: ComputeType, x: Lane4): Lane4 {
  if (from === to) return x;
  if (to === 'bool') return from === 'f32' ? asF32(x).ne(F32x4.of(0)) : asI32(x).ne(I32x4.of(0));
  if (from === 'bool')
    return asI32(x)
      .and(to === 'f32' ? asI32(l.f32(1)) : l.i32(1))
      .as(classOf(to));
  if (to === 'f32') return from === 'i32' ? F32x4.convertS(asI32(x)) : F32x4.convertU(asI32(x));
  if (from === 'f32') return to === 'i32' ? I32x4.truncS(asF32(x)) : I32x4.truncU(asF32(x));
  return x;
}

/** One more element, or one more partial result, taken into a reduction. */
export function combineLanes(
  l: Lanes,
  op: ReduceOp,
  type: ComputeType,
  sum: Lane4,
  x: Lane4,
): Lane4 {
  const combine = { sum: 'add', prod: 'mul', max: 'max', min: 'min' } as const;
  return binaryLanes(l, combine[op], type, sum, x);
}

function binaryFloat(l: Lanes, op: BinaryOp, a: F32x4, b: F32x4): Lane4 {
  switch (op) {
    case 'add':
    case 'sub':
    case 'mul':
    case 'div':
    case 'max':
    case 'min':
    case 'eq':
    case 'ne':
    case 'lt':
    case 'le':
    case 'gt':
    case 'ge':
      return a[op](b);
    case 'pow':
      return pow(l, a, b);
    default:
      return invariant(false, () => `binaryFloat: ${op} has no float form`) as never;
  }
}

function binaryMask(op: BinaryOp, a: I32x4, b: I32x4): I32x4 {
  switch (op) {
    case 'and':
    case 'mul':
    case 'min':
      return a.and(b);
    case 'or':
    case 'max':
      return a.or(b);
    case 'xor':
    case 'ne':
      return a.xor(b);
    case 'eq':
      return a.xor(b).not();
    case 'lt':
      return b.andnot(a);
    case 'gt':
      return a.andnot(b);
    case 'le':
      return a.not().or(b);
    case 'ge':
      return b.not().or(a);
    default:
      return invariant(false, () => `binaryMask: ${op} has no form for bool`) as never;
  }
}

function binaryInteger(l: Lanes, op: BinaryOp, signed: boolean, a: I32x4, b: I32x4): I32x4 {
  switch (op) {
    case 'add':
    case 'sub':
    case 'mul':
    case 'and':
    case 'or':
    case 'xor':
    case 'eq':
    case 'ne':
      return a[op](b);
    case 'div':
      return divide(l, signed, l.hold(a), l.hold(b));
    case 'rem': {
      const x = l.hold(a);
      const y = l.hold(b);
      const rest = x.sub(divide(l, signed, x, y).mul(y));
      return rest.and(y.ne(I32x4.of(0)));
    }
    case 'shl':
      return shift(l, a, b, (x, count) => x.shl(count));
    case 'shr':
      return shift(l, a, b, (x, count) => (signed ? x.shrS(count) : x.shrU(count)));
    case 'max':
    case 'min':
    case 'lt':
    case 'le':
    case 'gt':
    case 'ge':
      return a[`${op}${signed ? 'S' : 'U'}`](b);
    case 'pow':
      return invariant(false, () => 'binaryInteger: pow has no integer form') as never;
  }
}

/** Each lane shifted by its own count. */
function shift(
  l: Lanes,
  a: I32x4,
  b: I32x4,
  run: (x: I32x4, count: ReturnType<I32x4['lane']>) => I32x4,
): I32x4 {
  const x = l.hold(a);
  const counts = l.hold(b);
  const result = l.temporary(run(x, counts.lane(0)));
  for (let lane = 1; lane < 4; lane++) {
    result.set(result.withLane(lane, run(x, counts.lane(lane)).lane(lane)));
  }
  return result;
}

/** Truncated quotients; exact, because float64 holds 32-bit integers and their quotients' floors. */
function divide(l: Lanes, signed: boolean, a: I32x4, b: I32x4): I32x4 {
  const half = (upper: boolean): I32x4 => {
    const x = toFloat64(signed, upper, a);
    const y = toFloat64(signed, upper, b);
    const opcode = opcodes.i32x4[signed ? 'truncSatF64x2SZero' : 'truncSatF64x2UZero'];
    return new I32x4([x.div(y).code, simd(opcode)]);
  };
  const quotient = half(false)
    .shuffle(half(true), [0, 1, 4, 5])
    .and(b.ne(I32x4.of(0)));
  if (!signed) return quotient;
  // The one quotient that does not fit, -2^31 / -1, wraps.
  return l.select(l.hold(b.eq(l.i32(-1))), l.hold(a.neg()), l.hold(quotient));
}

function toFloat64(signed: boolean, upper: boolean, x: I32x4): F64x2 {
  const lanes = upper ? x.shuffle(x, [2, 3, 2, 3]) : x;
  return new F64x2([
    lanes.code,
    simd(opcodes.f64x2[signed ? 'convertLowI32x4S' : 'convertLowI32x4U']),
  ]);
}

function classOf(type: ComputeType): typeof F32x4 | typeof I32x4 {
  return type === 'f32' ? F32x4 : I32x4;
}
