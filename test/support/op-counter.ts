/** Counting ops as they run: proves recomputation by counts, not by timing. */

import type { Aval } from '../../src/ir/aval.ts';
import type { AnyOp, Params } from '../../src/ir/op.ts';
import type { TensorData } from '../../src/tensor/data.ts';
import { withMode } from '../../src/tensor/mode.ts';
import { PassThroughMode } from '../../src/tensor/pass-through-mode.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';

export class OpCounter extends PassThroughMode {
  readonly counts = new Map<string, number>();
  flops = 0;

  override run(
    op: AnyOp,
    inputs: readonly Tensor[],
    params: Params,
    outputs: readonly Aval[],
  ): readonly TensorData[] {
    this.counts.set(op.name, (this.counts.get(op.name) ?? 0) + 1);
    const avals = inputs.map((input) => input.aval);
    this.flops += op.cost(avals, outputs, params).flops;
    return super.run(op, inputs, params, outputs);
  }

  count(name: string): number {
    return this.counts.get(name) ?? 0;
  }
}

/** Runs `body` and returns what ran. */
export function countOps(body: () => void): OpCounter {
  let counter: OpCounter | undefined;
  withMode((inner) => {
    counter = new OpCounter(inner);
    return counter;
  }, body);
  if (!counter) throw new Error('no counter was made');
  return counter;
}
