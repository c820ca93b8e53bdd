/** Elementwise functions of one tensor. Each is the torch function of the same name. */

import { type Expr, type UnaryOp, e } from '../ir/expr.ts';
import type { Op } from '../ir/op.ts';
import { apply1 } from '../tensor/apply.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { floats, present } from './define.ts';
import { type DTypeRule, type PointwiseRecord, pointwise } from './pointwise.ts';

export type NoParams = Readonly<Record<never, never>>;
export type UnaryRecordOp = Op<Tensor, NoParams>;

/** One op of one tensor; `range` is where its samples lie. */
export function unary(
  name: string,
  dtypes: DTypeRule,
  expr: (x: Expr) => Expr,
  options: {
    readonly gradients?: PointwiseRecord<readonly ['x'], NoParams>['gradients'];
    readonly range?: readonly [number, number];
  } = {},
): UnaryRecordOp {
  const range = options.range ?? [-2, 2];
  return pointwise<NoParams, readonly ['x']>({
    name,
    args: ['x'],
    dtypes,
    expr: ([x]) => expr(present(x)),
    gradients: options.gradients ?? 'symbolic',
    samples: [
      { label: 'matrix', inputs: [floats([3, 7], range)], params: {} },
      { label: 'cube', inputs: [floats([2, 3, 11], range)], params: {} },
    ],
  });
}

/** The gradient g * slope(out), which saves the output in place of the input. */
const fromOutput =
  (slope: (out: Expr, g: Expr) => Expr) =>
  ({ g, out }: { readonly g: Expr; readonly out: Expr }): readonly Expr[] => [slope(out, g)];

const primitive =
  (op: UnaryOp) =>
  (x: Expr): Expr =>
    e.unary(op, x);

/** Ints are whole already: rounding functions leave them alone. */
const rounding =
  (op: 'floor' | 'ceil' | 'round') =>
  (x: Expr): Expr =>
    x.type === 'f32' ? e.unary(op, x) : x;

export const negOp: UnaryRecordOp = unary('neg', 'number', primitive('neg'));
export const neg = (x: Tensor): Tensor => apply1(negOp, [x]);

export const absOp: UnaryRecordOp = unary('abs', 'number', (x) =>
  x.type === 'u32' ? x : e.unary('abs', x),
);
export const abs = (x: Tensor): Tensor => apply1(absOp, [x]);

// From comparisons, so that NaN gives 0 as in PyTorch.
export const signOp: UnaryRecordOp = unary('sign', 'number', (x) => {
  const zero = e.constant(0, x.type);
  const below =
    x.type === 'u32' ? zero : e.select(e.binary('lt', x, zero), e.constant(-1, x.type), zero);
  return e.select(e.binary('gt', x, zero), e.constant(1, x.type), below);
});
/** -1, 0 or 1; 0 for NaN. */
export const sign = (x: Tensor): Tensor => apply1(signOp, [x]);

export const expOp: UnaryRecordOp = unary('exp', 'float', primitive('exp'), {
  gradients: fromOutput((out, g) => e.mul(g, out)),
});
export const exp = (x: Tensor): Tensor => apply1(expOp, [x]);

export const expm1Op: UnaryRecordOp = unary('expm1', 'float', primitive('expm1'), {
  gradients: fromOutput((out, g) => e.mul(g, e.add(out, e.f32(1)))),
});
/** exp(x) - 1, exact for small x. */
export const expm1 = (x: Tensor): Tensor => apply1(expm1Op, [x]);

export const logOp: UnaryRecordOp = unary('log', 'float', primitive('log'), {
  gradients: ({ g, inputs: [x] }) => [e.div(g, present(x))],
  range: [0.2, 3],
});
export const log = (x: Tensor): Tensor => apply1(logOp, [x]);

export const log1pOp: UnaryRecordOp = unary('log1p', 'float', primitive('log1p'), {
  gradients: ({ g, inputs: [x] }) => [e.div(g, e.add(present(x), e.f32(1)))],
  range: [-0.6, 3],
});
/** log(1 + x), exact for small x. */
export const log1p = (x: Tensor): Tensor => apply1(log1pOp, [x]);

export const sqrtOp: UnaryRecordOp = unary('sqrt', 'float', primitive('sqrt'), {
  gradients: fromOutput((out, g) => e.div(g, e.mul(e.f32(2), out))),
  range: [0.2, 3],
});
export const sqrt = (x: Tensor): Tensor => apply1(sqrtOp, [x]);

export const rsqrtOp: UnaryRecordOp = unary('rsqrt', 'float', primitive('rsqrt'), {
  gradients: fromOutput((out, g) => e.mul(e.mul(e.f32(-0.5), g), e.mul(out, e.mul(out, out)))),
  range: [0.2, 3],
});
/** 1 / sqrt(x). */
export const rsqrt = (x: Tensor): Tensor => apply1(rsqrtOp, [x]);

export const reciprocalOp: UnaryRecordOp = unary('reciprocal', 'float', primitive('reciprocal'), {
  gradients: fromOutput((out, g) => e.unary('neg', e.mul(g, e.mul(out, out)))),
  range: [0.3, 2],
});
/** 1 / x. */
export const reciprocal = (x: Tensor): Tensor => apply1(reciprocalOp, [x]);

export const squareOp: UnaryRecordOp = unary('square', 'number', (x) => e.mul(x, x), {
  gradients: ({ g, inputs: [x] }) => [e.mul(g, e.mul(e.f32(2), present(x)))],
});
export const square = (x: Tensor): Tensor => apply1(squareOp, [x]);

export const sinOp: UnaryRecordOp = unary('sin', 'float', primitive('sin'));
export const sin = (x: Tensor): Tensor => apply1(sinOp, [x]);

export const cosOp: UnaryRecordOp = unary('cos', 'float', primitive('cos'));
export const cos = (x: Tensor): Tensor => apply1(cosOp, [x]);

export const tanhOp: UnaryRecordOp = unary('tanh', 'float', primitive('tanh'), {
  gradients: fromOutput((out, g) => e.mul(g, e.sub(e.f32(1), e.mul(out, out)))),
});
export const tanh = (x: Tensor): Tensor => apply1(tanhOp, [x]);

export const erfOp: UnaryRecordOp = unary('erf', 'float', primitive('erf'));
export const erf = (x: Tensor): Tensor => apply1(erfOp, [x]);

export const sigmoidOp: UnaryRecordOp = unary('sigmoid', 'float', primitive('sigmoid'), {
  gradients: fromOutput((out, g) => e.mul(g, e.mul(out, e.sub(e.f32(1), out)))),
});
/** 1 / (1 + exp(-x)). */
export const sigmoid = (x: Tensor): Tensor => apply1(sigmoidOp, [x]);

export const floorOp: UnaryRecordOp = unary('floor', 'number', rounding('floor'));
export const floor = (x: Tensor): Tensor => apply1(floorOp, [x]);

export const ceilOp: UnaryRecordOp = unary('ceil', 'number', rounding('ceil'));
export const ceil = (x: Tensor): Tensor => apply1(ceilOp, [x]);

export const roundOp: UnaryRecordOp = unary('round', 'number', rounding('round'));
/** Nearest integer, ties to even. */
export const round = (x: Tensor): Tensor => apply1(roundOp, [x]);
