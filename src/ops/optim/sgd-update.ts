/** The step of stochastic gradient descent as one kernel, in the order of torch.optim.SGD. */

import { numElements } from '../../core/shape.ts';
import { type Expr, e } from '../../ir/expr.ts';
import type { Op } from '../../ir/op.ts';
import { apply } from '../../tensor/apply.ts';
import { adoptInPlace } from '../adopt-in-place.ts';
import { noGrad } from '../../tensor/context.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { arithmeticCost, defineOp, floats, present } from '../define.ts';
import { checkUpdate, updateTemplate } from './update-kernel.ts';

/** Entries of the scalars tensor. */
export const sgdScalars = ['lr', 'momentum', 'dampening', 'weightDecay', 'gradScale'] as const;

type NoParams = Readonly<Record<never, never>>;

export const sgdUpdateOp: Op<Tensor, NoParams> = defineOp<
  NoParams,
  readonly ['param', 'grad', 'scalars'],
  never
>({
  name: 'sgdUpdate',
  args: ['param', 'grad', 'scalars'],
  traits: { class: 'elementwise', remat: 'cheap', updates: [{ input: 0, out: 0 }] },
  infer: (inputs) => {
    checkUpdate('sgdUpdate', ['param', 'grad'], inputs, sgdScalars.length);
    return [present(inputs[0])];
  },
  cost: (inputs, outputs) =>
    arithmeticCost(inputs, outputs, 5 * numElements(present(inputs[0]).shape)),
  saves: [],
  vjp: 'nondifferentiable',
  lower: {
    kind: 'kernel',
    template: (inputs) =>
      updateTemplate(inputs, sgdScalars.length, (tensors, settings) => {
        const { param, g, lr } = decayedGradient(tensors, settings);
        return [e.sub(param, e.mul(lr, g))];
      }),
  },
  samples: [
    {
      label: 'matrix',
      inputs: [floats([3, 7]), floats([3, 7]), floats([5])],
      params: {},
    },
  ],
});

export type MomentumParams = { readonly nesterov: boolean };

export const sgdMomentumUpdateOp: Op<Tensor, MomentumParams> = defineOp<
  MomentumParams,
  readonly ['param', 'grad', 'momentum', 'scalars'],
  never
>({
  name: 'sgdMomentumUpdate',
  args: ['param', 'grad', 'momentum', 'scalars'],
  traits: {
    class: 'elementwise',
    remat: 'cheap',
    updates: [
      { input: 0, out: 0 },
      { input: 2, out: 1 },
    ],
  },
  infer: (inputs) => {
    checkUpdate('sgdUpdate', ['param', 'grad', 'momentum'], inputs, sgdScalars.length);
    return [present(inputs[0]), present(inputs[2])];
  },
  cost: (inputs, outputs) =>
    arithmeticCost(inputs, outputs, 10 * numElements(present(inputs[0]).shape)),
  saves: [],
  vjp: 'nondifferentiable',
  lower: {
    kind: 'kernel',
    template: (inputs, _, { nesterov }) =>
      updateTemplate(inputs, sgdScalars.length, (tensors, settings) => {
        const { param, g, lr } = decayedGradient(tensors, settings);
        const buffer = present(tensors[2]);
        const [momentum, dampening] = [present(settings[1]), present(settings[2])];
        const share = e.sub(e.f32(1), dampening);
        const next = e.add(e.mul(momentum, buffer), e.mul(share, g));
        const direction = nesterov ? e.add(g, e.mul(momentum, next)) : next;
        return [e.sub(param, e.mul(lr, direction)), next];
      }),
  },
  samples: [
    {
      label: 'plain',
      inputs: [floats([3, 7]), floats([3, 7]), floats([3, 7]), floats([5])],
      params: { nesterov: false },
    },
    {
      label: 'nesterov',
      inputs: [floats([5]), floats([5]), floats([5]), floats([5])],
      params: { nesterov: true },
    },
  ],
});

export interface SgdUpdateOptions {
  /** Step along the gradient plus the momentum that follows it; default false. */
  readonly nesterov?: boolean;
}

/**
 * One step of gradient descent (torch.optim.SGD), in place on `param` and, when given, the momentum
 * buffer; all of one shape. `scalars` float32[5]: lr, momentum, dampening, weightDecay, and a factor for
 * the gradient. PyTorch starts the buffer with the first gradient undamped: give a zero buffer and
 * dampening 0 in the first step. Nothing is recorded for backward. Throws ShapeError, DTypeError.
 */
export function sgdUpdate(
  param: Tensor,
  grad: Tensor,
  momentum: Tensor | undefined,
  scalars: Tensor,
  options: SgdUpdateOptions = {},
): void {
  noGrad(() => {
    const results = momentum
      ? apply(sgdMomentumUpdateOp, [param, grad, momentum, scalars], {
          nesterov: options.nesterov ?? false,
        })
      : apply(sgdUpdateOp, [param, grad, scalars], {});
    adoptInPlace(param, present(results[0]));
    if (momentum) adoptInPlace(momentum, present(results[1]));
  });
}

function decayedGradient(
  tensors: readonly Expr[],
  settings: readonly Expr[],
): { readonly param: Expr; readonly g: Expr; readonly lr: Expr } {
  const [param, grad] = [present(tensors[0]), present(tensors[1])];
  const [lr, decay, scale] = [present(settings[0]), present(settings[3]), present(settings[4])];
  return { param, g: e.add(e.mul(grad, scale), e.mul(decay, param)), lr };
}
