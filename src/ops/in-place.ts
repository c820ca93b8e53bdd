/**
 * Ops that change a tensor in place: the first argument's memory gets the result, so the other operand
 * must broadcast to it. A leaf that wants a gradient can only be changed inside noGrad; a tensor that
 * backward still needs is guarded by its version.
 */

import { dtypes } from '../core/dtype.ts';
import { DTypeError, ShapeError } from '../core/errors.ts';
import { broadcastShapes, formatShape, numElements, sameShape } from '../core/shape.ts';
import { type Aval, formatAval } from '../ir/aval.ts';
import { type Expr, e } from '../ir/expr.ts';
import { computeType } from '../ir/kernel.ts';
import type { KernelTemplate, Op, Params } from '../ir/op.ts';
import { apply1 } from '../tensor/apply.ts';
import { adoptInPlace } from './adopt-in-place.ts';
import { Tensor } from '../tensor/tensor.ts';
import { div, mul } from './arithmetic.ts';
import type { Operand } from './binary.ts';
import { gradientTo } from './broadcast.ts';
import {
  arithmeticCost,
  broadcastTemplate,
  defineOp,
  flopsOf,
  floats,
  inputExpr,
  present,
} from './define.ts';

type NoParams = Readonly<Record<never, never>>;

type AlphaParams = { readonly alpha: number };

export const addInPlaceOp: Op<Tensor, AlphaParams> = updateOp<AlphaParams>({
  name: 'addInPlace',
  operand: true,
  scalar: ({ alpha }) => alpha,
  expr: (x, y, alpha) => e.add(x, e.mul(alpha, y)),
  gradients: (g, { alpha }) => [g, () => (alpha === 1 ? g : mul(g, alpha))],
  params: { alpha: -1.5 },
});

/** x += alpha * y, in x's memory (torch.Tensor.add_). Returns x. */
export function addInPlace(x: Tensor, y: Operand, alpha = 1): Tensor {
  if (!(y instanceof Tensor)) return shiftInPlace(x, y * alpha);
  return adoptInPlace(x, apply1(addInPlaceOp, [x, y], { alpha }));
}

/** x -= y, in x's memory (torch.Tensor.sub_). Returns x. */
export function subInPlace(x: Tensor, y: Operand): Tensor {
  return addInPlace(x, y, -1);
}

type ValueParams = { readonly value: number };

export const addScalarInPlaceOp: Op<Tensor, ValueParams> = updateOp<ValueParams>({
  name: 'addScalarInPlace',
  operand: false,
  scalar: ({ value }) => value,
  expr: (x, _, value) => e.add(x, value),
  gradients: (g) => [g],
  params: { value: 0.75 },
});

function shiftInPlace(x: Tensor, value: number): Tensor {
  return adoptInPlace(x, apply1(addScalarInPlaceOp, [x], { value }));
}

export const mulScalarInPlaceOp: Op<Tensor, ValueParams> = updateOp<ValueParams>({
  name: 'mulScalarInPlace',
  operand: false,
  scalar: ({ value }) => value,
  expr: (x, _, value) => e.mul(x, value),
  gradients: (g, { value }) => [mul(g, value)],
  params: { value: -0.75 },
});

export const mulInPlaceOp: Op<Tensor, NoParams> = updateOp<NoParams>({
  name: 'mulInPlace',
  operand: true,
  // A gradient of y needs the old x: saving it makes backward fail with the error for tensors that
  // were changed after they were saved, as in PyTorch.
  saves: (needs) => (needs(1) ? ['x', 'y'] : ['y']),
  expr: (x, y) => e.mul(x, y),
  gradients: (g, _, saved) => [mul(g, saved('y')), () => mul(g, saved('x'))],
  params: {},
});

/**
 * x *= y, in x's memory (torch.Tensor.mul_). Returns x. When y wants a gradient, use mul: backward would
 * need the x that is gone, and throws AutogradError.
 */
export function mulInPlace(x: Tensor, y: Operand): Tensor {
  if (!(y instanceof Tensor)) {
    return adoptInPlace(x, apply1(mulScalarInPlaceOp, [x], { value: y }));
  }
  return adoptInPlace(x, apply1(mulInPlaceOp, [x, y]));
}

/** x /= y, in x's memory (torch.Tensor.div_). Returns x. */
export function divInPlace(x: Tensor, y: Operand): Tensor {
  return copyInPlace(x, div(x, y));
}

export const copyInPlaceOp: Op<Tensor, NoParams> = updateOp<NoParams>({
  name: 'copyInPlace',
  operand: true,
  anyDType: true,
  expr: (_, y) => y,
  gradients: (g) => [undefined, () => g],
  params: {},
});

/** Overwrites x with the values of y, broadcast and converted (torch.Tensor.copy_). Returns x. */
export function copyInPlace(x: Tensor, y: Tensor): Tensor {
  return adoptInPlace(x, apply1(copyInPlaceOp, [x, y]));
}

export const fillInPlaceOp: Op<Tensor, ValueParams> = updateOp<ValueParams>({
  name: 'fillInPlace',
  operand: false,
  anyDType: true,
  scalar: ({ value }) => value,
  expr: (_, __, value) => value,
  gradients: () => [undefined],
  params: { value: 2.5 },
});

/** Sets every element of x to `value` (torch.Tensor.fill_). Returns x. */
export function fillInPlace(x: Tensor, value: number): Tensor {
  return adoptInPlace(x, apply1(fillInPlaceOp, [x], { value }));
}

/** Sets every element of x to zero (torch.Tensor.zero_). Returns x. */
export function zeroInPlace(x: Tensor): Tensor {
  return fillInPlace(x, 0);
}

interface UpdateRecord<P> {
  readonly name: string;
  /** Whether there is a second tensor, `y`. */
  readonly operand: boolean;
  /** Values are converted to x's dtype whatever it is. */
  readonly anyDType?: boolean;
  readonly saves?: (needs: (input: number) => boolean) => readonly ('x' | 'y')[];
  /** The run-time scalar, in the compute type. */
  readonly scalar?: (params: P) => number;
  readonly expr: (x: Expr, y: Expr, scalar: Expr) => Expr;
  /** Gradients of x and, made when wanted, of y. */
  readonly gradients: (
    g: Tensor,
    params: P,
    saved: (name: 'x' | 'y') => Tensor,
  ) => readonly [Tensor | undefined, (() => Tensor)?];
  readonly params: P;
}

function updateOp<P extends Params>(record: UpdateRecord<P>): Op<Tensor, P> {
  const { name } = record;
  const template = ([x, y]: readonly Aval[], params: P): KernelTemplate => {
    const target = present(x);
    const wide = computeType(target.dtype);
    const own = inputExpr(0, target);
    const other = y ? e.cast(inputExpr(1, y), wide) : own;
    const value = record.scalar?.(params);
    const expr = record.expr(own, other, e.scalar(0, wide));
    const scalars = value === undefined ? [] : [{ type: wide, value }];
    return broadcastTemplate(target.shape, y ? [target, y] : [target], [expr], scalars);
  };
  return defineOp<P, readonly ('x' | 'y')[], 'x' | 'y'>({
    name,
    args: record.operand ? ['x', 'y'] : ['x'],
    traits: { class: 'elementwise', remat: 'cheap', updates: [{ input: 0, out: 0 }] },
    infer: (inputs, params) => {
      const x = present(inputs[0]);
      checkUpdate(name, x, inputs[1], record.scalar?.(params), record.anyDType ?? false);
      return [x];
    },
    cost: (inputs, outputs, params) => {
      const exprs = template(inputs, params).outputs.map((output) => output.expr);
      const work = flopsOf(exprs) * numElements(present(inputs[0]).shape);
      return arithmeticCost(inputs, outputs, work);
    },
    saves: (_, needs) => record.saves?.(needs) ?? [],
    vjp: ([g], { params, inputs, needs, saved }) => {
      if (!g) return [];
      const [forX, forY] = record.gradients(g, params, saved);
      const y = inputs[1];
      return [
        needs(0) ? forX : undefined,
        y && needs(1) ? forY && gradientTo(forY(), y) : undefined,
      ];
    },
    lower: { kind: 'kernel', template: (inputs, _, params) => template(inputs, params) },
    samples: [
      {
        label: 'matrix',
        inputs: record.operand ? [floats([3, 5]), floats([3, 5])] : [floats([3, 5])],
        params: record.params,
      },
      {
        label: 'vector',
        inputs: record.operand ? [floats([2, 7]), floats([7])] : [floats([7])],
        params: record.params,
      },
    ],
  });
}

function checkUpdate(
  name: string,
  x: Aval,
  y: Aval | undefined,
  scalar: number | undefined,
  anyDType: boolean,
): void {
  if (y && !sameShape(broadcastShapes(name, x.shape, y.shape), x.shape)) {
    throw new ShapeError(
      `${name}: the operand does not broadcast to the tensor that is changed (got ${formatShape(y.shape)} into ` +
        `${formatShape(x.shape)}). Reduce it first, or use the form that makes a tensor.`,
      { x: x.shape, y: y.shape },
    );
  }
  if (anyDType) return;
  const rank = { bool: 0, int: 1, float: 2 } as const;
  const kind = dtypes[x.dtype].kind;
  const scalarKind = scalar === undefined || Number.isInteger(scalar) ? 'int' : 'float';
  const wanted =
    y && rank[dtypes[y.dtype].kind] > rank[scalarKind] ? dtypes[y.dtype].kind : scalarKind;
  if (rank[wanted] > rank[kind]) {
    const got = y ? formatAval(y) : String(scalar);
    throw new DTypeError(
      `${name}: the result does not fit the tensor that is changed (got ${got} into ${formatAval(x)}). ` +
        `Cast the tensor first, or use the form that makes a tensor.`,
      { x: x.dtype, y: y?.dtype },
    );
  }
}
