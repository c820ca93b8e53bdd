/**
 * Values that wait for backward in another form: outside memory, or in fewer bits. What is written here is how one such
 * value looks in a graph; who decides are policies (rematerialize.ts) and the planner (remat-graph.ts).
 */

import { decode, encode, encodedBytes } from '../checkpoint/codec.ts';
import { isFloat } from '../core/dtype.ts';
import { definite } from '../core/errors.ts';
import { avalBytes } from '../ir/aval.ts';
import type { CheckpointPolicy, GraphBuilder, Node, SaveFormat, Value } from '../ir/graph.ts';
import type { AnyOp, Params } from '../ir/op.ts';
import { fetchOp, storeOp } from './transfer-ops.ts';

/** Where or how a value waits. */
export type Aside = 'offload' | SaveFormat;

/** What a policy says of waiting; undefined for policies that say something else. */
export function asideOf(policy: CheckpointPolicy | undefined): Aside | undefined {
  if (typeof policy === 'object') return policy.compress;
  return policy === 'mustOffload' || policy === 'preferOffload' ? 'offload' : undefined;
}

/** Whether a value has such a form, and is smaller in it. */
export function canWait({ aval }: Value, aside: Aside): boolean {
  if (aside === 'offload') return true;
  const bytes = isFloat(aval.dtype) ? encodedBytes(aval, aside) : undefined;
  return bytes !== undefined && bytes < avalBytes(aval);
}

/** Appends what sets `value` aside; returns what stands for it meanwhile. */
export function setAside(builder: GraphBuilder, value: Value, aside: Aside): readonly Value[] {
  const { phase, module } = value.node.meta;
  const apply = applier(builder, { phase, module, regions: [] });
  return aside === 'offload'
    ? apply(storeOp, [value], {})
    : encode(apply, value, value.aval, aside);
}

/** Appends what brings `value` back from what setAside returned. `restores`: the node of `builder` that made it. */
export function bringBack(
  builder: GraphBuilder,
  parts: readonly Value[],
  { node, aval }: Value,
  aside: Aside,
  restores: number,
): Value {
  const { module } = node.meta;
  const apply = applier(builder, { phase: 'backward', module, regions: [], restores });
  const { shape, dtype } = aval;
  return aside === 'offload'
    ? definite(apply(fetchOp, parts, { shape, dtype })[0])
    : decode(apply, parts, aval, aside);
}

function applier(builder: GraphBuilder, meta: Node['meta']) {
  return (op: AnyOp, inputs: readonly Value[], params: Params): readonly Value[] => {
    const avals = inputs.map((input) => input.aval);
    return builder.apply(op, inputs, params, op.infer(avals, params), meta);
  };
}
