/** Which values share memory: a view lies in what it views. */

import type { Value } from '../ir/graph.ts';

/** The value whose memory a chain of views looks into; `value` itself if it is no view. */
export function baseOf(value: Value): Value {
  let base = value;
  while (base.node.op?.lower.kind === 'view' && base.node.inputs[0]) base = base.node.inputs[0];
  return base;
}
