/** The AdamW step as one kernel: Adam with decoupled weight decay, in the order of torch.optim.AdamW. */

import { numElements } from '../../core/shape.ts';
import { type Expr, e } from '../../ir/expr.ts';
import type { Op } from '../../ir/op.ts';
import { apply } from '../../tensor/apply.ts';
import { adoptInPlace } from '../adopt-in-place.ts';
import { noGrad } from '../../tensor/context.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { arithmeticCost, defineOp, floats, present } from '../define.ts';
import { checkUpdate, updateTemplate } from './update-kernel.ts';

type NoParams = Readonly<Record<never, never>>;

const names = ['param', 'grad', 'm', 'v', 'scalars'] as const;

/** Entries of the scalars tensor. */
export const adamwScalars = [
  'lr',
  'beta1',
  'beta2',
  'eps',
  'weightDecay',
  'biasCorrection1',
  'biasCorrection2',
  'gradScale',
] as const;

export const adamwUpdateOp: Op<Tensor, NoParams> = defineOp<NoParams, typeof names, never>({
  name: 'adamwUpdate',
  args: names,
  traits: {
    class: 'elementwise',
    remat: 'cheap',
    updates: [
      { input: 0, out: 0 },
      { input: 2, out: 1 },
      { input: 3, out: 2 },
    ],
  },
  infer: (inputs) => {
    checkUpdate('adamwUpdate', names, inputs, adamwScalars.length);
    return [present(inputs[0]), present(inputs[2]), present(inputs[3])];
  },
  cost: (inputs, outputs) =>
    arithmeticCost(inputs, outputs, 16 * numElements(present(inputs[0]).shape)),
  saves: [],
  vjp: 'nondifferentiable',
  lower: {
    kind: 'kernel',
    template: (inputs) => updateTemplate(inputs, adamwScalars.length, formulas),
  },
  samples: [sample('matrix', [3, 7]), sample('vector', [5])],
});

function formulas(tensors: readonly Expr[], settings: readonly Expr[]): readonly Expr[] {
  const [param, grad, m, v] = tensors.map(present) as [Expr, Expr, Expr, Expr];
  const [lr, beta1, beta2, eps, decay, correction1, correction2, gradScale] = settings.map(
    present,
  ) as [Expr, Expr, Expr, Expr, Expr, Expr, Expr, Expr];
  const one = e.f32(1);
  const g = e.mul(grad, gradScale);
  const decayed = e.mul(param, e.sub(one, e.mul(lr, decay)));
  const nextM = e.add(m, e.mul(e.sub(g, m), e.sub(one, beta1)));
  const nextV = e.add(e.mul(v, beta2), e.mul(e.mul(g, g), e.sub(one, beta2)));
  const root = e.div(e.unary('sqrt', nextV), e.unary('sqrt', correction2));
  const step = e.div(lr, correction1);
  const next = e.sub(decayed, e.mul(step, e.div(nextM, e.add(root, eps))));
  return [next, nextM, nextV];
}

/**
 * One step of AdamW (torch.optim.AdamW), in place on `param` and on the averages `m` (of the gradient) and
 * `v` (of its square), all of one shape. `scalars` float32[8]: lr, beta1, beta2, eps, weightDecay,
 * biasCorrection1 = 1 - beta1^step, biasCorrection2 = 1 - beta2^step, and a factor for the gradient.
 * Nothing is recorded for backward. Throws ShapeError, DTypeError.
 */
export function adamwUpdate(
  param: Tensor,
  grad: Tensor,
  m: Tensor,
  v: Tensor,
  scalars: Tensor,
): void {
  noGrad(() => {
    const results = apply(adamwUpdateOp, [param, grad, m, v, scalars], {});
    [param, m, v].forEach((target, i) => adoptInPlace(target, present(results[i])));
  });
}

function sample(label: string, shape: readonly number[]) {
  const tensors = [floats(shape), floats(shape), floats(shape), floats(shape, [0.1, 1])];
  return { label, inputs: [...tensors, floats([adamwScalars.length], [0.25, 0.75])], params: {} };
}
