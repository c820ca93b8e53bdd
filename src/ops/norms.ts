/**
 * rmsNorm and layerNorm over the last axis. Forward is one row kernel that also gives each row's
 * statistics; backward is one row kernel for x and one column reduction for each parameter.
 *
 * Letters: x [..., H]; rows R = product of the axes before H; weight, bias [H]; statistics [..., 1],
 * float32.
 */

import { ShapeError } from '../core/errors.ts';
import { type Shape, formatShape, numElements } from '../core/shape.ts';
import type { Aval } from '../ir/aval.ts';
import { type Expr, e } from '../ir/expr.ts';
import type { KernelTemplate, Op, TemplateInput } from '../ir/op.ts';
import { apply, apply1 } from '../tensor/apply.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { add, div, mul, sub } from './arithmetic.ts';
import { cast, expand, sum } from './broadcast.ts';
import { full } from './creation.ts';
import {
  arithmeticCost,
  defineOp,
  floats,
  inputExpr,
  ownAxes,
  present,
  requireFloat,
} from './define.ts';
import { mean } from './reductions.ts';
import { rsqrt, square } from './unary.ts';

type EpsParams = { readonly eps: number };
type NoParams = Readonly<Record<never, never>>;

const total = (x: Expr): Expr => e.reduce('sum', x);

function statistics(x: Aval): Aval {
  return { shape: [...x.shape.slice(0, -1), 1], dtype: 'float32' };
}

function checkNorm(who: string, x: Aval, parameters: Readonly<Record<string, Aval>>): void {
  requireFloat(who, x);
  const size = x.shape[x.shape.length - 1];
  for (const [name, { shape }] of Object.entries(parameters)) {
    if (size !== undefined && shape.length === 1 && shape[0] === size) continue;
    throw new ShapeError(
      `${who}: ${name} must have one element for each of the last axis of x (got ${name} ${formatShape(shape)}, ` +
        `x ${formatShape(x.shape)}). Make it [${size ?? '?'}].`,
      { x: x.shape, [name]: shape },
    );
  }
}

/** Kernel access of x-shaped operands, statistics (one per row) and parameters (one per column). */
function access(shape: Shape) {
  const own = ownAxes(shape);
  const last = shape.length - 1;
  return {
    own,
    last,
    full: (operand: number): TemplateInput => ({ operand, axes: own }),
    row: (operand: number): TemplateInput => ({
      operand,
      axes: own.map((axis) => (axis === last ? -1 : axis)),
    }),
    column: (operand: number): TemplateInput => ({
      operand,
      axes: own.map((axis) => (axis === last ? 0 : -1)),
    }),
    rowOut: own.map((axis) => (axis === last ? -1 : axis)),
    columnOut: own.map((axis) => (axis === last ? 0 : -1)),
  };
}

const perElement = (flops: number) => (inputs: readonly Aval[], outputs: readonly Aval[]) =>
  arithmeticCost(inputs, outputs, flops * Math.max(...inputs.map((x) => numElements(x.shape)), 0));

// rmsNorm

export const rmsNormOp: Op<Tensor, EpsParams> = defineOp<
  EpsParams,
  readonly ['x', 'weight'],
  'x' | 'weight' | 'out1'
>({
  name: 'rmsNorm',
  args: ['x', 'weight'],
  traits: { class: 'normalization', remat: 'cheap' },
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
      const meanSquare = e.div(total(e.mul(value, value)), e.f32(present(shape[at.last])));
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
      const dot = e.div(total(e.mul(weighted, value)), size);
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

/** Sum of `term` over all axes but the last. */
function columnTemplate(
  shape: Shape,
  inputs: readonly TemplateInput[],
  term: Expr,
): KernelTemplate {
  const at = access(shape);
  const reduced = at.own.slice(0, -1);
  const expr = reduced.length === 0 ? term : total(term);
  return { space: shape, reduced, inputs, outputs: [{ axes: at.columnOut, expr }] };
}

/**
 * x / sqrt(mean(x^2) + eps) * weight over the last axis, weight [H] or none (torch.nn.functional.rms_norm;
 * arXiv 1910.07467). Computed in float32; the result has the dtype of x.
 */
export function rmsNorm(x: Tensor, weight?: Tensor, eps = 1e-6): Tensor {
  return first(apply(rmsNormOp, [x, weight ?? constantRow(x, 1)], { eps }));
}

// layerNorm

export const layerNormOp: Op<Tensor, EpsParams> = defineOp<
  EpsParams,
  readonly ['x', 'weight', 'bias'],
  'x' | 'weight' | 'bias' | 'out1' | 'out2'
>({
  name: 'layerNorm',
  args: ['x', 'weight', 'bias'],
  traits: { class: 'normalization', remat: 'cheap' },
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
      const center = e.div(total(value), size);
      const deviation = e.sub(value, center);
      const spread = e.div(total(e.mul(deviation, deviation)), size);
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
      const average = e.div(total(weighted), size);
      const dot = e.div(total(e.mul(weighted, normalized)), size);
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
  return first(apply(layerNormOp, inputs, { eps }));
}

function constantRow(x: Tensor, value: number): Tensor {
  return full(x.shape.slice(-1), value);
}

/** The result proper; the statistics' handles are closed, backward holds its own. */
function first(outputs: readonly Tensor[]): Tensor {
  for (const statistic of outputs.slice(1)) statistic.dispose();
  return present(outputs[0]);
}
