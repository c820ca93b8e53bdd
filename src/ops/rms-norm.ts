/** Root-mean-square normalization over the last axis: one row kernel forward, one backward for x, and a column reduction for the weight. */

import { apply, apply1 } from '../tensor/apply.ts';
import { e } from '../ir/expr.ts';
import type { KernelTemplate, Op } from '../ir/op.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { add, div, mul } from './arithmetic.ts';
import { cast } from './broadcast.ts';
import { defineOp, floats, inputExpr, present } from './define.ts';
import {
  access,
  checkNorm,
  columnTemplate,
  constantRow,
  firstOf,
  perElement,
  rowSum,
  statistics,
} from './norm-template.ts';
import { mean } from './reductions.ts';
import { rsqrt, square } from './unary.ts';

type EpsParams = { readonly eps: number };
type NoParams = Readonly<Record<never, never>>;

export const rmsNormOp: Op<Tensor, EpsParams> = defineOp<
  EpsParams,
  readonly ['x', 'weight'],
  'x' | 'weight' | 'out1'
>({
  name: 'rmsNorm',
  args: ['x', 'weight'],
  traits: { class: 'normalization', remat: 'cheap', exactSaves: ['out1'] },
  infer: ([x, weight]) => {
    checkNorm('rmsNorm', present(x), { weight: present(weight) });
    return [present(x), statistics(present(x))];
  },
  cost: perElement(4),
  saves: ['x', 'weight', 'out1'],
  vjp: ([g, forRstd], { saved, needs, inputs }) => {
    const [x, weight, rstd] = [saved('x'), saved('weight'), saved('out1')];
    let dx = g && needs(0) ? apply1(rmsNormBackwardOp, [g, x, weight, rstd]) : undefined;
    if (forRstd && needs(0)) {
      const size = present(x.shape[x.rank - 1]);
      const slope = div(mul(forRstd, mul(rstd, mul(rstd, rstd))), -size);
      const more = cast(mul(x, slope), x.dtype);
      dx = dx ? add(dx, more) : more;
    }
    const dw = g && needs(1) ? apply1(normWeightBackwardOp, [g, x, rstd]) : undefined;
    return [dx, dw && cast(dw, present(inputs[1]).dtype)];
  },
  compose: ([x, weight], { eps }) => {
    const wide = cast(present(x), 'float32');
    const rstd = rsqrt(add(mean(square(wide), -1, { keepDims: true }), eps));
    return [cast(mul(mul(wide, rstd), present(weight)), present(x).dtype), rstd];
  },
  lower: {
    kind: 'kernel',
    template: ([x, weight], _, { eps }): KernelTemplate => {
      const { shape } = present(x);
      const at = access(shape);
      const value = inputExpr(0, present(x));
      const meanSquare = e.div(rowSum(e.mul(value, value)), e.f32(present(shape[at.last])));
      const rstd = e.unary('rsqrt', e.add(meanSquare, e.scalar(0)));
      const scaled = e.mul(e.mul(value, rstd), inputExpr(1, present(weight)));
      return {
        space: shape,
        reduced: [at.last],
        inputs: [at.full(0), at.column(1)],
        outputs: [
          { axes: at.own, expr: scaled },
          { axes: at.rowOut, expr: rstd },
        ],
        scalars: [{ type: 'f32', value: eps }],
      };
    },
  },
  samples: [
    { label: 'rows', inputs: [floats([3, 19]), floats([19])], params: { eps: 1e-5 } },
    { label: 'batch', inputs: [floats([2, 3, 8]), floats([8])], params: { eps: 0.25 } },
  ],
});

/** rstd * (g * w) - x * rstd^3 * mean(g * w * x) */
export const rmsNormBackwardOp: Op<Tensor, NoParams> = defineOp<
  NoParams,
  readonly ['g', 'x', 'weight', 'rstd'],
  never
>({
  name: 'rmsNormBackward',
  args: ['g', 'x', 'weight', 'rstd'],
  traits: { class: 'normalization', remat: 'cheap' },
  infer: ([, x]) => [present(x)],
  cost: perElement(7),
  saves: [],
  vjp: 'nondifferentiable',
  lower: {
    kind: 'kernel',
    template: ([g, x, weight, rstd]): KernelTemplate => {
      const { shape } = present(x);
      const at = access(shape);
      const value = inputExpr(1, present(x));
      const scale = inputExpr(3, present(rstd));
      const weighted = e.mul(inputExpr(0, present(g)), inputExpr(2, present(weight)));
      const size = e.f32(present(shape[at.last]));
      const dot = e.div(rowSum(e.mul(weighted, value)), size);
      const pull = e.mul(e.mul(scale, scale), dot);
      return {
        space: shape,
        reduced: [at.last],
        inputs: [at.full(0), at.full(1), at.column(2), at.row(3)],
        outputs: [{ axes: at.own, expr: e.mul(scale, e.sub(weighted, e.mul(value, pull))) }],
      };
    },
  },
  samples: [
    {
      label: 'rows',
      inputs: [floats([3, 19]), floats([3, 19]), floats([19]), floats([3, 1], [0.5, 2])],
      params: {},
    },
    {
      label: 'batch',
      inputs: [floats([2, 3, 8]), floats([2, 3, 8]), floats([8]), floats([2, 3, 1], [0.5, 2])],
      params: {},
    },
  ],
});

/** Sum over rows of g * x * rstd: the gradient of rmsNorm's weight, float32 [H]. */
export const normWeightBackwardOp: Op<Tensor, NoParams> = defineOp<
  NoParams,
  readonly ['g', 'x', 'rstd'],
  never
>({
  name: 'normWeightBackward',
  args: ['g', 'x', 'rstd'],
  traits: { class: 'normalization', remat: 'cheap' },
  infer: ([, x]) => [{ shape: present(x).shape.slice(-1), dtype: 'float32' }],
  cost: perElement(3),
  saves: [],
  vjp: 'nondifferentiable',
  lower: {
    kind: 'kernel',
    template: ([g, x, rstd]): KernelTemplate => {
      const { shape } = present(x);
      const at = access(shape);
      const normalized = e.mul(inputExpr(1, present(x)), inputExpr(2, present(rstd)));
      const term = e.mul(inputExpr(0, present(g)), normalized);
      return columnTemplate(shape, [at.full(0), at.full(1), at.row(2)], term);
    },
  },
  samples: [
    {
      label: 'rows',
      inputs: [floats([5, 19]), floats([5, 19]), floats([5, 1], [0.5, 2])],
      params: {},
    },
    {
      label: 'batch',
      inputs: [floats([2, 3, 8]), floats([2, 3, 8]), floats([2, 3, 1], [0.5, 2])],
      params: {},
    },
  ],
});

/**
 * x / sqrt(mean(x^2) + eps) * weight over the last axis, weight [H] or none (torch.nn.functional.rms_norm;
 * arXiv 1910.07467). Computed in float32; the result has the dtype of x.
 */
export function rmsNorm(x: Tensor, weight?: Tensor, eps = 1e-6): Tensor {
  return firstOf(apply(rmsNormOp, [x, weight ?? constantRow(x, 1)], { eps }));
}
