/** softmax and logSoftmax: one row kernel forward, one backward. */

import { normalizeAxis, numElements } from '../core/shape.ts';
import type { Aval } from '../ir/aval.ts';
import { type Expr, e } from '../ir/expr.ts';
import type { Op } from '../ir/op.ts';
import { apply1 } from '../tensor/apply.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { mul, sub } from './arithmetic.ts';
import { reshape, sum } from './broadcast.ts';
import {
  arithmeticCost,
  defineOp,
  flopsOf,
  floats,
  inputExpr,
  ownAxes,
  present,
  requireFloat,
} from './define.ts';
import { exp, neg } from './unary.ts';

type AxisParams = { readonly axis: number };
type RowOp = Op<Tensor, AxisParams>;

/** An op of operands of one shape whose value depends on a row along `axis`. */
function rowOp<A extends readonly string[], S extends A[number] | 'out'>(record: {
  readonly name: string;
  readonly args: A;
  readonly expr: (inputs: readonly Expr[]) => Expr;
  readonly saves: readonly S[];
  readonly vjp: (
    g: Tensor,
    saved: (name: S) => Tensor,
    params: AxisParams,
  ) => readonly (Tensor | undefined)[];
  readonly range?: readonly [number, number];
}): RowOp {
  const { name, args, vjp } = record;
  const exprOf = (inputs: readonly Aval[]): Expr =>
    record.expr(inputs.map((x, i) => inputExpr(i, x)));
  const sampleOf = (shape: readonly number[]) => args.map(() => floats(shape, record.range));
  return defineOp<AxisParams, readonly string[], string & 'out'>({
    name,
    args,
    traits: { class: 'normalization', remat: 'cheap' },
    infer: (inputs) => {
      const x = present(inputs[inputs.length - 1]);
      requireFloat(name, x);
      return [x];
    },
    cost: (inputs, outputs) => {
      const work = flopsOf([exprOf(inputs)]) * numElements(present(inputs[0]).shape);
      return arithmeticCost(inputs, outputs, work);
    },
    saves: record.saves as readonly string[] as readonly 'out'[],
    vjp: ([g], { params, saved }) =>
      g ? vjp(g, (saveName) => saved(saveName as 'out'), params) : [],
    lower: {
      kind: 'kernel',
      template: (inputs, [out], { axis }) => {
        const { shape } = present(out);
        return {
          space: shape,
          reduced: [axis],
          inputs: inputs.map((_, operand) => ({ operand, axes: ownAxes(shape) })),
          outputs: [{ axes: ownAxes(shape), expr: exprOf(inputs) }],
        };
      },
    },
    samples: [
      { label: 'rows', inputs: sampleOf([3, 19]), params: { axis: 1 } },
      { label: 'columns', inputs: sampleOf([7, 5]), params: { axis: 0 } },
      { label: 'middle', inputs: sampleOf([2, 5, 3]), params: { axis: 1 } },
    ],
  });
}

const total = (x: Expr): Expr => e.reduce('sum', x);

const shifted = ([x]: readonly Expr[]): Expr => e.sub(present(x), e.reduce('max', present(x)));

export const softmaxOp: RowOp = rowOp({
  name: 'softmax',
  args: ['x'],
  expr: (inputs) => {
    const power = e.unary('exp', shifted(inputs));
    return e.div(power, total(power));
  },
  saves: ['out'],
  vjp: (g, saved, params) => [apply1(softmaxBackwardOp, [g, saved('out')], params)],
  range: [-3, 3],
});

/** exp(x) / sum(exp(x)) along an axis, without overflow (torch.softmax). Saves its result. */
export function softmax(x: Tensor, axis = -1): Tensor {
  return alongAxis(softmaxOp, x, axis);
}

/** y * (g - sum(g * y)): the gradient of y = softmax(x). */
export const softmaxBackwardOp: RowOp = rowOp({
  name: 'softmaxBackward',
  args: ['g', 'y'],
  expr: ([first, second]) => {
    const [g, y] = [present(first), present(second)];
    return e.mul(y, e.sub(g, total(e.mul(g, y))));
  },
  saves: ['g', 'y'],
  vjp: (c, saved, { axis }) => {
    const [g, y] = [saved('g'), saved('y')];
    const dot = (a: Tensor, b: Tensor): Tensor => sum(mul(a, b), axis, { keepDims: true });
    const forY = sub(mul(c, sub(g, dot(g, y))), mul(g, dot(c, y)));
    return [apply1(softmaxBackwardOp, [c, y], { axis }), forY];
  },
});

export const logSoftmaxOp: RowOp = rowOp({
  name: 'logSoftmax',
  args: ['x'],
  expr: (inputs) => {
    const x = shifted(inputs);
    return e.sub(x, e.unary('log', total(e.unary('exp', x))));
  },
  saves: ['out'],
  vjp: (g, saved, params) => [apply1(logSoftmaxBackwardOp, [g, saved('out')], params)],
  range: [-3, 3],
});

/** x - logsumexp(x) along an axis (torch.log_softmax). Saves its result. */
export function logSoftmax(x: Tensor, axis = -1): Tensor {
  return alongAxis(logSoftmaxOp, x, axis);
}

/** g - exp(y) * sum(g): the gradient of y = logSoftmax(x). */
export const logSoftmaxBackwardOp: RowOp = rowOp({
  name: 'logSoftmaxBackward',
  args: ['g', 'y'],
  expr: ([first, second]) => {
    const [g, y] = [present(first), present(second)];
    return e.sub(g, e.mul(e.unary('exp', y), total(g)));
  },
  saves: ['g', 'y'],
  vjp: (c, saved, { axis }) => {
    const power = exp(saved('y'));
    const weighted = mul(c, power);
    const forG = sub(c, sum(weighted, axis, { keepDims: true }));
    return [forG, neg(mul(weighted, sum(saved('g'), axis, { keepDims: true })))];
  },
});

function alongAxis(op: RowOp, x: Tensor, axis: number): Tensor {
  const at = normalizeAxis(op.name, axis, x.rank);
  if (x.rank === 0) return reshape(apply1(op, [reshape(x, [1])], { axis: 0 }), []);
  return apply1(op, [x], { axis: at });
}
