/** Usual splits of a model's parameters into groups. */

import type { Tensor } from '../tensor/tensor.ts';

/**
 * Two groups: parameters of two axes or more with `weightDecay`, and norms and biases without, as is
 * usual for transformers. Frozen parameters are left out; an empty group too.
 */
export function decayGroups(
  named: Iterable<readonly [string, Tensor]>,
  weightDecay: number,
): { readonly params: readonly (readonly [string, Tensor])[]; readonly weightDecay: number }[] {
  const trainable = [...named].filter(([, tensor]) => tensor.requiresGrad);
  const decayed = trainable.filter(([, tensor]) => tensor.rank >= 2);
  const plain = trainable.filter(([, tensor]) => tensor.rank < 2);
  return [
    { params: decayed, weightDecay },
    { params: plain, weightDecay: 0 },
  ].filter(({ params }) => params.length > 0);
}
