/** One node's backward: its op's vjp on unpacked saved tensors, or the gradient of its composition. */

import { invariant } from '../core/errors.ts';
import { reshape } from '../ops/broadcast.ts';
import { currentScope } from '../tensor/scope.ts';
import type { TapeEdge, TapeNode, Tensor } from '../tensor/tensor.ts';

/** autograd.grad, handed in so that this file does not import what imports it. */
export type GradFunction = (
  outputs: readonly Tensor[],
  inputs: readonly Tensor[],
  options: {
    readonly gradOutputs: readonly Tensor[];
    readonly createGraph: boolean;
    readonly allowUnused: boolean;
  },
) => (Tensor | undefined)[];

export interface VjpOptions {
  readonly createGraph: boolean;
  readonly wanted: (edge: TapeEdge) => boolean;
  readonly grad: GradFunction;
}

/**
 * Runs one node's backward; the results are handles of their own. Saved tensors are unpacked once each,
 * before the vjp runs.
 */
export function differentiate(
  node: TapeNode,
  cotangents: readonly (Tensor | undefined)[],
  options: VjpOptions,
): readonly (Tensor | undefined)[] {
  const borrowed = new Set<Tensor | undefined>(cotangents);
  const results = vjpOf(node, cotangents, options, borrowed);
  // A vjp may hand back a cotangent, a saved tensor, or one tensor for two inputs.
  return results.map((result) => {
    if (!result || !borrowed.has(result)) {
      borrowed.add(result);
      return result;
    }
    return result.alias();
  });
}

function vjpOf(
  node: TapeNode,
  cotangents: readonly (Tensor | undefined)[],
  { createGraph, wanted, grad }: VjpOptions,
  borrowed: Set<Tensor | undefined>,
): readonly (Tensor | undefined)[] {
  node.checkAlive();
  if (node.custom) {
    const saved = [...node.saved.values()].map((slot) => slot.unpack(node));
    for (const tensor of saved) borrowed.add(tensor);
    // A closure may hand back a tensor of its own, which is not the walk's to dispose of.
    const own = node.custom.backward(cotangents, saved);
    for (const tensor of own)
      if (!currentScope()?.members.has(tensor as Tensor)) borrowed.add(tensor);
    return own;
  }
  const { op } = node;
  invariant(op && op.vjp !== 'nondifferentiable', () => `${node.name} has no vjp`);
  const saved = new Map<string, Tensor>();
  for (const [name, slot] of node.saved) saved.set(name, slot.unpack(node));
  for (const tensor of saved.values()) borrowed.add(tensor);
  const find = (name: string): Tensor => {
    const value = saved.get(name);
    invariant(value, () => `the vjp of ${op.name} asks for '${name}', which is not in its saves`);
    return value;
  };
  const needs = (input: number): boolean => {
    const edge = node.edges[input];
    return edge !== undefined && wanted(edge);
  };
  if (createGraph && op.compose) {
    // Views tell the places of one tensor apart that is two inputs: each gets its own share.
    const inputs = node.inputs.map((_, i) => viewOf(find(op.args[i] ?? '')));
    return differentiateComposition(
      op.compose(inputs, node.params),
      inputs,
      cotangents,
      needs,
      grad,
    );
  }
  return op.vjp(cotangents, {
    params: node.params,
    saved: find,
    inputs: node.inputs,
    outputs: node.outputs,
    needs,
  });
}

function viewOf(x: Tensor): Tensor {
  return x.requiresGrad ? reshape(x, x.shape) : x;
}

/** Gradients through an op's definition in plain ops, themselves differentiable. */
function differentiateComposition(
  outputs: readonly Tensor[],
  inputs: readonly Tensor[],
  cotangents: readonly (Tensor | undefined)[],
  needs: (input: number) => boolean,
  grad: GradFunction,
): (Tensor | undefined)[] {
  const used = outputs.flatMap((output, i) => {
    const cotangent = cotangents[i];
    return cotangent && output.requiresGrad ? [{ output, cotangent }] : [];
  });
  const asked = inputs.flatMap((input, i) => (needs(i) ? [{ input, i }] : []));
  const results = new Array<Tensor | undefined>(inputs.length).fill(undefined);
  if (used.length === 0 || asked.length === 0) return results;
  const gradients = grad(
    used.map((entry) => entry.output),
    asked.map((entry) => entry.input),
    {
      gradOutputs: used.map((entry) => entry.cotangent),
      createGraph: true,
      allowUnused: true,
    },
  );
  asked.forEach(({ i }, k) => {
    results[i] = gradients[k];
  });
  return results;
}
