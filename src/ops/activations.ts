/** Activation functions of networks, and clamp. */

import { ArgumentError } from '../core/errors.ts';
import { type Expr, e } from '../ir/expr.ts';
import type { Op } from '../ir/op.ts';
import { apply1 } from '../tensor/apply.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { floats, present } from './define.ts';
import { pointwise } from './pointwise.ts';
import { type NoParams, type UnaryRecordOp, unary } from './unary.ts';

const zero = e.f32(0);
const one = e.f32(1);
const half = e.f32(0.5);

const silu_ = (x: Expr): Expr => e.mul(x, e.unary('sigmoid', x));

export const reluOp: UnaryRecordOp = unary(
  'relu',
  'number',
  (x) => e.binary('max', x, e.constant(0, x.type)),
  { gradients: ({ g, out }) => [e.select(e.binary('gt', out, zero), g, zero)] },
);
/** max(x, 0) (torch.nn.functional.relu); slope 0 at 0. */
export const relu = (x: Tensor): Tensor => apply1(reluOp, [x]);

export const siluOp: UnaryRecordOp = unary('silu', 'float', silu_);
/** x * sigmoid(x) (torch.nn.functional.silu). */
export const silu = (x: Tensor): Tensor => apply1(siluOp, [x]);

export const geluOp: UnaryRecordOp = unary('gelu', 'float', (x) =>
  e.mul(e.mul(x, half), e.add(one, e.unary('erf', e.mul(x, e.f32(Math.SQRT1_2))))),
);
/** x * Phi(x) with the exact normal distribution function (torch gelu, approximate='none'). */
export const gelu = (x: Tensor): Tensor => apply1(geluOp, [x]);

export const geluTanhOp: UnaryRecordOp = unary('geluTanh', 'float', (x) => {
  const cubed = e.mul(x, e.mul(x, x));
  const inner = e.mul(e.f32(Math.sqrt(2 / Math.PI)), e.add(x, e.mul(e.f32(0.044715), cubed)));
  return e.mul(e.mul(x, half), e.add(one, e.unary('tanh', inner)));
});
/** The tanh approximation of gelu (torch gelu, approximate='tanh'). */
export const geluTanh = (x: Tensor): Tensor => apply1(geluTanhOp, [x]);

const decay = (x: Expr): Expr =>
  e.unary('log1p', e.unary('exp', e.unary('neg', e.unary('abs', x))));

export const softplusOp: UnaryRecordOp = unary(
  'softplus',
  'float',
  (x) => e.add(e.binary('max', x, zero), decay(x)),
  { gradients: ({ g, inputs: [x] }) => [e.mul(g, e.unary('sigmoid', present(x)))] },
);
/** log(1 + exp(x)), no overflow for large x (torch.nn.functional.softplus). */
export const softplus = (x: Tensor): Tensor => apply1(softplusOp, [x]);

export const logSigmoidOp: UnaryRecordOp = unary(
  'logSigmoid',
  'float',
  (x) => e.sub(e.binary('min', x, zero), decay(x)),
  {
    gradients: ({ g, inputs: [x] }) => [e.mul(g, e.unary('sigmoid', e.unary('neg', present(x))))],
  },
);
/** log(sigmoid(x)), exact for very negative x (torch.nn.functional.logsigmoid). */
export const logSigmoid = (x: Tensor): Tensor => apply1(logSigmoidOp, [x]);

export const swigluOp: Op<Tensor, NoParams> = pointwise<NoParams, readonly ['gate', 'up']>({
  name: 'swiglu',
  args: ['gate', 'up'],
  dtypes: 'float',
  expr: ([gate, up]) => e.mul(silu_(present(gate)), present(up)),
  gradients: 'symbolic',
  samples: [
    { label: 'matrix', inputs: [floats([3, 7], [-2, 2]), floats([3, 7], [-2, 2])], params: {} },
    { label: 'cube', inputs: [floats([2, 3, 5], [-2, 2]), floats([2, 3, 5], [-2, 2])], params: {} },
  ],
});

/**
 * silu(gate) * up, the gated unit of "GLU Variants Improve Transformer" (arXiv 2002.05202). One kernel
 * forward and one backward; saves the two inputs.
 */
export function swiglu(gate: Tensor, up: Tensor): Tensor {
  return apply1(swigluOp, [gate, up]);
}

type ClampParams = { readonly min: number; readonly max: number };

export const clampOp: Op<Tensor, ClampParams> = pointwise<ClampParams, readonly ['x']>({
  name: 'clamp',
  args: ['x'],
  dtypes: 'number',
  scalars: ({ min, max }, type) => [
    { type, value: min },
    { type, value: max },
  ],
  expr: ([x]) => {
    const at = present(x);
    const low = e.scalar(0, at.type);
    return e.binary('min', e.binary('max', at, low), e.scalar(1, at.type));
  },
  gradients: ({ g, inputs: [x] }) => {
    const at = present(x);
    const inside = e.binary(
      'and',
      e.binary('ge', at, e.scalar(0)),
      e.binary('le', at, e.scalar(1)),
    );
    return [e.select(inside, g, zero)];
  },
  samples: [
    { label: 'both', inputs: [floats([3, 7], [-2, 2])], params: { min: -0.63, max: 0.87 } },
    { label: 'below', inputs: [floats([11], [-2, 2])], params: { min: 0.41, max: Infinity } },
  ],
});

/**
 * x limited to [min, max], either of which may be left out (torch.clamp). The gradient passes where
 * x lies in the closed interval.
 */
export function clamp(x: Tensor, limits: { readonly min?: number; readonly max?: number }): Tensor {
  const { min, max } = limits;
  if (min === undefined && max === undefined) {
    throw new ArgumentError('clamp: neither min nor max is given. Give at least one.');
  }
  const lowest = x.dtype === 'uint32' ? 0 : x.dtype.includes('int') ? -(2 ** 31) : -Infinity;
  const highest =
    x.dtype === 'uint32' ? 2 ** 32 - 1 : x.dtype.includes('int') ? 2 ** 31 - 1 : Infinity;
  return apply1(clampOp, [x], { min: min ?? lowest, max: max ?? highest });
}
