/** Names of values, for checkpoint policies. */

import { ArgumentError } from '../core/errors.ts';
import type { Op } from '../ir/op.ts';
import { apply1 } from '../tensor/apply.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { floats, viewOp } from './define.ts';

type NameParams = { readonly name: string };

export const checkpointNameOp: Op<Tensor, NameParams> = viewOp<NameParams>({
  name: 'checkpointName',
  traits: { marksName: true },
  infer: (x) => x,
  view: (_, layout) => layout,
  vjp: (g) => g,
  samples: [{ label: 'matrix', inputs: [floats([3, 5])], params: { name: 'x' } }],
});

/**
 * x, marked with a name that policies choose by (jax.ad_checkpoint.checkpoint_name). Use the returned
 * tensor: it is the marked one. No copy is made. Throws ArgumentError for an empty name.
 */
export function checkpointName(x: Tensor, name: string): Tensor {
  if (typeof name !== 'string' || name === '') {
    throw new ArgumentError(
      `checkpointName: the name must be text that is not empty (got ${JSON.stringify(name)}). Name the value.`,
      { name },
    );
  }
  return apply1(checkpointNameOp, [x], { name });
}
