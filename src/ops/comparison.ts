/** Comparisons, logical functions and selection. Results of comparisons are bool. */

import { type Expr, e } from '../ir/expr.ts';
import type { BinaryOp } from '../ir/expr.ts';
import { DTypeError } from '../core/errors.ts';
import { promoteDTypes } from '../core/dtype.ts';
import { formatAval } from '../ir/aval.ts';
import type { Op } from '../ir/op.ts';
import { apply1 } from '../tensor/apply.ts';
import { Tensor } from '../tensor/tensor.ts';
import { type Binary, type Operand, binary } from './binary.ts';
import { floats, present } from './define.ts';
import { pointwise } from './pointwise.ts';
import { type NoParams, type UnaryRecordOp, unary } from './unary.ts';

function compare(name: 'eq' | 'ne' | 'lt' | 'le' | 'gt' | 'ge'): Binary {
  return binary({
    name,
    dtypes: 'compare',
    expr: (a, b) => {
      // Order of bools is that of 0 and 1.
      const wide = (x: Expr): Expr => (x.type === 'bool' ? e.cast(x, 'i32') : x);
      return e.binary(name, wide(a), wide(b));
    },
    gradients: 'none',
  });
}

const equal = compare('eq');
export const eqOp = equal.op;
export const eqScalarOp = equal.scalarOp;
/** a == b (torch.eq). NaN equals nothing. */
export const eq = (a: Operand, b: Operand): Tensor => equal.call(a, b);

const unequal = compare('ne');
export const neOp = unequal.op;
export const neScalarOp = unequal.scalarOp;
/** a != b (torch.ne). */
export const ne = (a: Operand, b: Operand): Tensor => unequal.call(a, b);

const less = compare('lt');
export const ltOp = less.op;
export const ltScalarOp = less.scalarOp;
/** a < b (torch.lt). */
export const lt = (a: Operand, b: Operand): Tensor => less.call(a, b);

const lessOrEqual = compare('le');
export const leOp = lessOrEqual.op;
export const leScalarOp = lessOrEqual.scalarOp;
/** a <= b (torch.le). */
export const le = (a: Operand, b: Operand): Tensor => lessOrEqual.call(a, b);

const greater = compare('gt');
export const gtOp = greater.op;
export const gtScalarOp = greater.scalarOp;
/** a > b (torch.gt). */
export const gt = (a: Operand, b: Operand): Tensor => greater.call(a, b);

const greaterOrEqual = compare('ge');
export const geOp = greaterOrEqual.op;
export const geScalarOp = greaterOrEqual.scalarOp;
/** a >= b (torch.ge). */
export const ge = (a: Operand, b: Operand): Tensor => greaterOrEqual.call(a, b);

function logical(name: string, op: BinaryOp): Op<Tensor, NoParams> {
  return pointwise<NoParams, readonly ['a', 'b']>({
    name,
    args: ['a', 'b'],
    dtypes: 'logical',
    expr: ([a, b]) => e.binary(op, present(a), present(b)),
    gradients: 'none',
    samples: [
      {
        label: 'bools',
        inputs: [
          { shape: [3, 5], dtype: 'bool' },
          { shape: [5], dtype: 'bool' },
        ],
        params: {},
      },
      { label: 'floats', inputs: [floats([7]), floats([7])], params: {} },
    ],
  });
}

export const logicalAndOp: Op<Tensor, NoParams> = logical('logicalAnd', 'and');
/** a and b, where anything that is not zero is true (torch.logical_and). */
export const logicalAnd = (a: Tensor, b: Tensor): Tensor => apply1(logicalAndOp, [a, b]);

export const logicalOrOp: Op<Tensor, NoParams> = logical('logicalOr', 'or');
/** a or b (torch.logical_or). */
export const logicalOr = (a: Tensor, b: Tensor): Tensor => apply1(logicalOrOp, [a, b]);

export const logicalNotOp: UnaryRecordOp = unary(
  'logicalNot',
  'logical',
  (x) => e.unary('not', x),
  {
    gradients: 'none',
  },
);
/** not x (torch.logical_not). */
export const logicalNot = (x: Tensor): Tensor => apply1(logicalNotOp, [x]);

export const isNanOp: UnaryRecordOp = unary(
  'isNan',
  'compare',
  (x) => (x.type === 'f32' ? e.unary('isNan', x) : e.bool(false)),
  { gradients: 'none' },
);
/** Whether x is NaN (torch.isnan). */
export const isNan = (x: Tensor): Tensor => apply1(isNanOp, [x]);

export const isFiniteOp: UnaryRecordOp = unary(
  'isFinite',
  'compare',
  (x) => (x.type === 'f32' ? e.binary('lt', e.unary('abs', x), e.f32(Infinity)) : e.bool(true)),
  { gradients: 'none' },
);
/** Whether x is neither NaN nor infinite (torch.isfinite). */
// biome-ignore lint/suspicious/noShadowRestrictedNames: torch's name; the global is not used here.
export const isFinite = (x: Tensor): Tensor => apply1(isFiniteOp, [x]);

export const whereOp: Op<Tensor, NoParams> = pointwise<NoParams, readonly ['condition', 'a', 'b']>({
  name: 'where',
  args: ['condition', 'a', 'b'],
  raw: [0],
  dtypes: ([condition, a, b]) => {
    if (condition?.dtype !== 'bool') {
      throw new DTypeError(
        `where: the condition must be bool (got ${formatAval(present(condition))}). Compare, or cast it to bool.`,
      );
    }
    const dtype = promoteDTypes(present(a).dtype, present(b).dtype);
    return { compute: dtype, out: dtype };
  },
  expr: ([condition, a, b]) => e.select(present(condition), present(a), present(b)),
  gradients: 'symbolic',
  samples: [
    {
      label: 'same',
      inputs: [{ shape: [3, 5], dtype: 'bool' }, floats([3, 5]), floats([3, 5])],
      params: {},
    },
    {
      label: 'broadcast',
      inputs: [{ shape: [3, 1], dtype: 'bool' }, floats([7]), floats([])],
      params: {},
    },
  ],
});

type WhereScalarParams = { readonly value: number; readonly keep: boolean };

export const maskedOp: Op<Tensor, WhereScalarParams> = pointwise<
  WhereScalarParams,
  readonly ['condition', 'x']
>({
  name: 'masked',
  args: ['condition', 'x'],
  raw: [0],
  dtypes: ([, x]) => ({ compute: present(x).dtype, out: present(x).dtype }),
  scalars: ({ value }, type) => [{ type, value }],
  expr: ([condition, x], { keep }) => {
    const at = present(x);
    const other = e.scalar(0, at.type);
    const mask = e.cast(present(condition), 'bool');
    return keep ? e.select(mask, at, other) : e.select(mask, other, at);
  },
  gradients: 'symbolic',
  samples: [
    {
      label: 'keep',
      inputs: [{ shape: [3, 5], dtype: 'bool' }, floats([3, 5])],
      params: { value: -2.5, keep: true },
    },
    {
      label: 'fill',
      inputs: [{ shape: [5], dtype: 'bool' }, floats([3, 5])],
      params: { value: 0.5, keep: false },
    },
  ],
});

/**
 * a where the condition holds, else b, with broadcasting (torch.where). At most one of a and b may be a
 * number, which is converted to the dtype of the other. Throws DTypeError unless the condition is bool.
 */
export function where(condition: Tensor, a: Operand, b: Operand): Tensor {
  if (a instanceof Tensor && b instanceof Tensor) return apply1(whereOp, [condition, a, b]);
  if (a instanceof Tensor) {
    return apply1(maskedOp, [condition, a], { value: Number(b), keep: true });
  }
  if (b instanceof Tensor) return apply1(maskedOp, [condition, b], { value: a, keep: false });
  throw new DTypeError(
    `where: one of a and b must be a tensor (got ${a} and ${b}). Make one with full([], value).`,
  );
}

/** `value` where the mask holds, else x (torch.Tensor.masked_fill). */
export function maskedFill(x: Tensor, mask: Tensor, value: number): Tensor {
  return where(mask, value, x);
}
