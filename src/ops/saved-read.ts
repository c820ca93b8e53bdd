/** The mark of reads of checkpointed values in traced steps. */

import type { Op } from '../ir/op.ts';
import { apply1 } from '../tensor/apply.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { floats, viewOp } from './define.ts';

type RegionParams = { readonly region: number };

export const savedReadOp: Op<Tensor, RegionParams> = viewOp<RegionParams>({
  name: 'savedRead',
  traits: { class: 'barrier', savedRead: true },
  infer: (x) => x,
  view: (_, layout) => layout,
  vjp: (g) => g,
  samples: [{ label: 'matrix', inputs: [floats([3, 5])], params: { region: 0 } }],
});

/** x, marked as a value that backward reads from what checkpoint region `region` saved. */
export function savedRead(x: Tensor, region: number): Tensor {
  return apply1(savedReadOp, [x], { region });
}
