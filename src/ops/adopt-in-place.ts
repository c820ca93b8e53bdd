/**
 * The autograd side of in-place ops. The op made a node from the old value of its target; the target takes
 * its place in the graph. When the target is a view, its base changes too: the base's new place is a node
 * that joins the rest of the old base and the new part (PyTorch's CopySlices). In backward the part gets
 * its share of the gradient and the old base what is left.
 */

import { invariant } from '../core/errors.ts';
import { currentModule } from '../tensor/context.ts';
import { type CustomBackward, GraphNode } from '../tensor/graph-node.ts';
import type { Lineage, ViewStep } from '../tensor/lineage.ts';
import type { TapeNode, Tensor } from '../tensor/tensor.ts';
import { apply1 } from '../tensor/apply.ts';
import { ne, where } from './comparison.ts';
import { onesLike } from './creation.ts';

/**
 * After an in-place op: `target`, whose memory `result` shares, takes over its place in the graph, and
 * so do the tensors that share memory with it as base or views. Disposes `result`; returns `target`.
 */
export function adoptInPlace(target: Tensor, result: Tensor): Tensor {
  const { node, outputIndex } = result;
  if (node) {
    const shared = target.lineage;
    if (shared?.steps.length) joinBase(shared.lineage, shared.steps, node, outputIndex);
    else shared?.lineage.moveTo(node, outputIndex);
    target.attach(node.retain(), outputIndex);
  }
  result.dispose();
  return target;
}

/** The base of a changed view becomes the output of a node over its old place and the part's new one. */
function joinBase(
  lineage: Lineage<Tensor>,
  steps: readonly ViewStep[],
  node: TapeNode,
  index: number,
): void {
  const part = steps.at(-1)?.output;
  invariant(part, () => 'a view has no steps');
  const { base, edge } = lineage;
  const joined: TapeNode = new GraphNode<Tensor>({
    custom: partBackward(steps, edge !== undefined),
    params: {},
    inputs: [base, part],
    outputs: [base],
    module: currentModule(),
    edges: [edge, { kind: 'node', node, index }],
  });
  lineage.moveTo(joined, 0);
}

function partBackward(steps: readonly ViewStep[], baseWants: boolean): CustomBackward<Tensor> {
  return {
    name: 'changeOfView',
    backward: ([gradient]) => {
      if (!gradient) return [];
      const part = steps.reduce((x, { op, params }) => apply1(op, [x], params), gradient);
      return [baseWants ? outside(gradient, part, steps) : undefined, part];
    },
  };
}

/** `gradient` with zeros where the view lies. */
function outside(gradient: Tensor, part: Tensor, steps: readonly ViewStep[]): Tensor {
  const inside = steps.reduceRight((marks, step) => scatterView(step, marks), onesLike(part));
  return where(ne(inside, 0), 0, gradient);
}

/** What `base` is when its view by `step` has the values of `part`; `part` covers no place twice. */
export function replacePart(base: Tensor, part: Tensor, step: ViewStep): Tensor {
  const spread = scatterView(step, part);
  if (part.size === base.size) return spread;
  return where(ne(scatterView(step, onesLike(part)), 0), spread, base);
}

/** The transpose of a view: `x` at its place, zeros around it. */
function scatterView({ op, params, input, output }: ViewStep, x: Tensor): Tensor {
  invariant(op.vjp !== 'nondifferentiable', () => `${op.name} is a view without a vjp`);
  const [result] = op.vjp([x], {
    params,
    saved: () => x,
    inputs: [input],
    outputs: [output],
    needs: () => true,
  });
  invariant(result, () => `the vjp of ${op.name} gave nothing`);
  return result;
}
