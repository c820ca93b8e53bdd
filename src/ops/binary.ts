/**
 * Elementwise ops of two operands, either of which may be a number. A number becomes a run-time
 * scalar of the kernel, so a learning rate that changes each step makes no new kernels.
 */

import { type DType, dtypes, isFloat } from '../core/dtype.ts';
import { ArgumentError } from '../core/errors.ts';
import type { Aval } from '../ir/aval.ts';
import { type Expr, e } from '../ir/expr.ts';
import type { Op, Params, Sample } from '../ir/op.ts';
import { apply1 } from '../tensor/apply.ts';
import { Tensor } from '../tensor/tensor.ts';
import { floats, present } from './define.ts';
import type { GradientTerms } from './formula.ts';
import { type DTypeRule, type DTypes, pointwise } from './pointwise.ts';

/** An operand of a binary function. Numbers do not widen the dtype of a tensor of their kind. */
export type Operand = Tensor | number;

type NoParams = Readonly<Record<never, never>>;

export interface ScalarParams extends Params {
  readonly value: number;
  /** The number is the left operand. */
  readonly left: boolean;
}

export interface BinaryRecord {
  readonly name: string;
  readonly dtypes: Exclude<DTypeRule, 'logical'>;
  readonly expr: (a: Expr, b: Expr) => Expr;
  readonly gradients?: 'none' | ((terms: GradientTerms) => readonly [Expr, Expr]);
  /** Ranges in which both operands' samples lie, away from kinks and poles. */
  readonly ranges?: readonly [readonly [number, number], readonly [number, number]];
}

export interface Binary {
  readonly op: Op<Tensor, NoParams>;
  readonly scalarOp: Op<Tensor, ScalarParams>;
  /** Applies whichever of the two fits the operands. */
  readonly call: (a: Operand, b: Operand) => Tensor;
}

/** Both forms of a binary op: two tensors, and a tensor with a number. */
export function binary(record: BinaryRecord): Binary {
  const { name, expr } = record;
  const [rangeA, rangeB] = record.ranges ?? [
    [-2, 2],
    [-2, 2],
  ];
  const explicit = typeof record.gradients === 'function' ? record.gradients : undefined;
  const op = pointwise<NoParams, readonly ['a', 'b']>({
    name,
    args: ['a', 'b'],
    dtypes: record.dtypes,
    expr: ([a, b]) => expr(present(a), present(b)),
    gradients: explicit ?? (record.gradients === 'none' ? 'none' : 'symbolic'),
    samples: [
      { label: 'same', inputs: [floats([3, 7], rangeA), floats([3, 7], rangeB)], params: {} },
      {
        label: 'broadcast',
        inputs: [floats([2, 1, 5], rangeA), floats([3, 1], rangeB)],
        params: {},
      },
      { label: 'scalar', inputs: [floats([], rangeA), floats([9], rangeB)], params: {} },
    ],
  });
  const operands = (x: Expr, { left }: ScalarParams): [Expr, Expr] => {
    const scalar = e.scalar(0, x.type);
    return left ? [scalar, x] : [x, scalar];
  };
  const scalarOp = pointwise<ScalarParams, readonly ['x']>({
    name: `${name}Scalar`,
    args: ['x'],
    dtypes: ([x], params) => scalarDTypes(record.dtypes, present(x), params.value),
    scalars: (params, type) => [{ type, value: params.value }],
    expr: ([x], params) => expr(...operands(present(x), params)),
    gradients: explicit
      ? ({ g, out, inputs: [x] }, params) => {
          const inputs = operands(present(x), params);
          return [explicit({ g, out, inputs })[params.left ? 1 : 0]];
        }
      : (record.gradients ?? 'symbolic') === 'none'
        ? 'none'
        : 'symbolic',
    samples: scalarSamples(rangeA, rangeB),
  });
  const call = (a: Operand, b: Operand): Tensor => {
    if (a instanceof Tensor) {
      return b instanceof Tensor
        ? apply1(op, [a, b])
        : apply1(scalarOp, [a], { value: b, left: false });
    }
    if (b instanceof Tensor) return apply1(scalarOp, [b], { value: a, left: true });
    throw new ArgumentError(
      `${name}: one operand must be a tensor (got ${a} and ${b}). Make one with tensor(...).`,
    );
  };
  return { op, scalarOp, call };
}

/** dtypes of an op between a tensor and a number: the number counts as an integer if it is one. */
export function scalarDTypes(rule: DTypeRule, x: Aval, value: number): DTypes {
  const { kind } = dtypes[x.dtype];
  let compute: DType = x.dtype;
  if (kind === 'bool') compute = Number.isInteger(value) ? 'int32' : 'float32';
  else if (kind === 'int' && !Number.isInteger(value)) compute = 'float32';
  if (rule === 'float' && !isFloat(compute)) compute = 'float32';
  return { compute, out: rule === 'compare' ? 'bool' : compute };
}

function scalarSamples(
  rangeA: readonly [number, number],
  rangeB: readonly [number, number],
): Sample<ScalarParams>[] {
  const inside = ([low, high]: readonly [number, number]): number => low + (high - low) * 0.6875;
  return [
    {
      label: 'right',
      inputs: [floats([3, 7], rangeA)],
      params: { value: inside(rangeB), left: false },
    },
    { label: 'left', inputs: [floats([9], rangeB)], params: { value: inside(rangeA), left: true } },
  ];
}
