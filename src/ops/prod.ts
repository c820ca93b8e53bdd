/** Products. */

import { numElements } from '../core/shape.ts';
import { type Expr, type ReduceOp, e } from '../ir/expr.ts';
import type { Op } from '../ir/op.ts';
import { apply1 } from '../tensor/apply.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { mul } from './arithmetic.ts';
import { type Axes, reshape } from './broadcast.ts';
import {
  type ReduceParams,
  arithmeticCost,
  defineOp,
  floats,
  inputExpr,
  ownAxes,
  present,
  reducedShape,
  reductionOp,
} from './define.ts';
import {
  type ReduceOptions,
  reduceOver,
  reduceSamples,
  runReduction,
  wholeNumber,
  withKept,
} from './reductions.ts';
import { narrow } from './slice.ts';

export const prodOp: Op<Tensor, ReduceParams> = reductionOp<ReduceParams, 'x'>({
  name: 'prod',
  dtype: wholeNumber,
  expr: (x, { params }) => reduceOver('prod', x.type === 'bool' ? e.cast(x, 'i32') : x, params),
  saves: ['x'],
  vjp: (g, { inputs, params, saved }) => {
    const x = present(inputs[0]);
    return apply1(prodBackwardOp, [withKept(g, x, params), saved('x')], { axes: params.axes });
  },
  compose: (x, params) => prodByHalves(x, params),
  samples: reduceSamples([0.3, 1.7]),
});

/** The product over `axes` (torch.prod). The gradient is right where elements are zero, too. */
export function prod(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  return runReduction(prodOp, x, axes, options);
}

/** prod in ops with second derivatives: multiplies halves of an axis until one element is left. */
function prodByHalves(x: Tensor, params: ReduceParams): Tensor {
  let rest = x;
  for (const axis of params.axes) {
    let odd: Tensor | undefined;
    if (rest.shape[axis] === 0) return apply1(prodOp, [x], params);
    for (let size = present(rest.shape[axis]); size > 1; size = Math.floor(size / 2)) {
      const half = Math.floor(size / 2);
      if (size % 2 === 1) {
        const last = narrow(rest, axis, size - 1, 1);
        odd = odd ? mul(odd, last) : last;
      }
      rest = mul(narrow(rest, axis, 0, half), narrow(rest, axis, half, half));
    }
    if (odd) rest = mul(rest, odd);
  }
  return params.keepDims ? rest : reshape(rest, reducedShape(x.shape, params));
}

type ProdBackwardParams = { readonly axes: readonly number[] };

/** g * (product of the row's other elements), for g with kept axes. */
export const prodBackwardOp: Op<Tensor, ProdBackwardParams> = defineOp<
  ProdBackwardParams,
  readonly ['g', 'x'],
  never
>({
  name: 'prodBackward',
  args: ['g', 'x'],
  traits: { class: 'reduction', remat: 'cheap' },
  infer: ([, x]) => [present(x)],
  cost: (inputs, outputs) =>
    arithmeticCost(inputs, outputs, 6 * numElements(present(inputs[1]).shape)),
  saves: [],
  vjp: 'nondifferentiable',
  lower: {
    kind: 'kernel',
    template: ([g, input], _, { axes }) => {
      const x = inputExpr(1, present(input));
      const { shape } = present(input);
      const [zero, one] = [e.f32(0), e.f32(1)];
      const isZero = e.binary('eq', x, zero);
      const over = (op: ReduceOp, value: Expr): Expr =>
        axes.length === 0 ? value : e.reduce(op, value);
      const zeros = over('sum', e.select(isZero, one, zero));
      const others = over('prod', e.select(isZero, one, x));
      const atZero = e.select(e.binary('eq', zeros, one), others, zero);
      const elsewhere = e.select(e.binary('eq', zeros, zero), e.div(others, x), zero);
      const factor = e.select(isZero, atZero, elsewhere);
      return {
        space: shape,
        reduced: axes,
        inputs: [
          { operand: 0, axes: ownAxes(shape).map((axis) => (axes.includes(axis) ? -1 : axis)) },
          { operand: 1, axes: ownAxes(shape) },
        ],
        outputs: [{ axes: ownAxes(shape), expr: e.mul(inputExpr(0, present(g)), factor) }],
      };
    },
  },
  samples: [
    { label: 'rows', inputs: [floats([3, 1]), floats([3, 7], [0.3, 1.7])], params: { axes: [1] } },
    { label: 'columns', inputs: [floats([1, 5]), floats([4, 5])], params: { axes: [0] } },
  ],
});
