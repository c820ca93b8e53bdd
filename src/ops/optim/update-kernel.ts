/** What the optimizer updates share: pointwise kernels over tensors of one shape and a vector of settings. */

import { ShapeError } from '../../core/errors.ts';
import { formatShape, sameShape } from '../../core/shape.ts';
import type { Aval } from '../../ir/aval.ts';
import { type Expr, e } from '../../ir/expr.ts';
import type { KernelTemplate } from '../../ir/op.ts';
import { inputExpr, ownAxes, present, requireFloat } from '../define.ts';
import { requireFloat32 } from '../float32.ts';

/**
 * Checks that the tensors have one floating point shape and the settings, the last input, are float32
 * [count]. Throws ShapeError, DTypeError.
 */
export function checkUpdate(
  who: string,
  names: readonly string[],
  inputs: readonly Aval[],
  count: number,
): void {
  const parameter = present(inputs[0]);
  const settings = present(inputs.at(-1));
  inputs.slice(0, -1).forEach((x, i) => {
    requireFloat(who, x, names[i]);
    if (sameShape(x.shape, parameter.shape)) return;
    throw new ShapeError(
      `${who}: ${names[i]} must have the shape of the parameter (got ${formatShape(x.shape)}, parameter ` +
        `${formatShape(parameter.shape)}). Give tensors of equal shape.`,
      { parameter: parameter.shape, other: x.shape },
    );
  });
  requireFloat32(who, [settings]);
  if (sameShape(settings.shape, [count])) return;
  throw new ShapeError(
    `${who}: the scalars must be float32[${count}] (got shape ${formatShape(settings.shape)}). ` +
      'Give them in the order that the function documents.',
    { scalars: settings.shape },
  );
}

/**
 * Kernel over the parameter's shape: `outputs` from the tensors and the settings, each at a point. The
 * tensors are the parameter, its gradient, then the state; there is an output for each but the gradient.
 * The last setting is the factor for the gradient: when it is NaN or infinite nothing changes, which is
 * how a step with bad gradients is left out (found_inf of torch.optim's fused kernels).
 */
export function updateTemplate(
  inputs: readonly Aval[],
  settings: number,
  outputs: (tensors: readonly Expr[], settings: readonly Expr[]) => readonly Expr[],
): KernelTemplate {
  const tensors = inputs.slice(0, -1);
  const space = present(tensors[0]).shape;
  const axes = ownAxes(space);
  const nowhere = space.map(() => -1);
  const each = Array.from({ length: settings }, (_, i) => i);
  const values = tensors.map((x, i) => inputExpr(i, x));
  const scalars = each.map((i) => e.input(tensors.length + i));
  const finite = e.binary('le', e.unary('abs', present(scalars.at(-1))), e.f32(largestFloat32));
  const targets = values.filter((_, i) => i !== 1);
  return {
    space,
    reduced: [],
    inputs: [
      ...tensors.map((_, operand) => ({ operand, axes })),
      ...each.map((i) => ({
        operand: tensors.length,
        axes: nowhere,
        relayout: ({ offset, strides }: { offset: number; strides: readonly number[] }) => ({
          offset: offset + i * (strides[0] ?? 1),
          strides: [0],
        }),
      })),
    ],
    outputs: outputs(values, scalars).map((expr, k) => ({
      axes,
      expr: e.select(finite, expr, present(targets[k])),
    })),
  };
}

const largestFloat32 = 3.4028234663852886e38;
