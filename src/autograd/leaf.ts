/** Leaves: accumulation into `.grad`, and hooks. */

import { AutogradError, ShapeError } from '../core/errors.ts';
import { formatShape, isContiguous, sameShape } from '../core/shape.ts';
import { avalBytes } from '../ir/aval.ts';
import { add } from '../ops/arithmetic.ts';
import { addInPlace } from '../ops/in-place.ts';
import { clone } from '../ops/views.ts';
import { alignment } from '../runtime/allocator.ts';
import { noGrad } from '../tensor/context.ts';
import { BufferData } from '../tensor/data.ts';
import { type PostAccumulateHook, Tensor, type TensorHook } from '../tensor/tensor.ts';

/** Adds `gradient` to `leaf.grad`, in place when it can, then runs post-accumulate hooks. */
export function accumulate(leaf: Tensor, gradient: Tensor, createGraph: boolean): void {
  if (leaf.disposed) return;
  if (!sameShape(leaf.shape, gradient.shape)) {
    throw new ShapeError(
      `backward: a gradient of shape ${formatShape(gradient.shape)} reached ${leaf.describe()}. Hooks must keep the shape.`,
    );
  }
  const have = leaf.grad;
  if (!have) {
    leaf.grad = createGraph ? gradient.alias() : ownGradient(gradient);
  } else if (createGraph || have.requiresGrad || !isDense(have)) {
    leaf.grad = add(have, gradient);
  } else {
    noGrad(() => addInPlace(have, gradient));
  }
  for (const hook of leaf.leafHooks.accumulated) hook(leaf);
}

function isDense(tensor: Tensor): boolean {
  const { data } = tensor;
  return data instanceof BufferData && isContiguous(tensor.shape, data.layout.strides);
}

/** A handle whose memory is dense and belongs to it alone, so that later gradients can be added in place. */
function ownGradient(gradient: Tensor): Tensor {
  const { data } = gradient;
  const copy = data.fork();
  if (copy) return new Tensor(copy, gradient.shape, gradient.dtype);
  if (!(data instanceof BufferData)) return gradient.detach();
  const sole = data.storage.owners === 1 && isContiguous(gradient.shape, data.layout.strides);
  const whole = avalBytes(gradient.aval) > data.storage.bytes - alignment;
  const own = sole && whole ? gradient.detach() : noGrad(() => clone(gradient));
  if (own.data instanceof BufferData) own.data.storage.setCategory('gradient');
  return own;
}

/**
 * Calls `hook` with the gradient of `tensor` in every backward; a returned tensor of the same shape
 * replaces it (torch.Tensor.register_hook). Returns a function that removes the hook. Throws
 * AutogradError for a tensor that does not require a gradient.
 */
export function registerHook(tensor: Tensor, hook: TensorHook): () => void {
  if (!tensor.requiresGrad) {
    throw new AutogradError(
      `registerHook: the tensor does not require a gradient (got ${tensor.describe()}). Set requiresGrad first.`,
    );
  }
  if (!tensor.node) {
    const { gradient, accumulated } = tensor.leafHooks;
    tensor.leafHooks = { gradient: [...gradient, hook], accumulated };
    return () => {
      const hooks = tensor.leafHooks;
      tensor.leafHooks = { ...hooks, gradient: without(hooks.gradient, hook) };
    };
  }
  const { node, outputIndex } = tensor;
  const hooks = node.outputHooks.get(outputIndex) ?? new Set<TensorHook>();
  node.outputHooks.set(outputIndex, hooks);
  hooks.add(hook);
  return () => hooks.delete(hook);
}

/**
 * Calls `hook` after a gradient was added to the leaf's `.grad`
 * (torch.Tensor.register_post_accumulate_grad_hook). Returns a function that removes it. Throws
 * AutogradError for computed tensors and for those that do not require a gradient.
 */
export function registerPostAccumulateGradHook(
  tensor: Tensor,
  hook: PostAccumulateHook,
): () => void {
  if (!tensor.isLeaf || !tensor.requiresGrad) {
    throw new AutogradError(
      `registerPostAccumulateGradHook: only leaves that require a gradient accumulate (got ${tensor.describe()}). ` +
        'Use registerHook for computed tensors.',
    );
  }
  const { gradient, accumulated } = tensor.leafHooks;
  tensor.leafHooks = { gradient, accumulated: [...accumulated, hook] };
  return () => {
    const hooks = tensor.leafHooks;
    tensor.leafHooks = { ...hooks, accumulated: without(hooks.accumulated, hook) };
  };
}

/** `list` without the first `item` in it. */
function without<T>(list: readonly T[], item: T): T[] {
  const at = list.indexOf(item);
  return list.filter((_, i) => i !== at);
}

/**
 * Keeps the gradient of a computed tensor in its `.grad` too (torch.Tensor.retain_grad). Returns it.
 * Throws AutogradError for a tensor that does not require a gradient.
 */
export function retainGrad(tensor: Tensor): Tensor {
  if (!tensor.requiresGrad) {
    throw new AutogradError(
      `retainGrad: the tensor does not require a gradient (got ${tensor.describe()}). Compute it from tensors that do.`,
    );
  }
  if (tensor.node) tensor.node.retained.set(tensor.outputIndex, tensor);
  return tensor;
}
