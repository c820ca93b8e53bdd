/** In a traced region a policy decides while ops are recorded; the decision is kept with the node. */

import type { Aval } from '../../ir/aval.ts';
import type { CheckpointPolicy } from '../../ir/graph.ts';
import type { AnyOp, Params } from '../../ir/op.ts';
import { withPolicy } from '../../tensor/context.ts';
import type { TensorData } from '../../tensor/data.ts';
import type { Mode } from '../../tensor/mode.ts';
import { PassThroughMode } from '../../tensor/pass-through-mode.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import type { Decision, RegionPolicy } from './region-policy.ts';

export class TracedPolicyMode extends PassThroughMode {
  readonly #policy: RegionPolicy;
  /** By the memory that an op made. */
  readonly #made = new WeakMap<object, Decision>();

  constructor(inner: Mode, policy: RegionPolicy) {
    super(inner);
    this.#policy = policy;
  }

  override run(
    op: AnyOp,
    inputs: readonly Tensor[],
    params: Params,
    outputs: readonly Aval[],
  ): readonly TensorData[] {
    const run = (policy?: CheckpointPolicy): readonly TensorData[] =>
      withPolicy(policy, () => super.run(op, inputs, params, outputs));
    if (op.lower.kind === 'view') {
      const made = inputs[0] && this.#made.get(inputs[0].data.root);
      const name = op.traits.marksName ? String(params.name) : undefined;
      if (name !== undefined && !made) this.#policy.sawName(name);
      const policy = made && name !== undefined ? this.#policy.decideName(made, name) : undefined;
      const data = run(policy);
      const [view] = data;
      if (made && view) this.#made.set(view.root, policy ? { ...made, policy } : made);
      return data;
    }
    if (op.traits.updates) return run();
    const decision = this.#policy.decide(op, inputs, params, outputs);
    const data = run(decision.policy);
    for (const item of data) this.#made.set(item.root, decision);
    return data;
  }
}
