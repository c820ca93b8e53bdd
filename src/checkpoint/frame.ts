/**
 * The state of one checkpointed region: its function and inputs, one holder per tensor saved in
 * forward, and, for each backward, the tensors that its recompute produced. A frame lives as long as
 * one of its holders is in the graph.
 */

import { type BackwardPass, currentPass } from '../autograd/backward-id.ts';
import { CheckpointError, RetuneError, invariant } from '../core/errors.ts';
import {
  currentModule,
  currentPhase,
  enableGrad,
  whileRecomputing,
  withModule,
  withPhase,
  withoutRegions,
} from '../tensor/context.ts';
import { type Mode, currentMode, withMode } from '../tensor/mode.ts';
import {
  type HeldValue,
  type SaveContext,
  checkVersion,
  type SavedTensorHooks,
  currentHooks,
  withSavedTensorHooks,
} from '../tensor/saved-tensor.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { DiscardedOutputs, type OutputRegion, remadeOutputs } from './discarded-outputs.ts';
import type { Holder } from './holder.ts';
import {
  compareAval,
  compareCounts,
  compareValue,
  compareVersion,
  describeRegion,
} from './mismatch.ts';
import { type OpLogEntry, OpLogMode, sideBySide } from './op-log.ts';
import {
  type CheckpointContexts,
  type ModeMaker,
  type ResolvedOptions,
  makeContexts,
} from './options.ts';
import { RegionInputs } from './region-inputs.ts';
import { type DrawRecord, recordDraws, replayDraws } from './rng.ts';
import { checksum } from './checksum.ts';
import { OnceRecord, withOnce } from './run-once.ts';
import { RecordingMode, ReplayingMode } from './selective/region-modes.ts';
import { RegionPolicy } from './selective/region-policy.ts';
import { RegionTape, type Source } from './selective/tape.ts';

/** What one recompute produced. */
interface Recompute {
  readonly tensors: Map<Holder, Tensor>;
  /** Versions of `tensors` when the recompute saved them. */
  readonly versions: Map<Holder, number>;
  readonly taken: Set<Holder>;
}

/** Thrown through user code to end a recompute; not an Error, so that it carries no stack to build. */
class StopRecompute {
  readonly frame: Frame;
  constructor(frame: Frame) {
    this.frame = frame;
  }
}

let warnedUnreplayed = false;

export class Frame {
  readonly #fn: (...args: readonly unknown[]) => unknown;
  readonly #inputs: RegionInputs;
  readonly #options: ResolvedOptions;
  readonly #module = currentModule();
  readonly #phase = currentPhase();
  readonly #holders: Holder[] = [];
  /** What stands for the region's outputs with those who saved them. */
  readonly #outputHolders = new Set<Holder>();
  readonly #recomputes = new Map<BackwardPass, Recompute>();
  /** The mode around the region's modes, in the present run. */
  #outside: Mode = currentMode();
  readonly #draws: DrawRecord = new Map();
  readonly #forwardLog: OpLogEntry[] | undefined;
  readonly #contexts: CheckpointContexts | undefined;
  readonly #tape: RegionTape;
  readonly #once = new OnceRecord();
  /** Undefined when the region keeps what it returns. */
  #outputs: DiscardedOutputs | undefined;
  /** Holders in the graph that only a recompute can fill. */
  #unkept = 0;
  #complete = false;
  #freed = false;

  constructor(
    fn: (...args: readonly unknown[]) => unknown,
    args: readonly unknown[],
    options: ResolvedOptions,
  ) {
    this.#fn = fn;
    this.#options = options;
    if (options.debug) this.#forwardLog = [];
    this.#contexts = makeContexts(options);
    const { policy } = options;
    const regionPolicy = new RegionPolicy(policy);
    this.#tape = new RegionTape(regionPolicy, policy === undefined, currentHooks());
    // Saved before the region's own hooks are in force: an enclosing region, or offload, sees them.
    this.#inputs = new RegionInputs(args, this.#module);
  }

  /** Runs the region's forward under the modes that note what it does. */
  runForward<R>(args: readonly unknown[], body: () => R): R {
    this.#outside = currentMode();
    const recording = this.#once.recording(this.#outside);
    let run = (): R => withOnce(recording, body);
    const log = this.#forwardLog;
    const modes: (ModeMaker | undefined)[] = [
      log && ((inner) => new OpLogMode(inner, log)),
      this.#contexts?.[0],
      (inner) => new RecordingMode(inner, this.#tape),
    ];
    for (const make of modes) run = make ? entering(make, run) : run;
    try {
      // The region's inputs may have been the last tensors that an enclosing recompute needed.
      currentHooks()?.boundary?.();
      const result = recordDraws(this.#draws, run);
      if (this.#options.discardOutput) this.#outputs = this.#discard(args, result);
      return result;
    } finally {
      this.#complete = true;
      this.#tape.finish([...this.#wanted(), ...(this.#outputs?.sources() ?? [])]);
      this.#freeIfDone();
    }
  }

  #discard(args: readonly unknown[], result: unknown): DiscardedOutputs {
    const region: OutputRegion = {
      sourceOf: (tensor) => this.#tape.sourceOf(tensor),
      hold: (tensor, context, part) => {
        const holder = this.#makeHolder(part.output.position, tensor, context, {
          kept: undefined,
          source: part.output.source,
          part,
        });
        this.#outputHolders.add(holder);
        this.#unkept++;
        return holder;
      },
      take: (holder) => this.take(holder),
      drop: (holder) => {
        this.#outputHolders.delete(holder);
        this.drop(holder);
      },
      held: (holder) => this.held(holder),
      closed: () => this.#freeIfDone(),
    };
    return new DiscardedOutputs(region, args, result);
  }

  /** Forward: replaces a saved tensor by a holder. */
  hold(tensor: Tensor, context: SaveContext): Holder {
    const kept = this.#tape.keepSaved(tensor, context);
    const source = this.#tape.sourceOf(tensor);
    const holder = this.#makeHolder(this.#holders.length, tensor, context, { kept, source });
    this.#holders.push(holder);
    if (!kept) this.#unkept++;
    return holder;
  }

  #makeHolder(
    index: number,
    tensor: Tensor,
    context: SaveContext,
    more: Pick<Holder, 'kept' | 'source' | 'part'>,
  ): Holder {
    return {
      index,
      aval: tensor.aval,
      context,
      checksum: this.#options.determinismCheck === 'values' ? this.#checksum(tensor) : undefined,
      root: tensor.data.root,
      version: tensor.version,
      ...more,
      alive: true,
    };
  }

  /** Backward: the tensor of `holder`, from this pass's recompute. */
  take(holder: Holder): Tensor {
    if (holder.kept) return holder.kept.read();
    const running = currentPass();
    const pass = running ?? { group: false, retains: true, atEnd: new Set() };
    try {
      return this.#takeIn(pass, holder);
    } finally {
      if (!running) this.#forget(pass);
    }
  }

  #takeIn(pass: BackwardPass, holder: Holder): Tensor {
    const recompute = this.#recomputes.get(pass) ?? this.#recompute(pass);
    if (recompute.taken.has(holder)) this.#takenTwice(holder, pass);
    const tensor = recompute.tensors.get(holder);
    invariant(
      tensor,
      () => `the recompute of ${this.#name()} did not produce tensor ${holder.index}`,
    );
    checkVersion(tensor.version, recompute.versions.get(holder) ?? 0, holder.context);
    recompute.tensors.delete(holder);
    recompute.taken.add(holder);
    // A second handle in the scope of the reader; ours goes, so that the memory dies with the reader's.
    const handle = tensor.detach();
    tensor.dispose();
    return handle;
  }

  /** What memory the region holds on account of `holder`, for reports. */
  *held({ kept }: Holder): Generator<HeldValue> {
    yield* this.#inputs.saved;
    yield* this.#tape.held();
    yield* kept?.held?.() ?? [];
  }

  drop(holder: Holder): void {
    if (!holder.alive) return;
    holder.alive = false;
    if (holder.kept) holder.kept.release();
    else this.#unkept--;
    for (const recompute of this.#recomputes.values()) {
      recompute.tensors.get(holder)?.dispose();
      recompute.tensors.delete(holder);
    }
    this.#freeIfDone();
  }

  /** Where the values came from that only a recompute can give. */
  *#wanted(): Generator<Source> {
    for (const { alive, kept, source } of this.#holders) if (alive && !kept && source) yield source;
    for (const { source } of this.#outputHolders) if (source) yield source;
  }

  /** Once nothing in the graph needs the region, and no output can be saved any more. */
  #freeIfDone(): void {
    if (this.#unkept === 0 && this.#complete && !this.#outputs?.open) this.#free();
  }

  #free(): void {
    if (this.#freed) return;
    this.#freed = true;
    this.#inputs.release();
    this.#tape.release(true);
    this.#once.release();
    this.#contexts?.release?.();
    for (const pass of [...this.#recomputes.keys()]) this.#forget(pass);
  }

  #forget(pass: BackwardPass): void {
    const recompute = this.#recomputes.get(pass);
    this.#recomputes.delete(pass);
    for (const tensor of recompute?.tensors.values() ?? []) tensor.dispose();
  }

  /** Runs the region again for `pass`. When that fails nothing of it stays. */
  #recompute(pass: BackwardPass): Recompute {
    const target: Recompute = { tensors: new Map(), versions: new Map(), taken: new Set() };
    const log: OpLogEntry[] = [];
    this.#recomputes.set(pass, target);
    pass.atEnd.add(() => this.#forget(pass));
    try {
      scope(() => this.#runAgain(this.#inputs.restore(), target, log));
      return target;
    } catch (error) {
      this.#forget(pass);
      if (error instanceof CheckpointError && this.#forwardLog) throw this.#withLogs(error, log);
      throw error;
    }
  }

  #runAgain(args: readonly unknown[], target: Recompute, log: OpLogEntry[]): void {
    const counter = { next: 0 };
    const selective = this.#options.policy !== undefined;
    // An output is there when the region has run to its end.
    const stops = this.#options.earlyStop && this.#outputHolders.size === 0;
    const last = stops && selective ? this.#lastUnkept() : this.#holders.length;
    const stop = (): void => {
      if (stops && counter.next >= last) throw new StopRecompute(this);
    };
    const hooks: SavedTensorHooks<Tensor> = {
      pack: (tensor) => this.#collect(tensor, counter, target),
      unpack: (tensor) => tensor,
      boundary: stop,
    };
    let body = (): void => {
      withOnce(this.#once.replaying(), () =>
        withSavedTensorHooks(hooks, () =>
          whileRecomputing(() => {
            const result = this.#fn(...args);
            if (this.#outputHolders.size > 0) this.#collectOutputs(result, target);
          }),
        ),
      );
    };
    this.#outside = currentMode();
    const replay = this.#tape.replay();
    const needed = selective ? this.#tape.needed(this.#wanted()) : undefined;
    const modes: (ModeMaker | undefined)[] = [
      this.#forwardLog && ((inner) => new OpLogMode(inner, log)),
      this.#contexts?.[1],
      (inner) => new ReplayingMode(inner, replay, needed, this.#name()),
    ];
    for (const make of modes) body = make ? entering(make, body) : body;
    try {
      withPhase(this.#phase, () =>
        withModule(this.#module, () =>
          withoutRegions(() => enableGrad(() => this.#withDraws(body))),
        ),
      );
    } catch (signal) {
      if (!(signal instanceof StopRecompute && signal.frame === this)) throw signal;
    }
    compareCounts(this.#name(), last, counter.next);
    if (!this.#complete) return;
    this.#contexts?.release?.();
    if (currentPass()?.retains === false) this.#tape.release(false);
  }

  /** One more than the place of the last holder that a recompute has to fill. */
  #lastUnkept(): number {
    return this.#holders.findLastIndex(({ alive, kept }) => alive && !kept) + 1;
  }

  #withDraws(body: () => void): void {
    if (this.#options.preserveRngState) {
      replayDraws(this.#draws, body);
      return;
    }
    if (this.#draws.size > 0 && !warnedUnreplayed) {
      warnedUnreplayed = true;
      globalThis.process?.emitWarning(
        `checkpoint: ${this.#name()} draws random numbers and preserveRngState is false, so its recompute ` +
          'draws others and its gradients are not those of its forward.',
      );
    }
    recordDraws(new Map(), body);
  }

  /** Recompute: keeps the next saved tensor if its holder is still wanted. */
  #collect(tensor: Tensor, counter: { next: number }, target: Recompute): Tensor {
    const index = counter.next++;
    const holder = this.#holders[index];
    if (!holder) {
      if (!this.#complete || this.#options.earlyStop) return tensor.detach().keep();
      throw new CheckpointError(
        `checkpoint: trying to save more tensors during recomputation than during the original forward pass ` +
          `in ${this.#name()} (got tensor ${index + 1}, ${this.#holders.length} in forward). ` +
          'Make the region do the same work each time; debug: true shows both runs.',
        { region: this.#name(), forward: this.#holders.length },
      );
    }
    if (!holder.alive || holder.kept) return tensor.detach().keep();
    // Contexts may hand out what was changed in place, if told so.
    if (!this.#contexts) compareVersion(this.#name(), holder, tensor);
    if (this.#options.determinismCheck !== 'none') compareAval(this.#name(), holder, tensor);
    if (holder.checksum !== undefined) compareValue(this.#name(), holder, this.#checksum(tensor));
    target.tensors.set(holder, tensor.detach().keep());
    target.versions.set(holder, tensor.version);
    return tensor.detach().keep();
  }

  #collectOutputs(result: unknown, target: Recompute): void {
    for (const [holder, tensor] of remadeOutputs(this.#name(), this.#outputHolders, result)) {
      if (holder.checksum !== undefined) {
        compareValue(this.#name(), holder, this.#checksum(tensor));
      }
      target.tensors.set(holder, tensor);
      target.versions.set(holder, tensor.version);
    }
  }

  /** Our own look at the values is not a host read of the region. */
  #checksum(tensor: Tensor): string {
    return withMode(
      () => this.#outside,
      () => checksum(tensor),
    );
  }

  #takenTwice(holder: Holder, pass: BackwardPass): never {
    const what = pass.group
      ? 'Performing two backward calls that overlap in one recomputeGroup'
      : 'Unpack is being triggered for a tensor that was already unpacked once';
    throw new CheckpointError(
      `checkpoint: ${what} (got ${holder.context.name} of ${holder.context.op} in ${this.#name()}). ` +
        'Let each saved tensor be read once per backward.',
      { region: this.#name(), op: holder.context.op },
    );
  }

  #withLogs(error: CheckpointError, log: readonly OpLogEntry[]): CheckpointError {
    return new CheckpointError(
      `${error.message}\nYou are seeing this because you passed debug: true. Ops of both runs:\n` +
        sideBySide(this.#forwardLog ?? [], log),
      { ...error.details, forwardLog: this.#forwardLog, recomputeLog: log },
      error,
    );
  }

  #name(): string {
    return describeRegion(this.#options.name, this.#module);
  }
}

/** `body` under the mode that `make` makes. */
function entering<T>(make: ModeMaker, body: () => T): () => T {
  return () => withMode(make, body);
}

/** True for errors that belong to checkpointing itself. */
export function isCheckpointError(error: unknown): error is CheckpointError {
  return error instanceof RetuneError && error.code === 'checkpoint';
}
