/**
 * In-place changes of views in a trace. A graph has no memory to write through, so the op changes a copy of
 * the view, and the base gets the value it has with that copy in the view's place.
 */

import { ShapeError, definite } from '../core/errors.ts';
import { numElements } from '../core/shape.ts';
import { type Aval, formatAval } from '../ir/aval.ts';
import type { AnyOp, Params } from '../ir/op.ts';
import { replacePart } from '../ops/adopt-in-place.ts';
import { copyInPlace } from '../ops/in-place.ts';
import { clone } from '../ops/views.ts';
import { noGrad } from '../tensor/context.ts';
import type { TensorData } from '../tensor/data.ts';
import type { Mode } from '../tensor/mode.ts';
import { Tensor } from '../tensor/tensor.ts';
import { TracedData, type ViewOf } from './traced-data.ts';

/** Whether `op` changes a traced view in place. */
export function changesView(op: AnyOp, inputs: readonly Tensor[]): boolean {
  return (op.traits.updates ?? []).some(({ input }) => viewOf(inputs[input]) !== undefined);
}

/** Runs such an op under the tracing `mode`; throws ShapeError for a view that has one place twice. */
export function changeViews(
  op: AnyOp,
  inputs: readonly Tensor[],
  params: Params,
  outputs: readonly Aval[],
  mode: Mode,
): readonly TensorData[] {
  return noGrad(() => {
    const changed = (op.traits.updates ?? []).filter(({ input }) => viewOf(inputs[input]));
    const targets = [...inputs];
    for (const { input } of changed) {
      refuseOverlap(op, definite(viewOf(inputs[input])));
      targets[input] = clone(definite(inputs[input]));
    }
    const results = [...mode.run(op, targets, params, outputs)];
    for (const { input, out } of changed) {
      const { baseData, step } = definite(viewOf(inputs[input]));
      const base = new Tensor(baseData.retain(), step.input.shape, step.input.dtype);
      copyInPlace(base, replacePart(base, definite(targets[input]), step));
      results[out] = definite(inputs[input]).data.retain();
    }
    return results;
  });
}

function viewOf(tensor: Tensor | undefined): ViewOf | undefined {
  return tensor?.data instanceof TracedData ? tensor.data.view : undefined;
}

function refuseOverlap(op: AnyOp, { step }: ViewOf): void {
  if (numElements(step.output.shape) <= numElements(step.input.shape)) return;
  throw new ShapeError(
    `${op.name}: several elements of the tensor that is changed lie in one place of memory (got ` +
      `${formatAval(step.output)} over ${formatAval(step.input)}). Clone it first.`,
    { x: step.output },
  );
}
