/** Layer normalization over the last axis: one row kernel forward, one backward for x, and column reductions for the parameters. */

import { apply, apply1 } from '../tensor/apply.ts';
import { e } from '../ir/expr.ts';
import type { KernelTemplate, Op } from '../ir/op.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { add, div, mul, sub } from './arithmetic.ts';
import { cast, expand, sum } from './broadcast.ts';
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

export const layerNormOp: Op<Tensor, EpsParams> = defineOp<
  EpsParams,
  readonly ['x', 'weight', 'bias'],
  'x' | 'weight' | 'bias' | 'out1' | 'out2'
>({
  name: 'layerNorm',
  args: ['x', 'weight', 'bias'],
  traits: { class: 'normalization', remat: 'cheap', exactSaves: ['out1', 'out2'] },
  infer: ([x, weight, bias]) => {
    checkNorm('layerNorm', present(x), { weight: present(weight), bias: present(bias) });
    return [present(x), statistics(present(x)), statistics(present(x))];
  },
  cost: perElement(8),
  saves: ['x', 'weight', 'bias', 'out1', 'out2'],
  vjp: ([g, forMean, forRstd], { saved, needs, inputs }) => {
    const [x, weight, center, rstd] = [saved('x'), saved('weight'), saved('out1'), saved('out2')];
    let dx = g && needs(0) ? apply1(layerNormBackwardOp, [g, x, weight, center, rstd]) : undefined;
    if (needs(0)) {
      const size = present(x.shape[x.rank - 1]);
      const more: Tensor[] = [];
      if (forMean) more.push(div(forMean, size));
      if (forRstd) {
        const slope = div(mul(forRstd, mul(rstd, mul(rstd, rstd))), -size);
        more.push(mul(sub(x, center), slope));
      }
      for (const part of more) {
        dx = dx ? add(dx, part) : expand(part, x.shape);
      }
    }
    const dw = g && needs(1) ? apply1(layerNormWeightBackwardOp, [g, x, center, rstd]) : undefined;
    const rows = Array.from({ length: x.rank - 1 }, (_, axis) => axis);
    const db = g && needs(2) ? sum(g, rows, { dtype: 'float32' }) : undefined;
    return [dx, dw && cast(dw, present(inputs[1]).dtype), db && cast(db, present(inputs[2]).dtype)];
  },
  compose: ([x, weight, bias], { eps }) => {
    const wide = cast(present(x), 'float32');
    const center = mean(wide, -1, { keepDims: true });
    const deviation = sub(wide, center);
    const rstd = rsqrt(add(mean(square(deviation), -1, { keepDims: true }), eps));
    const out = add(mul(mul(deviation, rstd), present(weight)), present(bias));
    return [cast(out, present(x).dtype), center, rstd];
  },
  lower: {
    kind: 'kernel',
    template: ([x, weight, bias], _, { eps }): KernelTemplate => {
      const { shape } = present(x);
      const at = access(shape);
      const value = inputExpr(0, present(x));
      const size = e.f32(present(shape[at.last]));
      const center = e.div(rowSum(value), size);
      const deviation = e.sub(value, center);
      const spread = e.div(rowSum(e.mul(deviation, deviation)), size);
      const rstd = e.unary('rsqrt', e.add(spread, e.scalar(0)));
      const scaled = e.mul(e.mul(deviation, rstd), inputExpr(1, present(weight)));
      return {
        space: shape,
        reduced: [at.last],
        inputs: [at.full(0), at.column(1), at.column(2)],
        outputs: [
          { axes: at.own, expr: e.add(scaled, inputExpr(2, present(bias))) },
          { axes: at.rowOut, expr: center },
          { axes: at.rowOut, expr: rstd },
        ],
        scalars: [{ type: 'f32', value: eps }],
      };
    },
  },
  samples: [
    { label: 'rows', inputs: [floats([3, 19]), floats([19]), floats([19])], params: { eps: 1e-5 } },
    {
      label: 'batch',
      inputs: [floats([2, 3, 8]), floats([8]), floats([8])],
      params: { eps: 0.25 },
    },
  ],
});

/** rstd * (gw - mean(gw) - n * mean(gw * n)), where gw = g * weight and n = (x - mean) * rstd. */
export const layerNormBackwardOp: Op<Tensor, NoParams> = defineOp<
  NoParams,
  readonly ['g', 'x', 'weight', 'mean', 'rstd'],
  never
>({
  name: 'layerNormBackward',
  args: ['g', 'x', 'weight', 'mean', 'rstd'],
  traits: { class: 'normalization', remat: 'cheap' },
  infer: ([, x]) => [present(x)],
  cost: perElement(10),
  saves: [],
  vjp: 'nondifferentiable',
  lower: {
    kind: 'kernel',
    template: ([g, x, weight, center, rstd]): KernelTemplate => {
      const { shape } = present(x);
      const at = access(shape);
      const size = e.f32(present(shape[at.last]));
      const scale = inputExpr(4, present(rstd));
      const deviation = e.sub(inputExpr(1, present(x)), inputExpr(3, present(center)));
      const normalized = e.mul(deviation, scale);
      const weighted = e.mul(inputExpr(0, present(g)), inputExpr(2, present(weight)));
      const average = e.div(rowSum(weighted), size);
      const dot = e.div(rowSum(e.mul(weighted, normalized)), size);
      const inner = e.sub(e.sub(weighted, average), e.mul(normalized, dot));
      return {
        space: shape,
        reduced: [at.last],
        inputs: [at.full(0), at.full(1), at.column(2), at.row(3), at.row(4)],
        outputs: [{ axes: at.own, expr: e.mul(scale, inner) }],
      };
    },
  },
  samples: [
    {
      label: 'rows',
      inputs: [
        floats([3, 19]),
        floats([3, 19]),
        floats([19]),
        floats([3, 1]),
        floats([3, 1], [0.5, 2]),
      ],
      params: {},
    },
  ],
});

/** Sum over rows of g * (x - mean) * rstd: the gradient of layerNorm's weight, float32 [H]. */
export const layerNormWeightBackwardOp: Op<Tensor, NoParams> = defineOp<
  NoParams,
  readonly ['g', 'x', 'mean', 'rstd'],
  never
>({
  name: 'layerNormWeightBackward',
  args: ['g', 'x', 'mean', 'rstd'],
  traits: { class: 'normalization', remat: 'cheap' },
  infer: ([, x]) => [{ shape: present(x).shape.slice(-1), dtype: 'float32' }],
  cost: perElement(4),
  saves: [],
  vjp: 'nondifferentiable',
  lower: {
    kind: 'kernel',
    template: ([g, x, center, rstd]): KernelTemplate => {
      const { shape } = present(x);
      const at = access(shape);
      const deviation = e.sub(inputExpr(1, present(x)), inputExpr(2, present(center)));
      const normalized = e.mul(deviation, inputExpr(3, present(rstd)));
      const term = e.mul(inputExpr(0, present(g)), normalized);
      return columnTemplate(shape, [at.full(0), at.full(1), at.row(2), at.row(3)], term);
    },
  },
  samples: [
    {
      label: 'rows',
      inputs: [floats([5, 19]), floats([5, 19]), floats([5, 1]), floats([5, 1], [0.5, 2])],
      params: {},
    },
  ],
});

/**
 * (x - mean) / sqrt(variance + eps) * weight + bias over the last axis, weight and bias [H] or none
 * (torch.nn.functional.layer_norm; arXiv 1607.06450). Computed in float32; the result has the dtype of x.
 */
export function layerNorm(x: Tensor, weight?: Tensor, bias?: Tensor, eps = 1e-5): Tensor {
  const inputs = [x, weight ?? constantRow(x, 1), bias ?? constantRow(x, 0)];
  return firstOf(apply(layerNormOp, inputs, { eps }));
}
