/** From an op's logical kernel template to a KernelSpec with the layouts of its operands. */

import { definite } from '../core/errors.ts';
import { type Layout, type Shape, contiguousStrides } from '../core/shape.ts';
import type { Aval } from './aval.ts';
import type { KernelInput, KernelSpec } from './kernel.ts';
import type { KernelTemplate, Operand } from './op.ts';

/**
 * Binds a template to operands. Operand numbering of the result: the op's inputs, then its outputs.
 */
export function bindTemplate(
  template: KernelTemplate,
  inputs: readonly Operand[],
  outputs: readonly Operand[],
): KernelSpec {
  return {
    space: template.space,
    reduced: template.reduced,
    inputs: template.inputs.map((input) => {
      const operand = definite(inputs[input.operand]);
      return access(input.operand, operand, input.axes, input.relayout);
    }),
    outputs: template.outputs.map((output, k) => {
      const operand = definite(outputs[k]);
      const where = access(inputs.length + k, operand, output.axes, output.relayout);
      return { ...where, expr: output.expr };
    }),
    operands: inputs.length + outputs.length,
    scalars: (template.scalars ?? []).map((scalar) => scalar.type),
  };
}

/** A dense row-major operand. */
export function denseOperand(aval: Aval): Operand {
  return { aval, layout: { offset: 0, strides: contiguousStrides(aval.shape) } };
}

function access(
  operand: number,
  { aval, layout }: Operand,
  axes: readonly number[],
  relayout: ((layout: Layout, shape: Shape) => Layout) | undefined,
): KernelInput {
  const actual = relayout ? relayout(layout, aval.shape) : layout;
  return {
    operand,
    dtype: aval.dtype,
    offset: actual.offset,
    strides: axes.map((axis) => (axis < 0 ? 0 : (actual.strides[axis] ?? 0))),
  };
}
