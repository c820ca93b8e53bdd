/** The scalar ops of the expression IR on JavaScript numbers: floats in float64, integers exact. */

import { invariant } from '../../core/errors.ts';
import { philox } from '../../core/random.ts';
import type { BinaryOp, ComputeType, UnaryOp } from '../../ir/expr.ts';

/** The function of a unary op whose operand has `type`. Truth values are 0 and 1. */
export function unaryFunction(op: UnaryOp, type: ComputeType): (x: number) => number {
  switch (op) {
    case 'neg':
      if (type === 'i32') return (x) => -x | 0;
      if (type === 'u32') return (x) => -x >>> 0;
      return (x) => -x;
    case 'abs':
      return type === 'i32' ? (x) => Math.abs(x) | 0 : Math.abs;
    case 'bitNot':
      return type === 'u32' ? (x) => ~x >>> 0 : (x) => ~x;
    case 'not':
      return (x) => (x ? 0 : 1);
    case 'sign':
      return (x) => Math.sign(x) + 0;
    case 'rsqrt':
      return (x) => 1 / Math.sqrt(x);
    case 'reciprocal':
      return (x) => 1 / x;
    case 'sigmoid':
      return (x) => {
        const z = Math.exp(-Math.abs(x));
        return x >= 0 ? 1 / (1 + z) : z / (1 + z);
      };
    case 'round':
      return roundTiesToEven;
    case 'roundF16':
    case 'roundBf16':
      // This backend rounds no float to a narrower type.
      return (x) => x;
    case 'isNan':
      return (x) => (Number.isNaN(x) ? 1 : 0);
    case 'erf':
      return erf;
    case 'exp':
    case 'expm1':
    case 'log':
    case 'log1p':
    case 'sqrt':
    case 'sin':
    case 'cos':
    case 'tanh':
    case 'floor':
    case 'ceil':
      return Math[op];
  }
}

/** The function of a binary op whose operands have `type`. */
export function binaryFunction(op: BinaryOp, type: ComputeType): (a: number, b: number) => number {
  switch (op) {
    case 'eq':
      return (a, b) => (a === b ? 1 : 0);
    case 'ne':
      return (a, b) => (a !== b ? 1 : 0);
    case 'lt':
      return (a, b) => (a < b ? 1 : 0);
    case 'le':
      return (a, b) => (a <= b ? 1 : 0);
    case 'gt':
      return (a, b) => (a > b ? 1 : 0);
    case 'ge':
      return (a, b) => (a >= b ? 1 : 0);
    case 'max':
      return Math.max;
    case 'min':
      return Math.min;
    case 'pow':
      return pow;
    default:
      return arithmetic(op, type);
  }
}

type Arithmetic = 'add' | 'sub' | 'mul' | 'div' | 'rem' | 'and' | 'or' | 'xor' | 'shl' | 'shr';

function arithmetic(op: Arithmetic, type: ComputeType): (a: number, b: number) => number {
  if (type === 'f32') {
    const run = floatArithmetic[op];
    invariant(run, () => `arithmetic: ${op} has no float form`);
    return run;
  }
  const run = integerArithmetic[op];
  if (type === 'i32') {
    if (op === 'shr') return (a, b) => a >> b;
    return (a, b) => run(a, b) | 0;
  }
  // Truth values are closed under and, or, xor.
  return (a, b) => run(a, b) >>> 0;
}

const floatArithmetic: Partial<Record<Arithmetic, (a: number, b: number) => number>> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => a / b,
};

/** On 32-bit readings held in doubles; the caller wraps the result. */
const integerArithmetic: Readonly<Record<Arithmetic, (a: number, b: number) => number>> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: Math.imul,
  div: (a, b) => (b === 0 ? 0 : Math.trunc(a / b)),
  rem: (a, b) => (b === 0 ? 0 : a % b),
  and: (a, b) => a & b,
  or: (a, b) => a | b,
  xor: (a, b) => a ^ b,
  shl: (a, b) => a << b,
  shr: (a, b) => a >>> b,
};

/** Value conversion between compute types. */
export function castFunction(from: ComputeType, to: ComputeType): (x: number) => number {
  if (to === 'bool') return (x) => (x !== 0 ? 1 : 0);
  if (to === 'f32') return (x) => x;
  if (from === 'f32') {
    const [low, high] = to === 'i32' ? [-(2 ** 31), 2 ** 31 - 1] : [0, 2 ** 32 - 1];
    return (x) => (Number.isNaN(x) ? 0 : Math.min(high, Math.max(low, Math.trunc(x))) + 0);
  }
  return to === 'i32' ? (x) => x | 0 : (x) => x >>> 0;
}

/**
 * Word `index` of the draw `draw` of a generator in the given state, as core/random.ts defines it.
 * The function returned keeps the last block of four words, since neighbours share it.
 */
export function philoxWord(
  draw: number,
): (key0: number, key1: number, low: number, high: number, index: number) => number {
  const words = new Uint32Array(4);
  let last: readonly number[] = [];
  return (key0, key1, low, high, index) => {
    const block = index >>> 2;
    const counter = [block, key0, key1, low, high];
    if (last.length === 0 || counter.some((part, i) => part !== last[i])) {
      const sum = BigInt.asUintN(64, (BigInt(high) << 32n) + BigInt(low) + BigInt(draw));
      philox(block, 0, Number(sum & 0xffffffffn), Number(sum >> 32n), key0, key1, words);
      last = counter;
    }
    return words[index & 3]!;
  };
}

function roundTiesToEven(x: number): number {
  if (!(Math.abs(x) < 2 ** 52)) return x;
  const low = Math.floor(x);
  const rest = x - low;
  const up = rest > 0.5 || (rest === 0.5 && low % 2 !== 0);
  const rounded = up ? low + 1 : low;
  return rounded === 0 && x < 0 ? -0 : rounded;
}

/** C's pow: 1 to any power is 1, and -1 to an infinite power is 1. */
function pow(a: number, b: number): number {
  if (a === 1 || (a === -1 && Math.abs(b) === Number.POSITIVE_INFINITY)) return 1;
  return a ** b;
}

/**
 * The error function to about 1e-15: the series of positive terms exp(-x^2) sum 2^n x^(2n+1)/(2n+1)!!
 * (Abramowitz and Stegun 7.1.6) for small arguments, the continued fraction of erfc (7.1.14) beyond.
 */
export function erf(x: number): number {
  const size = Math.abs(x);
  if (!(size < 6)) return Math.sign(x);
  const scale = 2 / Math.sqrt(Math.PI);
  if (size < 2.5) {
    let term = x;
    let sum = x;
    for (let n = 1; Math.abs(term) > Math.abs(sum) * 1e-17; n++) {
      term *= (2 * x * x) / (2 * n + 1);
      sum += term;
    }
    return scale * Math.exp(-x * x) * sum;
  }
  let fraction = 0;
  for (let n = 60; n >= 1; n--) fraction = n / 2 / (size + fraction);
  const erfc = (Math.exp(-x * x) / (size + fraction)) * (scale / 2);
  return Math.sign(x) * (1 - erfc);
}
