/**
 * `compile(step)`: traces a whole training step on its first call for each combination of argument
 * shapes, plans it, and then runs the plan. Everything that changes from call to call is an argument,
 * captured state, or host work that the step asked to have done before each run.
 */

import { ArgumentError, CompileError, definite, invariant } from '../core/errors.ts';
import { contiguousStrides, isContiguous } from '../core/shape.ts';
import { bytesPerElement } from '../core/dtype.ts';
import { type Aval, formatAval } from '../ir/aval.ts';
import type { Graph, Value } from '../ir/graph.ts';
import type { Block } from '../runtime/allocator.ts';
import type { Backend, BlockRef, Program, ProgramStep } from '../runtime/backend.ts';
import { currentBackend } from '../tensor/backend.ts';
import { BufferData } from '../tensor/data.ts';
import { noGrad } from '../tensor/context.ts';
import { currentMode } from '../tensor/mode.ts';
import { Storage } from '../tensor/storage.ts';
import { mapTensors } from '../tensor/structure.ts';
import { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { copyInPlace } from '../ops/in-place.ts';
import { clone } from '../ops/views.ts';
import { type CompiledPlan, type PipelineOptions, runPipeline } from './pipeline.ts';
import type { PlacedBuffer, Placement } from './place.ts';
import { type Trace, distinctTensors, trace } from './trace.ts';

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
 * host. Non-tensor arguments are baked in: each distinct value gets its own plan, and so does each
 * object of a class. Arguments that the step changes in place get their last values after the run.
 * Results are tensors of their own, even where the step returns an argument or a captured tensor. Throws CompileError, with the
 * offending line where there is one, for anything that cannot be traced, and for memory that the step
 * changes and that is passed under two names; DisposedError when a captured tensor is gone.
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
    // Last: nothing that can fail while it holds memory comes after.
    this.#constants = writeConstants(backend, placement);
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
    const times = scope(() => this.#with(args, (blocks) => this.#program.profile(blocks)).value);
    return times.map((ms, i) => ({ label: this.#labels[i] ?? '', ms }));
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
      // A run that fails half-way may have changed them as well.
      for (const { storage, changed } of this.#trace.states) if (changed) storage.version++;
      const value = execute(blocks);
      this.#writeBack(args, results);
      return { value, result: this.#wrapResult(results) };
    } finally {
      for (const undo of release) undo();
    }
  }

  #bindInputs(args: A, given: Map<PlacedBuffer, Block>, release: (() => void)[]): void {
    const { buffersOf } = this.#plan.placement;
    const bind = (original: Value, ref: BlockRef): void => {
      const buffer = buffersOf.get(mappedInput(this.#plan, this.#trace, original));
      invariant(ref.byteOffset === 0, () => 'an input must start its block');
      if (buffer) given.set(buffer, ref.block);
    };
    const tensors = distinctTensors(args);
    this.#refuseOverlap(tensors);
    tensors.forEach((tensor, i) => {
      const value = this.#trace.argumentValues[i];
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
    const made = new Map<Tensor, Tensor>();
    this.#trace.resultTensors.forEach((standIn, i) => {
      made.set(standIn, this.#resultTensor(results, i, standIn.aval));
    });
    return mapTensors(this.#trace.result, (standIn) => definite(made.get(standIn)));
  }

  #resultTensor(
    results: ReadonlyMap<PlacedBuffer, Storage>,
    index: number,
    { shape, dtype }: Aval,
  ): Tensor {
    const buffer = this.#plan.placement.results[index];
    const storage = buffer && results.get(buffer);
    invariant(storage, () => 'a result has no memory');
    const layout = { offset: 0, strides: contiguousStrides(shape) };
    return new Tensor(new BufferData(storage.retain(), layout), shape, dtype);
  }

  /** Arguments that the step changed in place get their last values. */
  #writeBack(args: A, results: ReadonlyMap<PlacedBuffer, Storage>): void {
    const { changedArguments, resultTensors } = this.#trace;
    if (changedArguments.length === 0) return;
    const tensors = distinctTensors(args);
    changedArguments.forEach((position, i) => {
      const target = definite(tensors[position]);
      const last = this.#resultTensor(results, resultTensors.length + i, target.aval);
      try {
        noGrad(() => copyInPlace(target, last));
      } finally {
        last.dispose();
      }
    });
  }

  /** The trace took different tensors for different memory: that must hold where memory changes. */
  #refuseOverlap(tensors: readonly Tensor[]): void {
    const { states, changedArguments } = this.#trace;
    const owners = new Map<object, { readonly changed: boolean; readonly what: string }>();
    for (const { storage, changed, value } of states) {
      owners.set(storage, { changed, what: `captured '${value.node.label}'` });
    }
    tensors.forEach((tensor, i) => {
      const changed = changedArguments.includes(i);
      const other = owners.get(tensor.data.root);
      if (other && (changed || other.changed)) {
        throw new CompileError(
          `compile: memory that the step changes in place was passed under two names (got ${other.what} and tensor ${i} of the arguments, ${tensor.describe()}). ` +
            'Pass a clone, or use one name for it.',
        );
      }
      owners.set(tensor.data.root, { changed, what: `tensor ${i} of the arguments` });
    });
  }
}

/** The value that stands for a traced input after the passes: they keep inputs and state, in order. */
function mappedInput<R>(plan: CompiledPlan, traced: Trace<R>, value: Value): Value {
  let table = inputTables.get(plan);
  if (!table) {
    const sources = ({ nodes }: Graph): Value[] =>
      nodes.flatMap((node) => (node.kind === 'input' || node.kind === 'state' ? node.outputs : []));
    const after = sources(plan.graph);
    const before = sources(traced.graph);
    invariant(before.length === after.length, () => 'a pass dropped or added inputs');
    table = new Map(before.map((source, i) => [source, definite(after[i])]));
    inputTables.set(plan, table);
  }
  return definite(table.get(value));
}

const inputTables = new WeakMap<CompiledPlan, Map<Value, Value>>();

function writeConstants(
  backend: Backend,
  placement: Placement,
): { buffer: PlacedBuffer; storage: Storage }[] {
  const made: { buffer: PlacedBuffer; storage: Storage }[] = [];
  try {
    for (const { buffer, tensor } of placement.constants) {
      const storage = Storage.allocate(backend, tensor.data.byteLength, 'input');
      made.push({ buffer, storage });
      backend.write({ block: storage.block, byteOffset: 0 }, tensor.data, tensor.dtype);
    }
    return made;
  } catch (error) {
    for (const { storage } of made) storage.release();
    throw error;
  }
}

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
  const copy = noGrad(() => clone(tensor));
  release.push(() => copy.dispose());
  invariant(copy.data instanceof BufferData, () => 'a clone is not in memory');
  return copy.data;
}

/** Text that is equal for calls that can share a plan. */
function signature(args: readonly unknown[]): string {
  const seen = new Map<object, number>();
  const number = (value: object): number => {
    const known = seen.get(value);
    if (known === undefined) seen.set(value, seen.size);
    return known ?? seen.size - 1;
  };
  return JSON.stringify(args, (_, value: unknown) => {
    if (value instanceof Tensor) {
      return {
        tensor: `${formatAval(value.aval)}${value.requiresGrad ? '!' : ''}#${number(value)}`,
      };
    }
    if (typeof value === 'function') {
      throw new ArgumentError(
        'compile: a function was passed to a compiled step. Make it part of the step instead.',
      );
    }
    if (typeof value === 'bigint') return { bigint: String(value) };
    if (typeof value === 'number' && (!Number.isFinite(value) || Object.is(value, -0))) {
      return { number: Object.is(value, -0) ? '-0' : String(value) };
    }
    if (value === undefined) return { undefined: 0 };
    if (value === null || typeof value !== 'object') return value;
    if (seen.has(value)) return `#${number(value)}`;
    number(value);
    if (value instanceof Map || value instanceof Set) return { collection: [...value] };
    if (Array.isArray(value) || ArrayBuffer.isView(value) || isPlain(value)) return value;
    return { instance: instanceNumber(value) };
  });
}

function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

const instanceNumbers = new WeakMap<object, number>();
let instances = 0;

/** Objects of classes keep what they are to themselves: each is taken for different from all others. */
function instanceNumber(value: object): number {
  const known = instanceNumbers.get(value) ?? instances++;
  instanceNumbers.set(value, known);
  return known;
}
