/**
 * A KernelSpec evaluated point by point as its definition reads, float32 rounding at each node. Shares
 * nothing with the code generators: what they are compared against.
 */

import { bytesPerElement, type DType } from '../../src/core/dtype.ts';
import { philox } from '../../src/core/random.ts';
import type { BinaryOp, ComputeType, Expr, UnaryOp } from '../../src/ir/expr.ts';
import { computeType, type KernelInput, type KernelSpec } from '../../src/ir/kernel.ts';

type Value = number;

export interface PlacedOperand {
  readonly bytes: Uint8Array;
  readonly byteOffset: number;
}

/** Evaluates all outputs from the operands' present bytes, then writes them. */
export function evaluateKernel(
  spec: KernelSpec,
  operands: readonly PlacedOperand[],
  scalars: readonly number[],
): void {
  const rows = new Map<string, Map<Expr, Value>>();
  const writes: (() => void)[] = [];
  for (const point of pointsOf(spec.space)) {
    const memo = new Map<Expr, Value>();
    for (const output of spec.outputs) {
      const value = evaluate(output.expr, point, memo);
      const stored = castValue(value, output.expr.type, computeType(output.dtype));
      writes.push(() =>
        writeElement(operands[output.operand]!, output.dtype, elementOf(output, point), stored),
      );
    }
  }
  for (const write of writes) write();

  function evaluate(node: Expr, point: readonly number[], memo: Map<Expr, Value>): Value {
    const known = memo.get(node);
    if (known !== undefined) return known;
    const value = compute(node, point, memo);
    memo.set(node, value);
    return value;
  }

  function compute(node: Expr, point: readonly number[], memo: Map<Expr, Value>): Value {
    const of = (x: Expr): Value => evaluate(x, point, memo);
    switch (node.kind) {
      case 'input': {
        const input = spec.inputs[node.index]!;
        const value = readElement(operands[input.operand]!, input.dtype, elementOf(input, point));
        return castValue(value, computeType(input.dtype), node.type);
      }
      case 'const':
        return node.type === 'f32' ? Math.fround(node.value) : node.value;
      case 'scalar':
        return node.type === 'f32' ? Math.fround(scalars[node.index]!) : scalars[node.index]!;
      case 'coord':
        return point[node.axis]!;
      case 'linear':
        return point.reduce((index, c, axis) => index * spec.space[axis]! + c, 0);
      case 'unary':
        return unaryValue(node.op, of(node.x), node.x.type);
      case 'binary':
        return binaryValue(node.op, of(node.a), of(node.b), node.a.type);
      case 'fma':
        return Math.fround(of(node.a) * of(node.b) + of(node.c));
      case 'select':
        return of(node.condition) !== 0 ? of(node.a) : of(node.b);
      case 'cast':
        return castValue(of(node.x), node.x.type, node.type);
      case 'random': {
        const [k0, k1, low, high] = node.state.map((x) => of(x) >>> 0) as [
          number,
          number,
          number,
          number,
        ];
        const at = of(node.index) >>> 0;
        const sum = BigInt(low) + (BigInt(high) << 32n) + BigInt(node.draw);
        const out = new Uint32Array(4);
        const c2 = Number(sum & 0xffffffffn);
        const c3 = Number((sum >> 32n) & 0xffffffffn);
        philox(at >>> 2, 0, c2, c3, k0, k1, out);
        return out[at & 3]!;
      }
      case 'reduce':
        return reduceRow(node, point);
    }
  }

  function reduceRow(node: Expr & { kind: 'reduce' }, point: readonly number[]): Value {
    const key = point.map((c, axis) => (spec.reduced.includes(axis) ? '-' : c)).join();
    const row = rows.get(key) ?? new Map<Expr, Value>();
    rows.set(key, row);
    const known = row.get(node);
    if (known !== undefined) return known;
    // Float sums in double precision: the generators' orders differ, this is what they round.
    let total: number | undefined;
    for (const inner of pointsOf(spec.reduced.map((axis) => spec.space[axis]!))) {
      const at = [...point];
      spec.reduced.forEach((axis, i) => {
        at[axis] = inner[i]!;
      });
      const x = evaluate(node.x, at, new Map());
      if (total === undefined) total = x;
      else if (node.op === 'sum')
        total = node.type === 'f32' ? total + x : wrap(total + x, node.type);
      else if (node.op === 'prod') {
        total = node.type === 'f32' ? total * x : wrap(Math.imul(total, x), node.type);
      } else if (node.op === 'max') total = Math.max(total, x);
      else total = Math.min(total, x);
    }
    const value = total ?? neutral(node.op, node.type);
    const rounded = node.type === 'f32' ? Math.fround(value) : value;
    row.set(node, rounded);
    return rounded;
  }
}

export function readElement(operand: PlacedOperand, dtype: DType, index: number): number {
  const view = new DataView(operand.bytes.buffer, operand.bytes.byteOffset);
  const at = operand.byteOffset + index * bytesPerElement(dtype);
  switch (dtype) {
    case 'float32':
      return view.getFloat32(at, true);
    case 'float16':
      return view.getFloat16(at, true);
    case 'bfloat16':
      return floatOf(view.getUint16(at, true) << 16);
    case 'int32':
      return view.getInt32(at, true);
    case 'uint32':
      return view.getUint32(at, true);
    case 'int8':
      return view.getInt8(at);
    case 'bool':
      return view.getUint8(at) !== 0 ? 1 : 0;
  }
}

export function writeElement(
  operand: PlacedOperand,
  dtype: DType,
  index: number,
  value: number,
): void {
  const view = new DataView(operand.bytes.buffer, operand.bytes.byteOffset);
  const at = operand.byteOffset + index * bytesPerElement(dtype);
  switch (dtype) {
    case 'float32':
      view.setFloat32(at, value, true);
      break;
    case 'float16':
      view.setFloat16(at, value, true);
      break;
    case 'bfloat16':
      view.setUint16(at, brainBits(value), true);
      break;
    case 'int32':
    case 'uint32':
      view.setUint32(at, value, true);
      break;
    case 'int8':
      view.setInt8(at, value);
      break;
    case 'bool':
      view.setUint8(at, value);
      break;
  }
}

/** All points of a space in row-major order. */
export function* pointsOf(space: readonly number[]): Generator<number[]> {
  const total = space.reduce((product, dim) => product * dim, 1);
  for (let i = 0; i < total; i++) {
    const point = new Array<number>(space.length);
    let rest = i;
    for (let axis = space.length - 1; axis >= 0; axis--) {
      point[axis] = rest % space[axis]!;
      rest = Math.floor(rest / space[axis]!);
    }
    yield point;
  }
}

function elementOf(access: KernelInput, point: readonly number[]): number {
  return point.reduce((sum, c, axis) => sum + c * access.strides[axis]!, access.offset);
}

function floatOf(bits: number): number {
  return new Float32Array(new Uint32Array([bits]).buffer)[0]!;
}

/** Nearest bfloat16 by comparing the two neighbours, ties to the even one. */
function brainBits(value: number): number {
  const bits = new Uint32Array(new Float32Array([value]).buffer)[0]!;
  if (Number.isNaN(value)) return 0x7fc0;
  const below = bits >>> 16;
  const rest = bits & 0xffff;
  if (rest === 0x8000) return below + (below & 1);
  return rest > 0x8000 ? below + 1 : below;
}

function wrap(value: number, type: ComputeType): number {
  return type === 'u32' ? value >>> 0 : type === 'i32' ? value | 0 : value;
}

function neutral(op: string, type: ComputeType): number {
  if (op === 'sum') return 0;
  if (op === 'prod') return 1;
  const low = { f32: -Infinity, i32: -(2 ** 31), u32: 0, bool: 0 }[type];
  const high = { f32: Infinity, i32: 2 ** 31 - 1, u32: 2 ** 32 - 1, bool: 1 }[type];
  return op === 'max' ? low : high;
}

function castValue(x: number, from: ComputeType, to: ComputeType): number {
  if (from === to) return x;
  if (to === 'bool') return x !== 0 ? 1 : 0;
  if (to === 'f32') return Math.fround(x);
  if (from !== 'f32') return wrap(x, to);
  if (Number.isNaN(x)) return 0;
  const [low, high] = to === 'i32' ? [-(2 ** 31), 2 ** 31 - 1] : [0, 2 ** 32 - 1];
  return Math.trunc(Math.min(high, Math.max(low, x)));
}

function unaryValue(op: UnaryOp, x: number, type: ComputeType): number {
  if (op === 'not') return x !== 0 ? 0 : 1;
  if (op === 'bitNot') return wrap(~x, type);
  if (op === 'isNan') return Number.isNaN(x) ? 1 : 0;
  if (op === 'neg') return type === 'f32' ? -x : wrap(-x, type);
  if (op === 'abs') return type === 'f32' ? Math.abs(x) : wrap(Math.abs(x), type);
  return Math.fround(floatFunctions[op](x));
}

const floatFunctions: Readonly<
  Record<Exclude<UnaryOp, 'not' | 'bitNot' | 'isNan' | 'neg' | 'abs'>, (x: number) => number>
> = {
  sign: Math.sign,
  exp: Math.exp,
  expm1: Math.expm1,
  log: Math.log,
  log1p: Math.log1p,
  sqrt: Math.sqrt,
  rsqrt: (x) => 1 / Math.fround(Math.sqrt(x)),
  reciprocal: (x) => 1 / x,
  sin: Math.sin,
  cos: Math.cos,
  tanh: Math.tanh,
  erf,
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  floor: Math.floor,
  ceil: Math.ceil,
  round: (x) => {
    if (!Number.isFinite(x)) return x;
    const low = Math.floor(x);
    if (x - low !== 0.5) return Math.round(x);
    return low % 2 === 0 ? low : low + 1;
  },
  roundF16: Math.f16round,
  roundBf16: (x) => floatOf(brainBits(x) << 16),
};

/** Error function: Taylor series for small arguments, continued fraction of erfc for others. */
function erf(x: number): number {
  const a = Math.abs(x);
  if (a > 6) return Math.sign(x);
  if (a < 2.5) {
    let term = x;
    let sum = x;
    for (let k = 1; k < 80; k++) {
      term *= -(x * x) / k;
      sum += term / (2 * k + 1);
    }
    return (2 / Math.sqrt(Math.PI)) * sum;
  }
  let fraction = 0;
  for (let k = 60; k >= 1; k--) fraction = k / 2 / (a + fraction);
  const erfc = Math.exp(-a * a) / Math.sqrt(Math.PI) / (a + fraction);
  return Math.sign(x) * (1 - erfc);
}

function binaryValue(op: BinaryOp, a: number, b: number, type: ComputeType): number {
  const float = type === 'f32';
  const number = (x: number): number => (float ? Math.fround(x) : wrap(x, type));
  const flag = (x: boolean): number => (x ? 1 : 0);
  switch (op) {
    case 'add':
      return number(a + b);
    case 'sub':
      return number(a - b);
    case 'mul':
      return float ? Math.fround(a * b) : wrap(Math.imul(a, b), type);
    case 'div':
      if (float) return Math.fround(a / b);
      return b === 0 ? 0 : wrap(Math.trunc(a / b), type);
    case 'rem':
      return b === 0 ? 0 : wrap(a % b, type);
    case 'pow':
      return Math.fround(a ** b);
    case 'max':
      return Math.max(a, b);
    case 'min':
      return Math.min(a, b);
    case 'and':
      return wrap(a & b, type);
    case 'or':
      return wrap(a | b, type);
    case 'xor':
      return wrap(a ^ b, type);
    case 'shl':
      return wrap(a << (b & 31), type);
    case 'shr':
      return type === 'u32' ? a >>> (b & 31) : a >> (b & 31);
    case 'eq':
      return flag(a === b);
    case 'ne':
      return flag(a !== b);
    case 'lt':
      return flag(a < b);
    case 'le':
      return flag(a <= b);
    case 'gt':
      return flag(a > b);
    case 'ge':
      return flag(a >= b);
  }
}
