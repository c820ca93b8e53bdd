/**
 * What a selective region remembers of its forward: each op by (module path, op, number of its call), what
 * the policy decided, which ops made its inputs, and the values that are kept (S2, S4, S6). From this
 * follows what a recompute has to run: only what leads from kept values and inputs to what backward
 * reads. Values are identified by their memory; views belong to the memory they look into.
 */

import { CheckpointError, definite, invariant } from '../../core/errors.ts';
import { contiguousStrides } from '../../core/shape.ts';
import { sameAval } from '../../ir/aval.ts';
import type { Aval } from '../../ir/aval.ts';
import type { AnyOp, Params } from '../../ir/op.ts';
import { currentModule } from '../../tensor/context.ts';
import { eagerMode } from '../../tensor/backend.ts';
import { BufferData, type TensorData } from '../../tensor/data.ts';
import { withMode } from '../../tensor/mode.ts';
import {
  type HeldValue,
  type SaveContext,
  SavedTensor,
  type SavedTensorHooks,
  withSavedTensorHooks,
} from '../../tensor/saved-tensor.ts';
import { Tensor } from '../../tensor/tensor.ts';
import type { ValueStore } from '../value-store.ts';
import { isKept, isSave } from './policy.ts';
import { storeFor } from './policy-store.ts';
import type { Decision, RegionPolicy } from './region-policy.ts';

/** A value kept for backward. */
export interface Kept {
  /** A handle of its own, in the scope of the caller. */
  read(): Tensor;
  release(): void;
  /** For reports; undefined for what is not in memory. */
  readonly held?: () => Iterable<HeldValue>;
}

/** One op of the region's forward. */
export interface TapeEntry {
  readonly op: AnyOp;
  readonly outputs: readonly Aval[];
  /** Who made the inputs; those from outside the region are left out. */
  readonly producers: readonly TapeEntry[];
  /** Undefined for changes in place and aliases, which are always run again. */
  decision: Decision | undefined;
  /** One per output, while they are kept. */
  kept: readonly Kept[] | undefined;
  /** Outputs but the first, until forward ends: a name given to the first may still keep all. */
  siblings: readonly TensorData[];
  /** A view that lies in its input's memory: there is nothing to decide or to keep. */
  readonly alias: boolean;
  /** Its memory was changed in place later on: what is kept would not be what it made. */
  overwritten: boolean;
}

/** Where the value of a saved tensor came from. */
export interface Source {
  readonly entry: TapeEntry;
  readonly output: number;
}

export class RegionTape {
  readonly #policy: RegionPolicy;
  /** Whether only what every region keeps is of interest: then producers are not noted. */
  readonly #light: boolean;
  /** The hooks outside the region: what it keeps passes through them (S6). */
  readonly #outer: SavedTensorHooks | undefined;
  readonly #entries = new Map<string, TapeEntry[]>();
  /** The last op that wrote each piece of memory, during forward. */
  readonly #writers = new Map<object, Source>();
  readonly #hostReads: Uint8Array[] = [];

  constructor(policy: RegionPolicy, light: boolean, outer: SavedTensorHooks | undefined) {
    this.#policy = policy;
    this.#light = light;
    this.#outer = outer;
  }

  /** Forward: notes an op that ran and keeps its outputs if the policy says so. */
  record(
    op: AnyOp,
    inputs: readonly Tensor[],
    params: Params,
    outputs: readonly Aval[],
    data: readonly TensorData[],
  ): void {
    if (this.#light) {
      if (this.#policy.keepsByDefault(op)) this.#recordLight(op, inputs, params, outputs, data);
      return;
    }
    if (op.lower.kind === 'view' && data[0]?.root === inputs[0]?.data.root) {
      this.#add(aliasEntry(op, outputs));
      if (op.traits.marksName && inputs[0]) this.#mark(inputs[0], String(params.name));
      return;
    }
    const producers: TapeEntry[] = [];
    for (const input of inputs) {
      const source = this.#writers.get(input.data.root);
      if (source && !producers.includes(source.entry)) producers.push(source.entry);
    }
    const updates = op.traits.updates ?? [];
    for (const { input } of updates) this.#overwrite(inputs[input]);
    const copied = op.lower.kind === 'view' ? producers[0]?.decision : undefined;
    const decision =
      updates.length > 0 ? undefined : (copied ?? this.#policy.decide(op, inputs, params, outputs));
    const entry: TapeEntry = {
      op,
      outputs,
      producers,
      decision,
      kept: undefined,
      siblings: [],
      alias: false,
      overwritten: false,
    };
    this.#add(entry);
    data.forEach((item, output) => this.#writers.set(item.root, { entry, output }));
    if (decision && isKept(decision.policy)) entry.kept = this.#keepOutputs(decision, entry, data);
    else if (decision && data.length > 1) entry.siblings = data.slice(1).map((d) => d.retain());
  }

  /** Forward: where a tensor's value came from; undefined for one from outside the region. */
  sourceOf(tensor: Tensor): Source | undefined {
    return this.#writers.get(tensor.data.root);
  }

  /**
   * Forward: keeps a tensor that an op saves, when its value is kept by policy or costs nothing to keep.
   * Undefined when it is to be recomputed.
   */
  keepSaved(tensor: Tensor, context: SaveContext): Kept | undefined {
    if (this.#light) return undefined;
    const source = this.sourceOf(tensor);
    if (!source) return this.#save(tensor, context);
    const { decision, overwritten, kept } = source.entry;
    if (!decision || overwritten || !isKept(decision.policy)) return undefined;
    if (isSave(decision.policy)) return this.#save(tensor, context);
    return viewOfKept(kept?.[source.output], tensor);
  }

  /** Forward is over: frees what no recompute of `wanted` would read. */
  finish(wanted: Iterable<Source>): void {
    this.#writers.clear();
    if (this.#light) return;
    this.#forEach(freeSiblings);
    const needed = this.needed(wanted);
    this.#forEach((entry) => {
      if (!needed.has(entry)) free(entry);
    });
  }

  /** What a recompute has to run or read to produce `wanted`. */
  needed(wanted: Iterable<Source>): Set<TapeEntry> {
    const needed = new Set<TapeEntry>();
    const stack = [...wanted].map((source) => source.entry);
    for (let entry = stack.pop(); entry; entry = stack.pop()) {
      if (needed.has(entry)) continue;
      needed.add(entry);
      if (!entry.kept) stack.push(...entry.producers);
    }
    return needed;
  }

  /** Backward: a cursor over the entries in the order in which a recompute meets them. */
  replay(): TapeReplay {
    return new TapeReplay(this.#entries, this.#hostReads);
  }

  /** Frees kept values. Those that must not be computed again stay unless `all`. */
  release(all: boolean): void {
    if (all) this.#forEach(freeSiblings);
    this.#forEach((entry) => {
      if (all || !this.#policy.keepsByDefault(entry.op)) free(entry);
    });
    if (all) this.#hostReads.length = 0;
  }

  /** What is kept, for reports. */
  *held(): Generator<HeldValue> {
    for (const list of this.#entries.values()) {
      for (const { kept = [] } of list) for (const value of kept) yield* value.held?.() ?? [];
    }
  }

  /** Forward: what the host read stays known, so that it is not read again (S8). */
  recordHostRead(bytes: Uint8Array): void {
    this.#hostReads.push(bytes.slice());
  }

  #recordLight(
    op: AnyOp,
    inputs: readonly Tensor[],
    params: Params,
    outputs: readonly Aval[],
    data: readonly TensorData[],
  ): void {
    const decision = this.#policy.decide(op, inputs, params, outputs);
    const entry: TapeEntry = { ...aliasEntry(op, outputs), alias: false, decision };
    entry.kept = this.#keepOutputs(decision, entry, data);
    this.#add(entry);
  }

  #add(entry: TapeEntry): void {
    const key = keyOf(entry.op);
    const list = this.#entries.get(key);
    if (list) list.push(entry);
    else this.#entries.set(key, [entry]);
  }

  /** A name was given to the value of `tensor`: the policy may think again. */
  #mark(tensor: Tensor, name: string): void {
    const source = this.sourceOf(tensor);
    const entry = source?.entry;
    if (!source || !entry?.decision || entry.overwritten) {
      this.#policy.sawName(name);
      return;
    }
    const before = entry.decision.policy;
    const policy = this.#policy.decideName(entry.decision, name);
    entry.decision = { ...entry.decision, policy };
    if (policy === before) return;
    free(entry);
    if (!isKept(policy)) return;
    if (source.output !== 0) {
      throw new CheckpointError(
        `checkpointName: only the first output of ${entry.op.name} can be named (got output ${source.output}, '${name}'). ` +
          'Name the first one: the others are kept with it.',
        { op: entry.op.name, name },
      );
    }
    const first = wholeOutput(tensor, entry);
    entry.kept = this.#keepOutputs(entry.decision, entry, [first, ...entry.siblings]);
  }

  #overwrite(target: Tensor | undefined): void {
    const entry = target && this.sourceOf(target)?.entry;
    if (!entry) return;
    entry.overwritten = true;
    free(entry);
    freeSiblings(entry);
  }

  #keepOutputs(decision: Decision, entry: TapeEntry, data: readonly TensorData[]): Kept[] {
    return data.map((item, i) => {
      const { shape, dtype } = definite(entry.outputs[i]);
      const handle = new Tensor(item.retain(), shape, dtype, false);
      try {
        return this.#keep(handle, decision, entry.op);
      } finally {
        handle.dispose();
      }
    });
  }

  #keep(tensor: Tensor, { policy, context }: Decision, op: AnyOp): Kept {
    const saved = { op: op.name, name: 'out', module: context.module };
    return isSave(policy) ? this.#save(tensor, saved) : stored(storeFor(policy), tensor, saved);
  }

  /** Saved as if the region saved it for itself: hooks around the region see it. */
  #save(tensor: Tensor, context: SaveContext): Kept {
    const bare = new Tensor(tensor.data.retain(), tensor.shape, tensor.dtype, false);
    try {
      const saved = withSavedTensorHooks(this.#outer, () => new SavedTensor(bare, context));
      return {
        read: () => saved.unpack(undefined),
        release: () => saved.release(),
        held: () => [saved],
      };
    } finally {
      bare.dispose();
    }
  }

  #forEach(visit: (entry: TapeEntry) => void): void {
    for (const list of this.#entries.values()) for (const entry of list) visit(entry);
  }
}

/** A walk through the tape by one recompute. */
export class TapeReplay {
  readonly #entries: ReadonlyMap<string, readonly TapeEntry[]>;
  readonly #counts = new Map<string, number>();
  readonly #hostReads: readonly Uint8Array[];
  #nextRead = 0;

  constructor(
    entries: ReadonlyMap<string, readonly TapeEntry[]>,
    hostReads: readonly Uint8Array[],
  ) {
    this.#entries = entries;
    this.#hostReads = hostReads;
  }

  /** The entry of the next call of `op` in the present module; undefined for one that forward did not make. */
  next(op: AnyOp, outputs: readonly Aval[]): TapeEntry | undefined {
    const key = keyOf(op);
    const index = this.#counts.get(key) ?? 0;
    this.#counts.set(key, index + 1);
    const entry = this.#entries.get(key)?.[index];
    if (!entry?.outputs.every((aval, i) => outputs[i] && sameAval(aval, outputs[i]))) {
      if (entry?.kept) throw otherShape(op, outputs, entry);
      return undefined;
    }
    return entry;
  }

  /** Bytes of the next host read; undefined for one that forward did not make. */
  nextHostRead(): Uint8Array | undefined {
    return this.#hostReads[this.#nextRead++]?.slice();
  }
}

function keyOf(op: AnyOp): string {
  return `${currentModule()} ${op.name}`;
}

function aliasEntry(op: AnyOp, outputs: readonly Aval[]): TapeEntry {
  return {
    op,
    outputs,
    producers: [],
    decision: undefined,
    kept: undefined,
    siblings: [],
    alias: true,
    overwritten: false,
  };
}

function free(entry: TapeEntry): void {
  for (const kept of entry.kept ?? []) kept.release();
  entry.kept = undefined;
}

function freeSiblings(entry: TapeEntry): void {
  for (const data of entry.siblings) data.release();
  entry.siblings = [];
}

/** Borrowed data of the first output of `entry`, of which `tensor` may be a view: fresh outputs are dense. */
function wholeOutput({ data }: Tensor, { outputs }: TapeEntry): TensorData {
  const [aval] = outputs;
  if (!(data instanceof BufferData) || !aval) return data;
  return new BufferData(data.storage, { offset: 0, strides: contiguousStrides(aval.shape) });
}

/** A value in a store. Shared by everybody who saved it, so it is counted. */
interface StoredValue extends Kept {
  share(): void;
}

function stored(store: ValueStore, tensor: Tensor, context: SaveContext): StoredValue {
  // What a store computes is no op of the region.
  const handle = withMode(eagerMode, () => store.put(tensor, context));
  let owners = 1;
  return {
    read: () => store.get(handle),
    held: () => store.held(handle),
    share: () => {
      owners++;
    },
    release: () => {
      owners--;
      if (owners === 0) store.drop(handle);
    },
  };
}

/** A saved tensor whose value is in a store: the same view of what comes back. */
function viewOfKept(kept: Kept | undefined, tensor: Tensor): Kept | undefined {
  if (!kept || !('share' in kept) || !(tensor.data instanceof BufferData)) return undefined;
  const value = kept as StoredValue;
  value.share();
  const { layout } = tensor.data;
  const { shape, dtype } = tensor;
  return {
    read: () => {
      const whole = value.read();
      invariant(whole.data instanceof BufferData, () => 'a stored value came back without memory');
      const view = new Tensor(new BufferData(whole.data.storage.retain(), layout), shape, dtype);
      whole.dispose();
      return view;
    },
    release: () => value.release(),
  };
}

function otherShape(op: AnyOp, outputs: readonly Aval[], entry: TapeEntry): CheckpointError {
  const show = (avals: readonly Aval[]): string =>
    avals.map(({ shape, dtype }) => `${dtype}[${shape.join(', ')}]`).join(', ');
  return new CheckpointError(
    `checkpoint: recomputed values have different metadata than during the forward pass: ${op.name} ` +
      `(got ${show(outputs)}, ${show(entry.outputs)} in forward). Make the region do the same work each time.`,
    { op: op.name, forward: entry.outputs, recompute: outputs },
  );
}
