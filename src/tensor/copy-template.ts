/** The kernel template of a plain copy, used to make strided tensors dense. */

import type { Aval } from '../ir/aval.ts';
import { e } from '../ir/expr.ts';
import { computeType } from '../ir/kernel.ts';
import type { KernelTemplate } from '../ir/op.ts';

/** Copies an operand to an output of the same aval, whatever their layouts. */
export function denseCopyTemplate(aval: Aval): KernelTemplate {
  const axes = aval.shape.map((_, axis) => axis);
  return {
    space: aval.shape,
    reduced: [],
    inputs: [{ operand: 0, axes }],
    outputs: [{ axes, expr: e.input(0, computeType(aval.dtype)) }],
  };
}
