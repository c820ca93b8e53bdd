/**
 * Tracing: runs a step once with values of a graph in place of memory. Tensors that exist outside the
 * step (parameters, optimizer state) are captured as state; arguments become inputs; nothing is computed.
 */

import { callerLine } from '../checkpoint/op-log.ts';
import { CompileError, definite, invariant } from '../core/errors.ts';
import type { HostTensor } from '../core/host-tensor.ts';
import { isContiguous } from '../core/shape.ts';
import type { Aval } from '../ir/aval.ts';
import { type Graph, GraphBuilder, type NodeMeta, type Value } from '../ir/graph.ts';
import type { AnyOp, Params } from '../ir/op.ts';
import {
  currentModule,
  currentName,
  currentPhase,
  currentPolicy,
  currentRegions,
  discardsOutput,
  isGradEnabled,
} from '../tensor/context.ts';
import { BufferData, type TensorData } from '../tensor/data.ts';
import { Generator } from '../tensor/generator.ts';
import { type HostState, withStateListener } from '../tensor/host-state.ts';
import { type Mode, withMode } from '../tensor/mode.ts';
import { currentHooks } from '../tensor/saved-tensor.ts';
import type { Storage } from '../tensor/storage.ts';
import { forEachTensor, mapTensors } from '../tensor/structure.ts';
import { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { type Effect, type Guard, Journal } from './journal.ts';
import { TracedData, type Viewed } from './traced-data.ts';
import { changeViews, changesView } from './traced-views.ts';

/** What the host must supply before a run, beside the arguments. */
export interface GeneratorInput {
  readonly generator: Generator;
  readonly value: Value;
  /** Draws made in one run. */
  draws: number;
}

/** Memory outside the step that it reads or updates. */
export interface CapturedState {
  /** Where it lies now: a gradient is looked up in its leaf, anything else stays where it was. */
  readonly memory: () => Storage;
  readonly value: Value;
  /** Whether the step changes it. */
  readonly changed: boolean;
}

export interface Trace<R> {
  readonly graph: Graph;
  /** The step's return value with stand-ins for its tensors; they own no memory. */
  readonly result: R;
  /** The distinct stand-ins: the first of `graph.results`. */
  readonly resultTensors: readonly Tensor[];
  /** One for each distinct tensor of the arguments. */
  readonly argumentValues: readonly Value[];
  /** Arguments that the step changes in place; their last values end `graph.results`. */
  readonly changedArguments: readonly number[];
  readonly states: readonly CapturedState[];
  readonly generators: readonly GeneratorInput[];
  readonly beforeRun: readonly (() => void)[];
  /** What must hold for this trace to be good for another call with such arguments. */
  readonly guards: readonly Guard[];
  /** State of the host, other than gradients, that the step changes. */
  readonly effects: readonly Effect[];
  /** Leaves whose `.grad` is another tensor after the step, or none. */
  readonly gradients: readonly LeftGradient[];
}

/** A gradient that a step makes or drops. */
export interface LeftGradient {
  /** A captured leaf, or the position of one among the tensors of the arguments. */
  readonly leaf: Tensor | number;
  /** Position of the new gradient in `graph.results`; undefined when the step drops it. */
  readonly result: number | undefined;
  readonly aval: Aval | undefined;
  /** The old gradient may go before the run: nothing reads it. */
  readonly early: boolean;
}

/**
 * Traces `step(...args)`. The tensors that `inputTensors` finds become inputs. What the step does to
 * state of the host (gradients of leaves, flags of modules) is noted and put back: a run does it. Throws
 * CompileError for what cannot be traced, and whatever the step throws.
 */
export function trace<A extends readonly unknown[], R>(step: (...args: A) => R, args: A): Trace<R> {
  const journal = new Journal();
  journal.onRead(surroundings, gradMode);
  journal.onRead(surroundings, savedHooks);
  const mode = new TraceMode(journal);
  const tensors = inputTensors(args);
  const argumentValues = tensors.map((tensor, i) => mode.builder.input(`arg${i}`, tensor.aval));
  const argumentData = argumentValues.map((value) => mode.wrap(value));
  const body = (): Traced<R> => {
    const inputs = withStateListener(undefined, () => standInsFor(tensors, argumentData));
    const before = tensors.map((tensor) => inputs.get(tensor)?.grad);
    const returned = step(...(mapTensors(args, (tensor) => definite(inputs.get(tensor))) as A));
    refusePromise(returned);
    const standIns = new Map<Tensor, Tensor>();
    const values: Value[] = [];
    for (const tensor of distinctTensors(returned)) {
      const value = mode.valueOf(tensor);
      values.push(value);
      standIns.set(tensor, new Tensor(mode.wrap(value), tensor.shape, tensor.dtype, false));
    }
    const result = mapTensors(returned, (tensor) => definite(standIns.get(tensor)));
    const effects = journal.effects();
    const left: { leaf: Tensor | number; gradient: Tensor | undefined; early: boolean }[] = [];
    for (const { gradient, early } of effects) {
      if (gradient) left.push({ leaf: gradient.leaf, gradient: gradient.value, early });
    }
    tensors.forEach((tensor, i) => {
      const gradient = inputs.get(tensor)?.grad;
      if (gradient !== before[i]) left.push({ leaf: i, gradient, early: false });
    });
    const made = left.map(({ gradient }) => gradient && mode.valueOf(gradient));
    return { standIns, values, result, left, made, effects };
  };
  let traced: Traced<R>;
  try {
    traced = withStateListener(journal, () =>
      withMode(
        () => mode,
        () => scope(body),
      ),
    );
  } finally {
    journal.restore();
  }
  const changedArguments = argumentValues.flatMap((value, i) =>
    argumentData[i]?.value === value ? [] : [i],
  );
  const results = [
    ...traced.values,
    ...changedArguments.map((i) => definite(argumentData[i]).value),
  ];
  const gradients = traced.left.map(({ leaf, early }, i): LeftGradient => {
    const value = traced.made[i];
    const result = value ? results.push(value) - 1 : undefined;
    return { leaf, early, result, aval: value?.aval };
  });
  return {
    graph: mode.builder.build(results, mode.updates()),
    result: traced.result,
    resultTensors: [...traced.standIns.values()],
    argumentValues,
    changedArguments,
    states: mode.states,
    generators: mode.generators,
    beforeRun: mode.beforeRun,
    guards: [...journal.guards(), ...mode.memoryGuards()],
    effects: traced.effects.filter(({ gradient }) => !gradient),
    gradients,
  };
}

interface Traced<R> {
  readonly standIns: Map<Tensor, Tensor>;
  readonly values: Value[];
  readonly result: R;
  readonly left: readonly {
    readonly leaf: Tensor | number;
    readonly gradient: Tensor | undefined;
    readonly early: boolean;
  }[];
  /** The values of the gradients in `left`. */
  readonly made: readonly (Value | undefined)[];
  readonly effects: readonly Effect[];
}

const surroundings = {};

const gradMode: HostState<object, boolean> = {
  describe: () => 'gradient mode',
  get: () => isGradEnabled(),
  show: (image) => (image ? 'on' : 'off'),
};

const savedHooks: HostState<object, unknown> = {
  describe: () => 'the saved-tensor hooks around the call',
  get: () => currentHooks(),
  show: (image) => (image === undefined ? 'absent' : 'others'),
};

/**
 * What a step gets from its arguments: every distinct tensor in order of first appearance, then the
 * gradients of those that have one.
 */
export function inputTensors(args: readonly unknown[]): Tensor[] {
  const tensors = distinctTensors(args);
  return [...new Set([...tensors, ...tensors.flatMap((tensor) => tensor.grad ?? [])])];
}

function standInsFor(
  tensors: readonly Tensor[],
  data: readonly TracedData[],
): ReadonlyMap<Tensor, Tensor> {
  const inputs = new Map<Tensor, Tensor>();
  tensors.forEach((tensor, i) => {
    const input = new Tensor(definite(data[i]), tensor.shape, tensor.dtype);
    input.requiresGrad = tensor.requiresGrad;
    input.leafHooks = tensor.leafHooks;
    inputs.set(tensor, input);
  });
  for (const [tensor, input] of inputs) {
    const gradient = tensor.grad && inputs.get(tensor.grad);
    if (gradient) input.grad = gradient.detach();
  }
  return inputs;
}

/** Every tensor inside arrays and plain objects once, in order of first appearance. */
export function distinctTensors(structure: unknown): Tensor[] {
  const found = new Set<Tensor>();
  forEachTensor(structure, (tensor) => found.add(tensor));
  return [...found];
}

function refusePromise(returned: unknown): void {
  if (!(returned instanceof Promise)) return;
  // What it rejects with is a consequence of being traced; the error below is the one to show.
  returned.catch(() => {});
  throw new CompileError(
    'compile: the step is asynchronous (got a promise from it). Make the step a plain function.',
  );
}

interface StateEntry {
  readonly storage: Storage;
  /** Set when the memory is the gradient of this leaf, which may lie elsewhere in the next run. */
  readonly leaf: Tensor | undefined;
  readonly value: Value;
  current: Value;
}

export class TraceMode implements Mode {
  readonly tracing = true;
  readonly builder = new GraphBuilder();
  readonly beforeRun: (() => void)[] = [];
  readonly #states = new Map<Storage, StateEntry>();
  readonly #generators = new Map<Generator, GeneratorInput>();
  readonly #journal: Journal;

  constructor(journal: Journal) {
    this.#journal = journal;
  }

  get states(): CapturedState[] {
    return [...this.#states.values()].map(({ storage, leaf, value, current }) => ({
      memory: leaf ? () => gradientMemory(leaf) ?? storage : () => storage,
      value,
      changed: current !== value,
    }));
  }

  /** That captured memory is still there, and gradients lie so that a run can use them. */
  memoryGuards(): Guard[] {
    return [...this.#states.values()].map(({ storage, leaf, value }) => ({
      holds: leaf ? () => gradientMemory(leaf) !== undefined : () => storage.owners > 0,
      explain: () => `the memory of captured '${value.node.label}' was replaced`,
      forever: leaf === undefined,
    }));
  }

  get generators(): GeneratorInput[] {
    return [...this.#generators.values()];
  }

  updates(): Graph['updates'] {
    return [...this.#states.values()]
      .filter((state) => state.current !== state.value)
      .map((state) => ({ state: state.value, value: state.current }));
  }

  wrap(value: Value): TracedData {
    return new TracedData({ value, version: 0 });
  }

  run(
    op: AnyOp,
    inputs: readonly Tensor[],
    params: Params,
    outputs: readonly Aval[],
  ): readonly TensorData[] {
    if (changesView(op, inputs)) return changeViews(op, inputs, params, outputs, this);
    const values = inputs.map((input) => this.valueOf(input));
    const results = this.builder.apply(op, values, params, outputs, this.#meta());
    return results.map((value, index) => {
      const updated = op.traits.updates?.find((pair) => pair.out === index);
      if (updated) return this.#update(definite(inputs[updated.input]), value);
      if (op.lower.kind === 'view') return this.#view(op, definite(inputs[0]), params, value);
      return this.wrap(value);
    });
  }

  fromHost(tensor: HostTensor): TensorData {
    return this.wrap(this.builder.constant(tensor));
  }

  toHost(tensor: Tensor): never {
    const line = callerLine();
    throw new CompileError(
      `compile: a value was read on the host inside a compiled step (got ${tensor.describe()}${line === '' ? '' : `, at ${line}`}). ` +
        'Return the tensor from the step and read it afterwards, or compute with where() instead of branching.',
      { line },
    );
  }

  toHostAsync(tensor: Tensor): never {
    return this.toHost(tensor);
  }

  onEachRun(work: () => void): void {
    this.beforeRun.push(work);
  }

  drawState(generator: Generator): { readonly state: Tensor; readonly draw: number } {
    // A step that puts a generator somewhere, or makes it, draws the same in each run.
    if (this.#journal.wrote(generator, Generator.position)) {
      const host = generator.stateTensor(generator.advance());
      return { state: new Tensor(this.fromHost(host), host.shape, host.dtype), draw: 0 };
    }
    let input = this.#generators.get(generator);
    if (!input) {
      const label = `generator${this.#generators.size}`;
      const value = this.builder.input(label, { shape: [4], dtype: 'uint32' });
      input = { generator, value, draws: 0 };
      this.#generators.set(generator, input);
    }
    const state = new Tensor(this.wrap(input.value), [4], 'uint32');
    input.draws++;
    return { state, draw: generator.foresee() };
  }

  /** The graph value that a tensor stands for at this moment. */
  valueOf(tensor: Tensor): Value {
    const { data } = tensor;
    if (data instanceof TracedData) return data.value;
    invariant(data instanceof BufferData, () => 'unknown kind of tensor data');
    const ownHistory = this.#journal.knows(tensor, Tensor.placeState);
    if (tensor.node && !ownHistory && isGradEnabled()) {
      throw new CompileError(
        `compile: the step uses a tensor that was computed outside it with gradients (got ${tensor.describe()}, from ${tensor.node.name}). ` +
          'Compute it inside the step, or use its detach().',
      );
    }
    return this.#capture(tensor, data).current;
  }

  #capture(tensor: Tensor, data: BufferData): StateEntry {
    const known = this.#states.get(data.storage);
    const { offset, strides } = data.layout;
    if (offset !== 0 || !isContiguous(tensor.shape, strides)) {
      throw new CompileError(
        `compile: the step uses a view of a tensor made outside it (got ${tensor.describe()}). ` +
          'Make the view inside the step, or pass a contiguous copy.',
      );
    }
    if (known) {
      invariant(
        known.value.aval.dtype === tensor.dtype,
        () => `${tensor.describe()} shares memory with a state of another dtype`,
      );
      if (known.value.aval.shape.join() === tensor.shape.join()) return known;
      throw new CompileError(
        `compile: the step uses one piece of memory under two shapes (got ${tensor.describe()} and [${known.value.aval.shape.join(', ')}]). ` +
          'Make the reshaped view inside the step.',
      );
    }
    const label = tensor.label ?? `state${this.#states.size}`;
    const value = this.builder.input(label, tensor.aval, 'state');
    const leaf = this.#journal.leafOfGradient(data.storage);
    const entry: StateEntry = { storage: data.storage, leaf, value, current: value };
    this.#states.set(data.storage, entry);
    return entry;
  }

  #update(target: Tensor, value: Value): TensorData {
    const { data } = target;
    if (data instanceof TracedData) {
      data.assign(value);
      return data;
    }
    invariant(data instanceof BufferData, () => 'unknown kind of tensor data');
    this.#capture(target, data).current = value;
    return data.retain();
  }

  #view(op: AnyOp, input: Tensor, params: Params, made: Value): TensorData {
    const meta = this.#meta();
    const rebuild = (base: Value): Value =>
      definite(this.builder.apply(op, [base], params, [made.aval], meta)[0]);
    const base = this.#viewed(input);
    const step = { op, params, input: input.aval, output: made.aval, module: meta.module };
    const view = { base, baseData: input.data, step, rebuild, seen: base.version };
    return new TracedData({ value: made, version: 0 }, view);
  }

  /** What a view of `tensor` looks into, as it changes during the trace. */
  #viewed(tensor: Tensor): Viewed {
    const { data } = tensor;
    if (data instanceof TracedData) return data;
    invariant(data instanceof BufferData, () => 'unknown kind of tensor data');
    const entry = this.#capture(tensor, data);
    return {
      get version() {
        return entry.storage.version;
      },
      get value() {
        return entry.current;
      },
    };
  }

  #meta(): NodeMeta {
    const name = currentName();
    const policy = currentPolicy();
    return {
      phase: currentPhase(),
      module: currentModule(),
      regions: [...currentRegions()],
      ...(name !== undefined && { name }),
      ...(policy !== undefined && { policy }),
      ...(discardsOutput() && { discarded: true }),
    };
  }
}

/** Memory of a leaf's gradient; undefined where there is none, or one that is not whole and dense. */
function gradientMemory(leaf: Tensor): Storage | undefined {
  const gradient = leaf.grad;
  if (!gradient || gradient.disposed) return undefined;
  const { data, shape } = gradient;
  if (!(data instanceof BufferData)) return undefined;
  const { offset, strides } = data.layout;
  return offset === 0 && isContiguous(shape, strides) ? data.storage : undefined;
}
