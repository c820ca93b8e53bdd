/**
 * Tracing: runs a step once with values of a graph in place of memory. Tensors that exist outside the
 * step (parameters, optimizer state) are captured as state; arguments become inputs; nothing is computed.
 */

import { callerLine } from '../checkpoint/op-log.ts';
import { CompileError, invariant, definite } from '../core/errors.ts';
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
} from '../tensor/context.ts';
import { BufferData, type TensorData } from '../tensor/data.ts';
import type { Generator } from '../tensor/generator.ts';
import { type Mode, withMode } from '../tensor/mode.ts';
import type { Storage } from '../tensor/storage.ts';
import { forEachTensor, mapTensors } from '../tensor/structure.ts';
import { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
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
  readonly storage: Storage;
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
}

/**
 * Traces `step(...args)`. Distinct tensors in `args` become inputs in the order of distinctTensors.
 * Gradients that the step leaves in `.grad` of captured leaves and that did not exist before it are
 * dropped. Throws CompileError for what cannot be traced, and whatever the step throws.
 */
export function trace<A extends readonly unknown[], R>(step: (...args: A) => R, args: A): Trace<R> {
  const mode = new TraceMode();
  const tensors = distinctTensors(args);
  const argumentValues = tensors.map((tensor, i) => mode.builder.input(`arg${i}`, tensor.aval));
  const argumentData = argumentValues.map((value) => mode.wrap(value));
  const body = (): { standIns: Map<Tensor, Tensor>; values: Value[]; result: R } => {
    const inputs = new Map<Tensor, Tensor>();
    tensors.forEach((tensor, i) => {
      const input = new Tensor(definite(argumentData[i]), tensor.shape, tensor.dtype);
      input.requiresGrad = tensor.requiresGrad;
      inputs.set(tensor, input);
    });
    try {
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
      return { standIns, values, result };
    } finally {
      mode.dropGradients();
    }
  };
  const { standIns, values, result } = withMode(
    () => mode,
    () => scope(body),
  );
  const changedArguments = argumentValues.flatMap((value, i) =>
    argumentData[i]?.value === value ? [] : [i],
  );
  const lastValues = changedArguments.map((i) => definite(argumentData[i]).value);
  return {
    graph: mode.builder.build([...values, ...lastValues], mode.updates()),
    result,
    resultTensors: [...standIns.values()],
    argumentValues,
    changedArguments,
    states: mode.states,
    generators: mode.generators,
    beforeRun: mode.beforeRun,
  };
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
  readonly value: Value;
  current: Value;
}

export class TraceMode implements Mode {
  readonly tracing = true;
  readonly builder = new GraphBuilder();
  readonly beforeRun: (() => void)[] = [];
  readonly #states = new Map<Storage, StateEntry>();
  readonly #generators = new Map<Generator, GeneratorInput>();
  readonly #leaves = new Set<Tensor>();

  get states(): CapturedState[] {
    return [...this.#states.values()].map(({ storage, value, current }) => ({
      storage,
      value,
      changed: current !== value,
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
    let input = this.#generators.get(generator);
    if (!input) {
      const label = `generator${this.#generators.size}`;
      const value = this.builder.input(label, { shape: [4], dtype: 'uint32' });
      input = { generator, value, draws: 0 };
      this.#generators.set(generator, input);
    }
    const state = new Tensor(this.wrap(input.value), [4], 'uint32');
    return { state, draw: input.draws++ };
  }

  /** The graph value that a tensor stands for at this moment. */
  valueOf(tensor: Tensor): Value {
    const { data } = tensor;
    if (data instanceof TracedData) return data.value;
    invariant(data instanceof BufferData, () => 'unknown kind of tensor data');
    if (tensor.isLeaf && tensor.requiresGrad) this.#leaves.add(tensor);
    return this.#capture(tensor, data).current;
  }

  /** Gradients made in the trace hold no memory after it: they must not stay on the parameters. */
  dropGradients(): void {
    for (const leaf of this.#leaves) {
      if (!leaf.disposed && leaf.grad?.data instanceof TracedData) leaf.grad = undefined;
    }
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
    const entry: StateEntry = { storage: data.storage, value, current: value };
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
    };
  }
}
