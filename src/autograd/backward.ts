/**
 * Reverse-mode differentiation: walks the tape that `apply` recorded, later nodes first.
 * torch.Tensor.backward and torch.autograd.grad.
 */

import { AutogradError } from '../core/errors.ts';
import { formatShape, sameShape } from '../core/shape.ts';
import { onesLike } from '../ops/creation.ts';
import { setGradEnabled, withPhase } from '../tensor/context.ts';
import { edgeOf } from '../tensor/graph-node.ts';
import type { TapeEdge, Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { beginBackward } from './backward-id.ts';
import { accumulate } from './leaf.ts';
import { type Sink, Walk } from './walk.ts';

export interface BackwardOptions {
  /** Cotangent of each output; may be left out for one-element outputs. */
  readonly gradient?: Tensor | readonly (Tensor | undefined)[];
  /** Keep saved tensors for another backward. Default: the value of createGraph. */
  readonly retainGraph?: boolean;
  /** Record the backward itself, for higher derivatives. */
  readonly createGraph?: boolean;
  /** Accumulate only into these leaves (or non-leaf tensors); others are left alone. */
  readonly inputs?: readonly Tensor[];
}

export interface GradOptions {
  readonly gradOutputs?: Tensor | readonly (Tensor | undefined)[];
  readonly retainGraph?: boolean;
  readonly createGraph?: boolean;
  /** Give undefined for inputs the outputs do not depend on, instead of throwing. */
  readonly allowUnused?: boolean;
}

/**
 * Adds d(outputs)/d(leaf) to `leaf.grad` for every leaf that requires a gradient
 * (torch.autograd.backward). Throws AutogradError when an output has no graph, a cotangent is missing or
 * misshapen, or a needed graph was freed.
 */
export function backward(outputs: Tensor | readonly Tensor[], options: BackwardOptions = {}): void {
  const createGraph = options.createGraph ?? false;
  const inputs = options.inputs && [...new Set(options.inputs)];
  const wanted = inputs?.map((input) => targetOf('backward', input));
  scope(() => {
    run('backward', outputs, options.gradient, options, wanted, (edge, gradient, index) => {
      const target = edge.kind === 'leaf' ? edge.leaf : inputs?.[index ?? -1];
      if (target) accumulate(target, gradient, createGraph);
    });
  });
}

/**
 * Gradients of `outputs` with respect to `inputs`, in their order, without touching `.grad`
 * (torch.autograd.grad). Throws AutogradError for an unused input unless `allowUnused`.
 */
export function grad(
  outputs: Tensor | readonly Tensor[],
  inputs: Tensor | readonly Tensor[],
  options: GradOptions = {},
): (Tensor | undefined)[] {
  const list = asList(inputs);
  const wanted = list.map((input) => targetOf('grad', input));
  return scope(() => {
    const found = new Array<Tensor | undefined>(list.length).fill(undefined);
    run('grad', outputs, options.gradOutputs, options, wanted, (_, gradient, index) => {
      if (index !== undefined) found[index] = gradient.alias();
    });
    list.forEach((input, i) => {
      if (found[i] || options.allowUnused) return;
      throw new AutogradError(
        `grad: input ${i} (${input.describe()}) was not used to compute the outputs. ` +
          'Pass allowUnused: true to get undefined for it.',
        { input: i },
      );
    });
    return found;
  });
}

function run(
  who: string,
  outputs: Tensor | readonly Tensor[],
  cotangents: Tensor | readonly (Tensor | undefined)[] | undefined,
  options: { readonly retainGraph?: boolean; readonly createGraph?: boolean },
  wanted: readonly TapeEdge[] | undefined,
  sink: Sink,
): void {
  const createGraph = options.createGraph ?? false;
  const retain = options.retainGraph ?? createGraph;
  const given = asList<Tensor | undefined>(cotangents ?? []);
  const finish = beginBackward(retain);
  try {
    withPhase('backward', () =>
      setGradEnabled(createGraph, () => {
        const roots = asList(outputs).map((root, i) => rootEdge(who, root, i));
        const seeds = asList(outputs).map((root, i) => seedOf(who, root, given[i], i));
        const walk = new Walk(roots, { createGraph, retain, wanted, sink, grad });
        walk.run(roots, seeds);
      }),
    );
  } finally {
    finish();
  }
}

function rootEdge(who: string, root: Tensor, i: number): TapeEdge {
  const edge = edgeOf(root);
  if (edge) return edge;
  throw new AutogradError(
    `${who}: output ${i} (${root.describe()}) does not require a gradient and has no graph. ` +
      'Compute it from tensors with requiresGrad, outside noGrad.',
  );
}

function seedOf(who: string, root: Tensor, given: Tensor | undefined, i: number): Tensor {
  if (given) {
    if (!sameShape(given.shape, root.shape)) {
      throw new AutogradError(
        `${who}: the cotangent of output ${i} has shape ${formatShape(given.shape)}, the output ${formatShape(root.shape)}. ` +
          'Give one of equal shape.',
      );
    }
    return given.alias();
  }
  if (root.size !== 1) {
    throw new AutogradError(
      `${who}: output ${i} has ${root.size} elements (got shape ${formatShape(root.shape)}). ` +
        'Reduce it to one element, or pass its cotangent.',
    );
  }
  return onesLike(root);
}

function targetOf(who: string, input: Tensor): TapeEdge {
  const edge = edgeOf(input);
  if (edge) return edge;
  throw new AutogradError(
    `${who}: an input does not require a gradient (got ${input.describe()}). Set requiresGrad before the forward.`,
  );
}

function asList<T>(value: T | readonly T[]): readonly T[] {
  return Array.isArray(value) ? value : [value as T];
}
