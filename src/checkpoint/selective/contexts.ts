/**
 * Selective checkpointing with the semantics of PyTorch's create_selective_checkpoint_contexts (S3): a pair
 * of modes for `contextFn`. The first stores the outputs that the policy says, whether backward needs them
 * or not; the second hands them out, once. Declared policies (declared.ts) store only what is needed.
 */

import { ArgumentError, CheckpointError, nearest } from '../../core/errors.ts';
import type { Aval } from '../../ir/aval.ts';
import type { AnyOp, Params } from '../../ir/op.ts';
import { allOps } from '../../ops/registry.ts';
import { currentModule } from '../../tensor/context.ts';
import type { TensorData } from '../../tensor/data.ts';
import type { Mode } from '../../tensor/mode.ts';
import { PassThroughMode } from '../../tensor/pass-through-mode.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import type { CheckpointContexts } from '../options.ts';
import { PolicyContexts, type PolicyFunction, askPolicy, isSave } from './policy.ts';
import { RegionPolicy } from './region-policy.ts';
import { TracedPolicyMode } from './traced-mode.ts';

export interface SelectiveContextOptions {
  /** Hand out stored values that were changed in place since. Default false: that is an error. */
  readonly allowCacheEntryMutation?: boolean;
}

/**
 * The two modes for `contextFn`, made anew for each region call: `contextFn: () =>
 * createSelectiveCheckpointContexts(policy)`. A list of op names stores those ops. As in PyTorch, offload
 * counts as recompute here. Throws ArgumentError for unknown ops or another argument; in backward
 * CheckpointError when an op was not run in forward, when the region is recomputed a second time, and when
 * a stored value was changed in place.
 */
export function createSelectiveCheckpointContexts(
  policyOrOps: PolicyFunction | readonly (string | AnyOp)[],
  options: SelectiveContextOptions = {},
): CheckpointContexts {
  const policy = typeof policyOrOps === 'function' ? policyOrOps : policyOfOps(policyOrOps);
  const cache = new SelectiveCache(options.allowCacheEntryMutation ?? false);
  const forward = (inner: Mode): Mode =>
    inner.tracing
      ? new TracedPolicyMode(inner, new RegionPolicy(policy))
      : new SelectiveForwardMode(inner, policy, cache);
  const again = (inner: Mode): Mode => new SelectiveRecomputeMode(inner, cache);
  return Object.assign([forward, again] as const, { release: () => cache.release() });
}

function policyOfOps(ops: unknown): PolicyFunction {
  if (!Array.isArray(ops)) {
    throw new ArgumentError(
      `createSelectiveCheckpointContexts: it takes either a function or a list of ops (got ${typeof ops}). ` +
        'Give a policy function, or names of ops.',
    );
  }
  const legal = allOps.map((op) => op.name);
  const names = ops.map((op: unknown) => {
    const name = typeof op === 'object' && op !== null && 'name' in op ? op.name : op;
    if (typeof name === 'string' && legal.includes(name)) return name;
    throw new ArgumentError(
      `createSelectiveCheckpointContexts: expected an op in the list (got ${String(name)}). ` +
        `Did you mean ${nearest(String(name), legal).join(', ')}?`,
      { op: name },
    );
  });
  return ({ op }) => (names.includes(op) ? 'mustSave' : 'preferRecompute');
}

/** Identities that PyTorch ignores too: they run in both passes and are not counted. */
function isIgnored(op: AnyOp): boolean {
  return op.traits.savedRead === true || op.traits.marksName === true;
}

type Entry =
  | { readonly kind: 'recompute' }
  | { readonly kind: 'consumed' }
  | {
      readonly kind: 'stored';
      readonly data: readonly TensorData[];
      readonly versions: readonly number[];
    };

const recompute: Entry = { kind: 'recompute' };
const consumed: Entry = { kind: 'consumed' };

/** Outputs by op and number of its call. */
class SelectiveCache {
  readonly #entries = new Map<string, Entry[]>();
  readonly #allowMutation: boolean;

  constructor(allowMutation: boolean) {
    this.#allowMutation = allowMutation;
  }

  push(op: string, entry: Entry): void {
    const list = this.#entries.get(op);
    if (list) list.push(entry);
    else this.#entries.set(op, [entry]);
  }

  /** The stored outputs of call `index` of `op`, which the caller owns; undefined when it is to run again. */
  take(op: string, index: number): readonly TensorData[] | undefined {
    const list = this.#entries.get(op);
    const entry = list?.[index];
    if (!list || !entry) throw notFound(op, list && index);
    if (entry.kind === 'recompute') return undefined;
    if (entry.kind === 'consumed') {
      throw new CheckpointError(
        `checkpoint: Trying to backward an extra time (got ${op}, call ${index}). ` +
          'You are only allowed to backward once on any region computed under selective activation checkpoint.',
        { op, index },
      );
    }
    const mutated = entry.data.some((data, i) => data.version !== entry.versions[i]);
    if (mutated && !this.#allowMutation) {
      throw new CheckpointError(
        `checkpoint: Tensor cached during selective activation checkpoint has been mutated (got ${op}, call ${index}). ` +
          'Clone it before the in-place change, or pass allowCacheEntryMutation: true.',
        { op, index },
      );
    }
    list[index] = consumed;
    return entry.data;
  }

  /** Frees what was not handed out; it counts as handed out. */
  release(): void {
    for (const list of this.#entries.values()) {
      for (const [i, entry] of list.entries()) {
        if (entry.kind !== 'stored') continue;
        for (const data of entry.data) data.release();
        list[i] = consumed;
      }
    }
  }
}

function notFound(op: string, index: number | undefined): CheckpointError {
  const what =
    index === undefined
      ? `${op} encountered during backward but not found in storage`
      : `${op}: invocation index ${index} encountered during backward but not found in storage`;
  return new CheckpointError(
    `checkpoint: ${what} (got an op that forward did not run). The operations in the checkpointed region may be ` +
      'nondeterministic or depend on global state that changed; make both runs do the same.',
    { op, index },
  );
}

class SelectiveForwardMode extends PassThroughMode {
  readonly #policy: PolicyFunction;
  readonly #cache: SelectiveCache;
  readonly #contexts = new PolicyContexts();

  constructor(inner: Mode, policy: PolicyFunction, cache: SelectiveCache) {
    super(inner);
    this.#policy = policy;
    this.#cache = cache;
  }

  override run(
    op: AnyOp,
    inputs: readonly Tensor[],
    params: Params,
    outputs: readonly Aval[],
  ): readonly TensorData[] {
    const data = super.run(op, inputs, params, outputs);
    if (isIgnored(op)) return data;
    const avals = inputs.map((input) => input.aval);
    const context = this.#contexts.next(op, avals, params, outputs, currentModule());
    const save = isSave(askPolicy(this.#policy, context));
    // The output of an in-place op is its target, which a stored twin cannot stand for.
    if (!save || op.traits.updates) this.#cache.push(op.name, recompute);
    else {
      const own = data.map((item) => item.retain());
      this.#cache.push(op.name, {
        kind: 'stored',
        data: own,
        versions: own.map(({ version }) => version),
      });
    }
    return data;
  }
}

class SelectiveRecomputeMode extends PassThroughMode {
  readonly #cache: SelectiveCache;
  readonly #counts = new Map<string, number>();

  constructor(inner: Mode, cache: SelectiveCache) {
    super(inner);
    this.#cache = cache;
  }

  override run(
    op: AnyOp,
    inputs: readonly Tensor[],
    params: Params,
    outputs: readonly Aval[],
  ): readonly TensorData[] {
    if (isIgnored(op)) return super.run(op, inputs, params, outputs);
    const index = this.#counts.get(op.name) ?? 0;
    this.#counts.set(op.name, index + 1);
    return this.#cache.take(op.name, index) ?? super.run(op, inputs, params, outputs);
  }
}
