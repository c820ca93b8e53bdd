/** Short ways to write kernel specs and the contents of their operands. */

import type { DType } from '../../src/core/dtype.ts';
import type { Expr } from '../../src/ir/expr.ts';
import type { KernelInput, KernelSpec } from '../../src/ir/kernel.ts';
import type { OperandFill } from './check-kernel.ts';

export const dtypes: readonly DType[] = [
  'float32',
  'float16',
  'bfloat16',
  'int32',
  'uint32',
  'int8',
  'bool',
];

export function access(
  operand: number,
  dtype: DType,
  strides: readonly number[],
  offset = 0,
): KernelInput {
  return { operand, dtype, offset, strides };
}

export function spec(
  space: readonly number[],
  inputs: readonly KernelInput[],
  outputs: readonly (KernelInput & { expr: Expr })[],
  more: Partial<Pick<KernelSpec, 'reduced' | 'scalars'>> = {},
): KernelSpec {
  const operands = 1 + Math.max(...[...inputs, ...outputs].map((x) => x.operand));
  return { space, reduced: [], inputs, outputs, operands, scalars: [], ...more };
}

/** Values that stay exact in every dtype they are given for. */
export function mixed(seed: number, dtype: DType): (i: number) => number {
  const word = (i: number): number => (Math.imul(i + 1 + seed * 977, 0x9e3779b1) >>> 7) % 2001;
  if (dtype === 'bool') return (i) => word(i) & 1;
  if (dtype === 'uint32') return (i) => word(i);
  if (dtype === 'int8') return (i) => (word(i) % 255) - 127;
  if (dtype === 'int32') return (i) => word(i) - 1000;
  return (i) => (word(i) - 1000) / 256;
}

export function fill(dtype: DType, elements: number, seed: number): OperandFill {
  return { dtype, elements, value: mixed(seed, dtype) };
}
