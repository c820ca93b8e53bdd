/**
 * What rmsNorm and layerNorm share: checks, kernel operands and costs.
 *
 * Letters: x [..., H]; weight, bias [H]; statistics (mean, rstd) [..., 1], float32.
 */

import { ShapeError } from '../core/errors.ts';
import { type Shape, formatShape, numElements } from '../core/shape.ts';
import type { Aval } from '../ir/aval.ts';
import { type Expr, e } from '../ir/expr.ts';
import type { KernelTemplate, TemplateInput } from '../ir/op.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { full } from './creation.ts';
import { arithmeticCost, ownAxes, present, requireFloat } from './define.ts';

/** The sum of a row. */
export const rowSum = (x: Expr): Expr => e.reduce('sum', x);

/** Aval of a statistic of x's rows. */
export function statistics(x: Aval): Aval {
  return { shape: [...x.shape.slice(0, -1), 1], dtype: 'float32' };
}

export function checkNorm(who: string, x: Aval, parameters: Readonly<Record<string, Aval>>): void {
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
export function access(shape: Shape) {
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

export const perElement = (flops: number) => (inputs: readonly Aval[], outputs: readonly Aval[]) =>
  arithmeticCost(inputs, outputs, flops * Math.max(...inputs.map((x) => numElements(x.shape)), 0));

/** Sum of `term` over all axes but the last. */
export function columnTemplate(
  shape: Shape,
  inputs: readonly TemplateInput[],
  term: Expr,
): KernelTemplate {
  const at = access(shape);
  const reduced = at.own.slice(0, -1);
  const expr = reduced.length === 0 ? term : rowSum(term);
  return { space: shape, reduced, inputs, outputs: [{ axes: at.columnOut, expr }] };
}

/** A weight or bias that does nothing. */
export function constantRow(x: Tensor, value: number): Tensor {
  return full(x.shape.slice(-1), value);
}

/** The result proper; the statistics' handles are closed, backward holds its own. */
export function firstOf(outputs: readonly Tensor[]): Tensor {
  for (const statistic of outputs.slice(1)) statistic.dispose();
  return present(outputs[0]);
}
