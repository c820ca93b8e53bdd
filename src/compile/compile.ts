/**
 * `compile(step)`: traces a whole training step on its first call for each combination of argument
 * shapes, plans it, and then runs the plan. Everything that changes from call to call is an argument,
 * captured state, or host work that the step asked to have done before each run.
 */

import { ArgumentError, CompileError, invariant } from '../core/errors.ts';
import { contiguousStrides, isContiguous } from '../core/shape.ts';
import { bytesPerElement } from '../core/dtype.ts';
import { formatAval } from '../ir/aval.ts';
import type { Block } from '../runtime/allocator.ts';
import type { Backend, BlockRef, Program, ProgramStep } from '../runtime/backend.ts';
import { currentBackend } from '../tensor/backend.ts';
import { BufferData } from '../tensor/data.ts';
import { currentMode } from '../tensor/mode.ts';
import { Storage } from '../tensor/storage.ts';
import { Tensor, forEachTensor, mapTensors } from '../tensor/tensor.ts';
import { clone } from '../ops/views.ts';
import { type CompiledPlan, type PipelineOptions, runPipeline } from './pipeline.ts';
import type { PlacedBuffer } from './place.ts';
import { type Trace, trace } from './trace.ts';

export type CompileOptions = PipelineOptions;

/** What is known of one compiled variant (one combination of argument shapes). */
export interface StepPlan {
  readonly plan: CompiledPlan;
  /** Bytes that a run allocates: the arena and the results. Equals the measured peak. */
  readonly peakBytes: number;
  /** Kernels and routines in a run. */
  readonly launches: number;
  readonly compileMs: number;
}

export interface CompiledStep<A extends readonly unknown[], R> {
  (...args: A): R;
  /** Plans so far, one per combination of argument shapes and plain arguments. */
  readonly plans: readonly StepPlan[];
  /** Traces and plans for these arguments without running. */
  prepare(...args: A): StepPlan;
  /** Milliseconds of each launch of one run, with its label. The run takes effect. */
  profile(...args: A): readonly { readonly label: string; readonly ms: number }[];
  /** Forgets all plans and frees what they hold. */
  dispose(): void;
}

/**
 * A function that does what `step` does, compiled. `step` may use tensors from outside (parameters,
 * optimizer state), change them in place, call backward and optimizers; it must not read values on the
 * host. Non-tensor arguments are baked in: each distinct value gets its own plan.
 * Throws CompileError with the offending line for anything that cannot be traced.
 */
export function compile<A extends readonly unknown[], R>(
  step: (...args: A) => R,
  options: CompileOptions = {},
): CompiledStep<A, R> {
  const variants = new Map<string, Variant<A, R>>();
  const variantOf = (args: A): Variant<A, R> => {
    if (currentMode().tracing) {
      throw new CompileError(
        'compile: a compiled step was called inside another one. Call the plain function there.',
      );
    }
    const key = signature(args);
    let variant = variants.get(key);
    if (variant?.backend !== currentBackend()) {
      variant?.dispose();
      variant = new Variant(step, args, options, currentBackend());
      variants.set(key, variant);
    }
    return variant;
  };
  const run = (...args: A): R => variantOf(args).run(args);
  const plans = (): StepPlan[] => [...variants.values()].map((variant) => variant.info);
  Object.defineProperty(run, 'plans', { get: plans });
  return Object.assign(run as typeof run & { readonly plans: readonly StepPlan[] }, {
    prepare: (...args: A): StepPlan => variantOf(args).info,
    profile: (...args: A) => variantOf(args).profile(args),
    dispose: (): void => {
      for (const variant of variants.values()) variant.dispose();
      variants.clear();
    },
  });
}

class Variant<A extends readonly unknown[], R> {
  readonly backend: Backend;
  readonly info: StepPlan;
  readonly #trace: Trace<R>;
  readonly #plan: CompiledPlan;
  readonly #program: Program;
  readonly #slots: readonly PlacedBuffer[];
  readonly #constants: readonly { readonly buffer: PlacedBuffer; readonly storage: Storage }[];
  readonly #labels: readonly string[];

  constructor(step: (...args: A) => R, args: A, options: CompileOptions, backend: Backend) {
    const start = performance.now();
    this.backend = backend;
    this.#trace = trace(step, args);
    this.#plan = runPipeline(this.#trace.graph, options);
    const { placement, offsets } = this.#plan;
    this.#constants = placement.constants.map(({ buffer, tensor }) => {
      const storage = Storage.allocate(backend, tensor.data.byteLength, 'input');
      backend.write({ block: storage.block, byteOffset: 0 }, tensor.data, tensor.dtype);
      return { buffer, storage };
    });
    // Slot 0 is the arena; every other buffer that is not in it has a slot of its own.
    this.#slots = placement.buffers.filter((buffer) => buffer.kind !== 'arena');
    const slotOf = new Map(this.#slots.map((buffer, i) => [buffer, i + 1]));
    const steps = placement.steps.map((placed): ProgramStep => {
      const scalars = placed.lowered.kind === 'kernel' ? placed.lowered.scalars : [];
      return {
        executable: backend.prepare(placed.lowered),
        scalars,
        label: placed.label,
        operands: placed.operands.map(({ buffer, byteOffset }) => ({
          slot: slotOf.get(buffer) ?? 0,
          byteOffset: byteOffset + (offsets.get(buffer) ?? 0),
        })),
      };
    });
    this.#labels = steps.map((placed) => placed.label);
    this.#program = backend.createProgram(steps);
    this.info = {
      plan: this.#plan,
      peakBytes: this.#plan.peakBytes,
      launches: steps.length,
      compileMs: performance.now() - start,
    };
  }

  run(args: A): R {
    return this.#with(args, (blocks) => this.#program.run(blocks)).result;
  }

  profile(args: A): { label: string; ms: number }[] {
    const { value } = this.#with(args, (blocks) => this.#program.profile(blocks));
    return value.map((ms, i) => ({ label: this.#labels[i] ?? '', ms }));
  }

  dispose(): void {
    this.#program.dispose();
    for (const { storage } of this.#constants) storage.release();
  }

  #with<T>(args: A, execute: (blocks: readonly Block[]) => T): { value: T; result: R } {
    for (const work of this.#trace.beforeRun) work();
    const given = new Map<PlacedBuffer, Block>();
    const release: (() => void)[] = [];
    try {
      this.#bindInputs(args, given, release);
      const { buffersOf } = this.#plan.placement;
      for (const { storage, value } of this.#trace.states) {
        const buffer = buffersOf.get(mappedInput(this.#plan, this.#trace, value));
        if (buffer) given.set(buffer, storage.block);
      }
      for (const { buffer, storage } of this.#constants) given.set(buffer, storage.block);
      const { allocator } = this.backend;
      const arena = allocator.alloc(this.#plan.memory.arenaBytes, 'activation');
      release.push(() => allocator.free(arena));
      const results = new Map<PlacedBuffer, Storage>();
      for (const buffer of new Set(this.#plan.placement.results)) {
        const storage = Storage.allocate(this.backend, buffer.bytes, 'activation');
        results.set(buffer, storage);
        release.push(() => storage.release());
        given.set(buffer, storage.block);
      }
      const blocks = [arena, ...this.#slots.map((buffer) => given.get(buffer) ?? arena)];
      const value = execute(blocks);
      for (const { storage } of this.#trace.states) storage.version++;
      return { value, result: this.#wrapResult(results) };
    } finally {
      for (const undo of release) undo();
    }
  }

  #bindInputs(args: A, given: Map<PlacedBuffer, Block>, release: (() => void)[]): void {
    const { buffersOf } = this.#plan.placement;
    const bind = (original: Trace<R>['argumentValues'][number], ref: BlockRef): void => {
      const buffer = buffersOf.get(mappedInput(this.#plan, this.#trace, original));
      invariant(ref.byteOffset === 0, () => 'an input must start its block');
      if (buffer) given.set(buffer, ref.block);
    };
    let index = 0;
    forEachTensor(args, (tensor) => {
      const value = this.#trace.argumentValues[index++];
      invariant(value, () => 'more tensors in the arguments than were traced');
      const dense = denseArgument(tensor, release);
      bind(value, { block: dense.storage.block, byteOffset: 0 });
    });
    for (const { generator, value, draws } of this.#trace.generators) {
      const host = generator.stateTensor(generator.advance(draws));
      const storage = Storage.allocate(this.backend, host.data.byteLength, 'input');
      release.push(() => storage.release());
      this.backend.write({ block: storage.block, byteOffset: 0 }, host.data, host.dtype);
      bind(value, { block: storage.block, byteOffset: 0 });
    }
  }

  /** The step's return value with the traced tensors replaced by new ones over the result buffers. */
  #wrapResult(results: ReadonlyMap<PlacedBuffer, Storage>): R {
    let index = 0;
    const made = new Map<Tensor, Tensor>();
    return mapTensors(this.#trace.result, (traced) => {
      const known = made.get(traced);
      if (known) return known;
      const buffer = this.#plan.placement.results[index++];
      const storage = buffer && results.get(buffer);
      invariant(storage, () => 'a result has no memory');
      const layout = { offset: 0, strides: contiguousStrides(traced.shape) };
      const tensor = new Tensor(
        new BufferData(storage.retain(), layout),
        traced.shape,
        traced.dtype,
      );
      made.set(traced, tensor);
      return tensor;
    });
  }
}

/** The node that stands for a traced input after the passes: inputs keep their label and order. */
function mappedInput<R>(
  plan: CompiledPlan,
  traced: Trace<R>,
  value: Trace<R>['argumentValues'][number],
): Trace<R>['argumentValues'][number] {
  let table = inputTables.get(plan);
  if (!table) {
    const sources = (nodes: typeof plan.graph.nodes): typeof plan.graph.nodes =>
      nodes.filter((node) => node.kind === 'input' || node.kind === 'state');
    const before = sources(traced.graph.nodes);
    const after = sources(plan.graph.nodes);
    const byLabel = new Map(after.map((node) => [node.label, node]));
    table = new Map(before.map((node) => [node, byLabel.get(node.label)]));
    inputTables.set(plan, table);
  }
  return table.get(value.node)?.outputs[0] ?? value;
}

const inputTables = new WeakMap<
  CompiledPlan,
  Map<CompiledPlan['graph']['nodes'][number], CompiledPlan['graph']['nodes'][number] | undefined>
>();

function denseArgument(tensor: Tensor, release: (() => void)[]): BufferData {
  const { data } = tensor;
  invariant(data instanceof BufferData, () => 'an argument of a compiled step is not in memory');
  const { layout } = data;
  if (
    layout.offset * bytesPerElement(tensor.dtype) === 0 &&
    isContiguous(tensor.shape, layout.strides)
  ) {
    return data;
  }
  const copy = clone(tensor);
  release.push(() => copy.dispose());
  invariant(copy.data instanceof BufferData, () => 'a clone is not in memory');
  return copy.data;
}

/** Text that is equal for calls that can share a plan. */
function signature(args: readonly unknown[]): string {
  const seen = new Map<object, number>();
  return JSON.stringify(args, (_, value: unknown) => {
    if (value instanceof Tensor) return `${formatAval(value.aval)}${value.requiresGrad ? '!' : ''}`;
    if (typeof value === 'function') {
      throw new ArgumentError(
        'compile: a function was passed to a compiled step. Make it part of the step instead.',
      );
    }
    if (typeof value === 'bigint' || Number.isNaN(value)) return String(value);
    if (value !== null && typeof value === 'object') {
      const known = seen.get(value);
      if (known !== undefined) return `#${known}`;
      seen.set(value, seen.size);
    }
    return value;
  });
}
