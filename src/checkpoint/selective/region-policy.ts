/**
 * The policy of one region call: asks the user's policy about each op and adds what holds for every region
 * (S8): router indices and the like are kept.
 */

import { CheckpointError } from '../../core/errors.ts';
import type { Aval } from '../../ir/aval.ts';
import type { AnyOp, Params } from '../../ir/op.ts';
import { currentModule, currentName } from '../../tensor/context.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import {
  type CheckpointPolicy,
  type PolicyContext,
  PolicyContexts,
  type PolicyFunction,
  askPolicy,
  describeContext,
  isKept,
  placeOf,
  renamed,
} from './policy.ts';

/** A policy made by the functions of declared.ts. It may have no opinion, which is undefined. */
export interface DeclaredPolicy {
  /** What it does, for the line that applying prints. */
  readonly label: string;
  /** Policies with one key decide alike; absent where that cannot be told. */
  readonly key?: string;
  /** Nothing is ever recomputed: the region is exactly no region. */
  readonly everything?: boolean;
  /** Called for each region call; what it returns may count. */
  readonly start: () => StartedPolicy;
}

export interface StartedPolicy {
  readonly ask: (context: PolicyContext) => CheckpointPolicy | undefined;
  /** About a value that was given a name; `before` is the decision so far. */
  readonly askName: (
    context: PolicyContext,
    before: CheckpointPolicy | undefined,
  ) => CheckpointPolicy | undefined;
  /** Hears of a name given to a value from outside the region, which is there anyway. */
  readonly sawName?: (name: string) => void;
}

export type AnyPolicy = PolicyFunction | DeclaredPolicy;

export interface Decision {
  readonly context: PolicyContext;
  readonly policy: CheckpointPolicy;
}

export class RegionPolicy {
  readonly #policy: StartedPolicy | undefined;
  readonly #contexts = new PolicyContexts();

  /** Without a policy only what every region keeps is kept. */
  constructor(policy: AnyPolicy | undefined) {
    this.#policy = typeof policy === 'function' ? startFunction(policy) : policy?.start();
  }

  /** Whether what an op makes is kept unless ordered otherwise. */
  keepsByDefault(op: AnyOp): boolean {
    return op.traits.keep === true || op.traits.remat === 'never';
  }

  /** Asks about an op that makes new values: not a view, and not a change in place. */
  decide(op: AnyOp, inputs: readonly Tensor[], params: Params, outputs: readonly Aval[]): Decision {
    const avals = inputs.map((input) => input.aval);
    const name = currentName();
    const context = this.#contexts.next(op, avals, params, outputs, currentModule(), name);
    const asked = this.#policy?.ask(context) ?? 'preferRecompute';
    if (op.traits.remat === 'never' && !isKept(asked)) return { context, policy: 'mustSave' };
    const keep = asked === 'preferRecompute' && this.keepsByDefault(op);
    return { context, policy: keep ? 'preferSave' : asked };
  }

  /** Hears of a name given to a value that the region did not make, or makes in place. */
  sawName(name: string): void {
    this.#policy?.sawName?.(name);
  }

  /** Asks again about a value that checkpointName marks. */
  decideName(made: Decision, name: string): CheckpointPolicy {
    this.sawName(name);
    const asked = this.#policy?.askName(renamed(made.context, name), made.policy);
    return asked ?? made.policy;
  }
}

function startFunction(policy: PolicyFunction): StartedPolicy {
  return {
    ask: (context) => askPolicy(policy, context),
    askName: (context, before) => {
      const asked = askPolicy(policy, context);
      refuseContradiction(before, asked, context);
      return asked === 'preferRecompute' ? before : asked;
    },
  };
}

/** Throws CheckpointError when one of two decisions about a value says must save and the other must recompute. */
export function refuseContradiction(
  a: CheckpointPolicy | undefined,
  b: CheckpointPolicy | undefined,
  context: PolicyContext,
  sources = '',
): void {
  const pair = [a, b];
  if (!pair.includes('mustRecompute')) return;
  const ordered = ['mustSave', 'mustOffload'];
  if (!pair.some((p) => p !== undefined && (typeof p === 'object' || ordered.includes(p)))) return;
  const show = (p: CheckpointPolicy | undefined): string =>
    typeof p === 'object' ? `compress to ${p.compress}` : String(p);
  throw new CheckpointError(
    `checkpoint: the policy contradicts itself at ${describeContext(context)} (got ${show(a)} and ${show(b)}${sources}). ` +
      'A value that must be kept cannot be one that must be recomputed: remove one of the two.',
    placeOf(context),
  );
}
