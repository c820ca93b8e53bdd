/**
 * KernelSpec: one loop nest that evaluates expressions over an iteration space. Pointwise ops,
 * reductions, and row operations with several reductions (softmax, norms) are all of this form,
 * and fusion produces it too.
 *
 * Meaning. For every point of `space`, each output stores its expression at
 * `base + offset + sum(coordinate[axis] * strides[axis])` elements of its dtype. Axes listed in
 * `reduced` are those that `reduce` nodes run over. An output whose expression varies along the
 * reduced axes is stored at each point; one that does not ("per row") has stride 0 on every reduced
 * axis and is stored once per row.
 *
 * Order of reductions. The value of a reduction depends only on the space and on `reduced`, never on
 * layouts, fusion or the number of threads. If the innermost axis (of size above one) is reduced, a row
 * is reduced in 16 interleaved partial results: element i of the row (row-major over the reduced axes)
 * goes to partial i mod 16, in order of i; then partial j (j < 8) takes in j + 8, then j < 4 takes in
 * j + 4, then j + 2, then j + 1. Otherwise the row's elements are taken in row-major order, one by one.
 * Neutral elements are 0, 1, -inf, +inf (integers: 0, 1, lowest, highest).
 *
 * Aliasing. An output may lie at the same address and layout as an input (in-place); all inputs of
 * a point are read before its outputs are written, and, with reductions, all passes over a row that
 * another pass of that row still reads come first. Otherwise operands do not overlap.
 *
 * Threads. Work is divided over kept points only.
 *
 * Launch arguments (codegen/wasm): slot k is the pointer of operand k (inputs and outputs share one
 * operand numbering), then one slot per scalar (f32 in the low 4 bytes, or i32/u32 bits).
 */

import type { DType } from '../core/dtype.ts';
import { type ComputeType, type Expr, printExprs } from './expr.ts';

export interface KernelInput {
  /** Index into the launch's operand pointers; several inputs may read one operand. */
  readonly operand: number;
  readonly dtype: DType;
  /** Elements to skip from the operand's pointer. */
  readonly offset: number;
  /** Elements per step, for each space axis; 0 broadcasts, negative walks backwards. */
  readonly strides: readonly number[];
}

export interface KernelOutput extends KernelInput {
  /** f32 is rounded to 16-bit floats on store; bool stores 0 or 1; ints wrap. */
  readonly expr: Expr;
}

export interface KernelSpec {
  readonly space: readonly number[];
  /** Ascending axes of `space`; empty when no `reduce` node occurs. */
  readonly reduced: readonly number[];
  readonly inputs: readonly KernelInput[];
  readonly outputs: readonly KernelOutput[];
  readonly operands: number;
  /** Types of the run-time scalars. */
  readonly scalars: readonly ComputeType[];
}

/** The type that a stored dtype has while it is computed on. */
export function computeType(dtype: DType): ComputeType {
  switch (dtype) {
    case 'float32':
    case 'float16':
    case 'bfloat16':
      return 'f32';
    case 'int32':
    case 'int8':
      return 'i32';
    case 'uint32':
      return 'u32';
    case 'bool':
      return 'bool';
  }
}

/** Text that is equal exactly when the generated code would be. */
export function kernelKey(spec: KernelSpec): string {
  const operand = (x: KernelInput): string =>
    `${x.operand}:${x.dtype}+${x.offset}(${x.strides.join(',')})`;
  return [
    `space(${spec.space.join(',')})`,
    `reduced(${spec.reduced.join(',')})`,
    `in ${spec.inputs.map(operand).join(' ')}`,
    `out ${spec.outputs.map(operand).join(' ')}`,
    printExprs(spec.outputs.map((out) => out.expr)),
    `scalars(${spec.scalars.join(',')})`,
  ].join(' ');
}
