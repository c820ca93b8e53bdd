/**
 * One node of the scalar IR as one WGSL expression over the names of its operands. Every node gets
 * its own `let`, which also keeps operands from being constant expressions: WGSL rejects constant
 * expressions that overflow or divide by zero, run-time values it computes.
 */

import { invariant } from '../../core/errors.ts';
import type { BinaryOp, ComputeType, Expr, UnaryOp } from '../../ir/expr.ts';
import type { UsedFunctions } from './library.ts';
import { f32Text, i32Text, u32Text } from './text.ts';

/** How the leaves of an expression read at the point that is being computed. */
export interface PointNames {
  readonly functions: UsedFunctions;
  /** Input `index` at this point, in the compute type of its dtype. */
  readonly input: (index: number) => { readonly text: string; readonly type: ComputeType };
  /** Run-time scalar `index` as its u32 word. */
  readonly scalarWord: (index: number) => string;
  /** Coordinate along an axis, u32. */
  readonly coord: (axis: number) => string;
  /** Row-major index in the whole space, u32. */
  readonly linear: () => string;
}

export function constantText(value: number, type: ComputeType, functions: UsedFunctions): string {
  switch (type) {
    case 'f32':
      return functions.useNamesIn(f32Text(value));
    case 'i32':
      return i32Text(value);
    case 'u32':
      return u32Text(value);
    case 'bool':
      return value !== 0 ? 'true' : 'false';
  }
}

/** WGSL text of `node`; `parts` are the names of its operands in the order of `operands(node)`. */
export function expressionText(node: Expr, parts: readonly string[], names: PointNames): string {
  const { functions } = names;
  const at = (i: number): string => parts[i]!;
  switch (node.kind) {
    case 'input': {
      const loaded = names.input(node.index);
      return castText(loaded.text, loaded.type, node.type, functions);
    }
    case 'const':
      return constantText(node.value, node.type, functions);
    case 'scalar':
      return wordAs(names.scalarWord(node.index), node.type);
    case 'coord':
      return `i32(${names.coord(node.axis)})`;
    case 'linear':
      return names.linear();
    case 'unary':
      return unaryText(node.op, at(0), node.x.type, functions);
    case 'binary':
      return binaryText(node.op, at(0), at(1), node.a.type, functions);
    case 'fma':
      return `fma(${at(0)}, ${at(1)}, ${at(2)})`;
    case 'select':
      return `select(${at(2)}, ${at(1)}, ${at(0)})`;
    case 'cast':
      return castText(at(0), node.x.type, node.type, functions);
    case 'random': {
      const state = `vec4<u32>(${parts.slice(0, 4).join(', ')})`;
      const index = castText(at(4), node.index.type, 'u32', functions);
      return `${functions.use('randomWord')}(${state}, ${u32Text(node.draw)}, ${index})`;
    }
    case 'reduce':
      invariant(false, () => 'a reduction has no text of its own');
  }
}

/** A u32 word reinterpreted as a compute type. */
export function wordAs(word: string, type: ComputeType): string {
  if (type === 'u32') return word;
  return type === 'bool' ? `${word} != 0u` : `bitcast<${type}>(${word})`;
}

/** Value conversion by the rules of the `cast` node. */
export function castText(
  x: string,
  from: ComputeType,
  to: ComputeType,
  functions: UsedFunctions,
): string {
  if (from === to) return x;
  if (from === 'bool') return to === 'f32' ? `select(0.0, 1.0, ${x})` : `${to}(${x})`;
  switch (to) {
    case 'bool':
      if (from === 'f32') return `${functions.use('isNonzeroF32')}(${x})`;
      return `${x} != ${from === 'i32' ? '0i' : '0u'}`;
    case 'f32':
      return `f32(${x})`;
    case 'i32':
      return from === 'f32' ? `${functions.use('i32FromF32')}(${x})` : `bitcast<i32>(${x})`;
    case 'u32':
      return from === 'f32' ? `${functions.use('u32FromF32')}(${x})` : `bitcast<u32>(${x})`;
  }
}

function unaryText(op: UnaryOp, x: string, type: ComputeType, functions: UsedFunctions): string {
  const call = (name: string): string => `${functions.use(name)}(${x})`;
  switch (op) {
    case 'neg':
      return type === 'u32' ? `0u - ${x}` : `-${x}`;
    case 'abs':
    case 'sqrt':
    case 'floor':
    case 'ceil':
    case 'round':
      return `${op}(${x})`;
    case 'sign':
      return call('signF32');
    case 'rsqrt':
      return `1.0 / sqrt(${x})`;
    case 'reciprocal':
      return `1.0 / ${x}`;
    case 'sin':
      return `${call('sinCosF32')}.x`;
    case 'cos':
      return `${call('sinCosF32')}.y`;
    case 'exp':
    case 'expm1':
    case 'log':
    case 'log1p':
    case 'tanh':
    case 'erf':
    case 'sigmoid':
      return call(`${op}F32`);
    case 'roundF16':
      return `${functions.use('f32FromHalf')}(${call('halfFromF32')})`;
    case 'roundBf16':
      return `bitcast<f32>(${call('brainFromF32')} << 16u)`;
    case 'isNan':
      return call('isNanF32');
    case 'not':
      return `!${x}`;
    case 'bitNot':
      return `~${x}`;
  }
}

const infix: Readonly<Partial<Record<BinaryOp, string>>> = {
  add: '+',
  sub: '-',
  mul: '*',
  div: '/',
  and: '&',
  or: '|',
  xor: '^',
  eq: '==',
  ne: '!=',
  lt: '<',
  le: '<=',
  gt: '>',
  ge: '>=',
};

/** Operands must be names or otherwise bind tighter than any operator. */
export function binaryText(
  op: BinaryOp,
  a: string,
  b: string,
  type: ComputeType,
  functions: UsedFunctions,
): string {
  if (type === 'bool') return boolText(op, a, b);
  const call = (name: string): string => `${functions.use(name)}(${a}, ${b})`;
  switch (op) {
    case 'div':
      if (type === 'f32') break;
      return call(type === 'i32' ? 'divI32' : 'divU32');
    case 'rem':
      return call(type === 'i32' ? 'remI32' : 'remU32');
    case 'pow':
      return call('powF32');
    case 'max':
    case 'min':
      return type === 'f32' ? call(`${op}F32`) : `${op}(${a}, ${b})`;
    case 'shl':
    case 'shr':
      return `${a} ${op === 'shl' ? '<<' : '>>'} (u32(${b}) & 31u)`;
    default:
      break;
  }
  return `${a} ${infixOf(op)} ${b}`;
}

/** Booleans are ordered false < true (WGSL compares them for equality only); a sum is "any". */
function boolText(op: BinaryOp, a: string, b: string): string {
  switch (op) {
    case 'and':
    case 'or':
    case 'eq':
    case 'ne':
      return `${a} ${infixOf(op)} ${b}`;
    case 'max':
    case 'add':
      return `${a} | ${b}`;
    case 'min':
    case 'mul':
      return `${a} & ${b}`;
    case 'xor':
      return `${a} != ${b}`;
    default:
      return `u32(${a}) ${infixOf(op)} u32(${b})`;
  }
}

function infixOf(op: BinaryOp): string {
  const text = infix[op];
  invariant(text !== undefined, () => `no WGSL operator for ${op}`);
  return text;
}
