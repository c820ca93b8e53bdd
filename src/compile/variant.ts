/** One plan of a compiled step: bound to memory and run. */

import { bytesPerElement } from '../core/dtype.ts';
import { CompileError, definite, invariant } from '../core/errors.ts';
import { contiguousStrides, isContiguous } from '../core/shape.ts';
import type { Aval } from '../ir/aval.ts';
import type { Graph, Value } from '../ir/graph.ts';
import { copyInPlace } from '../ops/in-place.ts';
import { clone } from '../ops/views.ts';
import type { Block } from '../runtime/allocator.ts';
import type { Backend, BlockRef, Program } from '../runtime/backend.ts';
import { noGrad } from '../tensor/context.ts';
import { BufferData } from '../tensor/data.ts';
import { Storage } from '../tensor/storage.ts';
import { mapTensors } from '../tensor/structure.ts';
import { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import type { FrontierPoint } from './frontier.ts';
import { type CompiledPlan, type StepOptions, planStep, planStepFrontier } from './plan-step.ts';
import { programSteps } from './program-steps.ts';
import type { PlacedBuffer, Placement } from './placement.ts';
import { inputTensors, type Trace, trace } from './trace.ts';

/** What is known of one compiled variant (one combination of argument shapes). */
export interface StepPlan {
  readonly plan: CompiledPlan;
  /** Bytes that a run allocates: the arena and the results. Equals the measured peak. */
  readonly peakBytes: number;
  /** Kernels and routines in a run. */
  readonly launches: number;
  readonly compileMs: number;
  /** Time and memory of the plans for so many budgets (default 20), by rising memory. `onProgress` is told a share in 0..1. */
  readonly frontier: (
    points?: number,
    onProgress?: (done: number) => void,
  ) => readonly FrontierPoint[];
  /** Why it was made: what differed from the plan of the call before, or that there was none. */
  readonly reason: string;
}

let serials = 0;

export class Variant<A extends readonly unknown[], R> {
  readonly backend: Backend;
  readonly info: StepPlan;
  /** Order in which variants were made. */
  readonly serial: number = serials++;
  readonly #trace: Trace<R>;
  readonly #plan: CompiledPlan;
  readonly #program: Program;
  readonly #slots: readonly PlacedBuffer[];
  readonly #constants: readonly { readonly buffer: PlacedBuffer; readonly storage: Storage }[];
  readonly #labels: readonly string[];

  constructor(
    step: (...args: A) => R,
    args: A,
    options: StepOptions,
    backend: Backend,
    reason: string,
  ) {
    const start = performance.now();
    this.backend = backend;
    this.#trace = trace(step, args);
    this.#plan = planStep(this.#trace.graph, backend, options);
    const { placement, offsets } = this.#plan;
    // Slot 0 is the arena; every other buffer that is not in it has a slot of its own.
    this.#slots = placement.buffers.filter((buffer) => buffer.kind !== 'arena');
    const slotOf = new Map(this.#slots.map((buffer, i) => [buffer, i + 1]));
    const steps = programSteps(backend, placement.steps, (buffer) => ({
      slot: slotOf.get(buffer) ?? 0,
      byteOffset: offsets.get(buffer) ?? 0,
    }));
    this.#labels = steps.map((placed) => placed.label);
    this.#program = backend.createProgram(steps, this.#plan.place);
    // Last: nothing that can fail while it holds memory comes after.
    this.#constants = writeConstants(backend, placement);
    this.info = {
      plan: this.#plan,
      peakBytes: this.#plan.peakBytes,
      launches: steps.length,
      compileMs: performance.now() - start,
      reason,
      frontier: (points = 20, onProgress) =>
        planStepFrontier(this.#trace.graph, backend, options, { points, onProgress }),
    };
  }

  /** Whether the trace is good for the host's present state. */
  holds(): boolean {
    return this.#trace.guards.every((guard) => guard.holds());
  }

  /** What holds() failed on. */
  mismatch(): string | undefined {
    return this.#trace.guards.find((guard) => !guard.holds())?.explain();
  }

  /** Whether it can never be used again. */
  get dead(): boolean {
    return this.#trace.guards.some((guard) => guard.forever && !guard.holds());
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
    this.#dropGradients(args, true);
    const given = new Map<PlacedBuffer, Block>();
    const release: (() => void)[] = [];
    try {
      this.#bindInputs(args, given, release);
      const { buffersOf } = this.#plan.placement;
      for (const { memory, value } of this.#trace.states) {
        const buffer = buffersOf.get(mappedInput(this.#plan, this.#trace, value));
        if (buffer) given.set(buffer, memory().block);
      }
      for (const { buffer, storage } of this.#constants) given.set(buffer, storage.block);
      const { allocator } = this.backend;
      const arena = allocator.alloc(this.#plan.memory.arenaBytes, 'activation');
      release.push(() => allocator.free(arena));
      const results = new Map<PlacedBuffer, Storage>();
      const { placement } = this.#plan;
      const gradients = new Set(
        this.#trace.gradients.map(({ result }) => placement.results[result ?? -1]),
      );
      for (const buffer of new Set(placement.results)) {
        const category = gradients.has(buffer) ? 'gradient' : 'activation';
        const storage = Storage.allocate(this.backend, buffer.bytes, category);
        results.set(buffer, storage);
        release.push(() => storage.release());
        given.set(buffer, storage.block);
      }
      const blocks = [arena, ...this.#slots.map((buffer) => given.get(buffer) ?? arena)];
      // A run that fails half-way may have changed them as well.
      for (const { memory, changed } of this.#trace.states) if (changed) memory().version++;
      const value = execute(blocks);
      this.#writeBack(args, results);
      this.#dropGradients(args, false);
      this.#leaveGradients(args, results);
      for (const effect of this.#trace.effects) effect.apply();
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
    const tensors = inputTensors(args);
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
    const tensors = inputTensors(args);
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

  #leafOf(args: A, leaf: Tensor | number): Tensor {
    return typeof leaf === 'number' ? definite(inputTensors(args)[leaf]) : leaf;
  }

  /** Gradients that the step replaces or drops go: before the run where nothing reads them. */
  #dropGradients(args: A, early: boolean): void {
    for (const gradient of this.#trace.gradients) {
      if (gradient.early === early) this.#leafOf(args, gradient.leaf).grad = undefined;
    }
  }

  #leaveGradients(args: A, results: ReadonlyMap<PlacedBuffer, Storage>): void {
    for (const { leaf, result, aval } of this.#trace.gradients) {
      if (result === undefined || !aval) continue;
      this.#leafOf(args, leaf).grad = this.#resultTensor(results, result, aval);
    }
  }

  /** The trace took different tensors for different memory: that must hold where memory changes. */
  #refuseOverlap(tensors: readonly Tensor[]): void {
    const { states, changedArguments } = this.#trace;
    const owners = new Map<object, { readonly changed: boolean; readonly what: string }>();
    for (const { memory, changed, value } of states) {
      owners.set(memory(), { changed, what: `captured '${value.node.label}'` });
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
