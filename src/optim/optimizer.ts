/**
 * What optimizers share: parameter groups, gradients taken and cleared, state by parameter, and
 * hyperparameters that reach the kernels through small tensors. Those are written before each run of a
 * step, so a compiled step follows the learning rate and the step number without being compiled again.
 */

import { ArgumentError, ConfigError, invariant } from '../core/errors.ts';
import { type HostTensor, hostTensor } from '../core/host-tensor.ts';
import { formatShape, sameShape } from '../core/shape.ts';
import { mul } from '../ops/arithmetic.ts';
import { where } from '../ops/comparison.ts';
import { zeros } from '../ops/creation.ts';
import { copyInPlace, zeroInPlace } from '../ops/in-place.ts';
import { eagerMode } from '../tensor/backend.ts';
import { noGrad, withPhase } from '../tensor/context.ts';
import { BufferData } from '../tensor/data.ts';
import { fromHost, tensor } from '../tensor/factory.ts';
import { type HostState, noteRead, noteWrite } from '../tensor/host-state.ts';
import { onEveryRun } from '../tensor/host-work.ts';
import { currentMode, withMode } from '../tensor/mode.ts';
import { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { writeTensor } from '../tensor/write.ts';

/** Tensors, or tensors with their names (`model.namedParameters()`); unnamed ones go by label or number. */
export type ParameterList = Iterable<Tensor | readonly [string, Tensor]>;

/** Settings of one group; those left out are the optimizer's. */
export type GroupOf<H> = Partial<H> & { readonly params: ParameterList };

interface NamedTensor {
  readonly name: string;
  readonly tensor: Tensor;
}

export interface ParameterGroup<H> {
  readonly params: readonly NamedTensor[];
  /** Read before each run; may be changed between steps. */
  readonly settings: H;
}

/** State for an exact resume: tensors by `<slot>.<parameter name>`, and the rest as plain JSON. */
export interface OptimizerState {
  readonly tensors: ReadonlyMap<string, Tensor>;
  readonly steps: Readonly<Record<string, number>>;
  readonly groups: readonly Readonly<Record<string, unknown>>[];
}

/** As OptimizerState, with tensors that may have been read from a file. */
export interface LoadedOptimizerState extends Omit<OptimizerState, 'tensors'> {
  readonly tensors: ReadonlyMap<string, Tensor | HostTensor>;
}

export interface UpdateOptions {
  /**
   * float32 []: multiplies every gradient inside the update, after `gradScale` of the optimizer. When it
   * is NaN or infinite, parameters and state tensors stay as they are. Known only on the device, it may
   * depend on the gradients: see clipFactor.
   */
  readonly factor?: Tensor;
}

interface ParameterState {
  readonly slots: Map<string, Tensor>;
  /** Updates so far. */
  steps: number;
  /** Updates that the step being traced has asked for before now; each run makes them. */
  ahead: number;
}

export abstract class Optimizer<H extends { lr: number }> {
  readonly groups: readonly ParameterGroup<H>[];
  /** Multiplies every gradient inside the update: 1 / the number of accumulated batches. */
  gradScale = 1;
  readonly #states = new Map<Tensor, ParameterState>();
  /** One float32 tensor for the parameters of a group that have been updated equally often. */
  readonly #scalars: Tensor[] = [];
  /** How many of them are taken: all updates of a compiled step have their own. */
  #scalarsTaken = 0;

  constructor(params: ParameterList | readonly GroupOf<H>[], defaults: H) {
    const list = [...params];
    const groups = (isGroupList<H>(list) ? list : [{ params: list }]) as GroupOf<H>[];
    const taken = new Set<string>();
    this.groups = groups.map((group) => {
      const { params: members, ...settings } = group;
      return { params: nameAll(members, taken), settings: { ...defaults, ...settings } as H };
    });
    if (taken.size === 0) {
      throw new ArgumentError(
        'Optimizer: the list of parameters is empty (got 0). Pass model.parameters() or namedParameters().',
      );
    }
    for (const { settings } of this.groups) this.check(settings);
  }

  /** Learning rate of the first group. */
  get lr(): number {
    return this.groups[0]?.settings.lr ?? 0;
  }

  /** Sets the learning rate of every group. */
  set lr(value: number) {
    onEveryRun(this, Optimizer.ratesState, () => {
      for (const { settings } of this.groups) settings.lr = value;
    });
  }

  /** Updates every parameter that has a gradient (torch.optim.Optimizer.step). */
  step(options: UpdateOptions = {}): void {
    withPhase('optimizer', () => noGrad(() => scope(() => this.#stepAll(options.factor))));
  }

  /** Removes the gradients; with setToNone: false fills them with zeros. */
  zeroGrad(options: { readonly setToNone?: boolean } = {}): void {
    const drop = options.setToNone ?? true;
    for (const { tensor } of this.#all()) {
      if (drop) {
        tensor.grad = undefined;
        continue;
      }
      const { grad } = tensor;
      if (grad) noGrad(() => scope(() => zeroInPlace(grad)));
    }
  }

  /** State for an exact resume. The tensors are the optimizer's own, not copies. */
  stateDict(): OptimizerState {
    const tensors = new Map<string, Tensor>();
    const steps: Record<string, number> = {};
    for (const { name, tensor } of this.#all()) {
      const state = this.#states.get(tensor);
      if (!state) continue;
      steps[name] = state.steps;
      for (const [slot, value] of state.slots) tensors.set(`${slot}.${name}`, value);
    }
    const groups = this.groups.map(({ params, settings }) => ({
      ...settings,
      params: params.map(({ name }) => name),
    }));
    return { tensors, steps, groups };
  }

  /**
   * Brings back a state of an optimizer over parameters of the same names. Throws ConfigError for other
   * groups, names or shapes; nothing is changed then.
   */
  loadStateDict(state: LoadedOptimizerState): void {
    const byName = new Map(this.#all().map(({ name, tensor }) => [name, tensor]));
    this.#checkGroups(state);
    const places = [...state.tensors].map(([key, value]) => {
      const dot = key.indexOf('.');
      const name = key.slice(dot + 1);
      const parameter = byName.get(name);
      if (!parameter || !sameShape(parameter.shape, value.shape)) {
        throw new ConfigError(
          `Optimizer.loadStateDict: '${key}' does not fit the optimizer's parameters ` +
            `(expected ${parameter ? formatShape(parameter.shape) : 'no such name'}, got ${formatShape(value.shape)}). ` +
            'Load the state that belongs to this model.',
          { key },
        );
      }
      return { parameter, slot: key.slice(0, dot), name, value };
    });
    for (const { tensor, name } of this.#all())
      this.#stateOf(tensor).steps = state.steps[name] ?? 0;
    for (const { parameter, slot, name, value } of places) {
      overwrite(this.slot(parameter, name, slot, value.dtype), value);
    }
    this.groups.forEach((group, i) => {
      const { params: _, ...settings } = state.groups[i] ?? {};
      Object.assign(group.settings, settings);
    });
  }

  /** Frees all state. */
  dispose(): void {
    for (const { slots } of this.#states.values())
      for (const slot of slots.values()) slot.dispose();
    this.#states.clear();
    for (const tensor of this.#scalars) tensor.dispose();
    this.#scalars.length = 0;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Throws ConfigError for settings out of range. */
  protected abstract check(settings: H): void;

  /** Names the choice of kernels that `settings` make: a compiled step is traced again when it changes. */
  protected abstract variant(settings: H): string;

  /** What the kernels of one update read, for parameters at their `step`-th update (from 1). */
  protected abstract scalarsOf(settings: H, step: number): readonly number[];

  /** Applies one update in place. `first`: the parameter was never updated before. */
  protected abstract update(
    parameter: Tensor,
    gradient: Tensor,
    scalars: Tensor,
    settings: H,
    state: (slot: string) => Tensor,
  ): void;

  /** A state tensor of `parameter`, zero when it is made. Lives in memory, also when a step is being traced. */
  protected slot(parameter: Tensor, name: string, slot: string, dtype = parameter.dtype): Tensor {
    const { slots } = this.#stateOf(parameter);
    let tensor = slots.get(slot);
    if (!tensor) {
      tensor = inMemory(() => zeros(parameter.shape, { dtype }));
      tensor.label = `${slot}.${name}`;
      slots.set(slot, tensor);
    }
    return tensor;
  }

  #stepAll(factor: Tensor | undefined): void {
    if (currentMode().tracing) noteWrite(this, Optimizer.scalarsTakenState);
    else this.#scalarsTaken = 0;
    for (const { params, settings } of this.groups) {
      const ready = params.filter(({ tensor }) => tensor.grad && tensor.requiresGrad);
      const states = ready.map(({ tensor }) => this.#stateOf(tensor));
      const ahead = states.map((state) => state.ahead);
      const counts = (): number[] => states.map(({ steps }, i) => steps + (ahead[i] ?? 0));
      noteRead({ variant: () => this.variant(settings), counts }, updateShape);
      const bySteps = Map.groupBy(ready, ({ tensor }) => {
        const state = this.#stateOf(tensor);
        return state.steps + state.ahead;
      });
      for (const members of bySteps.values()) this.#updateAlike(members, settings, factor);
    }
  }

  /** One update of parameters that have been updated equally often. */
  #updateAlike(members: readonly NamedTensor[], settings: H, factor: Tensor | undefined): void {
    const scalars = this.#scalarsTensor(this.#scalarsTaken++, settings);
    const states = members.map(({ tensor }) => this.#stateOf(tensor));
    if (currentMode().tracing) {
      for (const state of states) {
        noteWrite(state, aheadState);
        state.ahead++;
      }
    }
    currentMode().onEachRun(() => {
      for (const state of states) state.steps++;
      const values = this.scalarsOf(settings, states[0]?.steps ?? 1);
      writeTensor(scalars, hostTensor(values, scalars.shape, 'float32'));
    });
    const scaled = factor ? withFactor(scalars, factor) : scalars;
    for (const { name, tensor } of members) {
      const { grad } = tensor;
      invariant(grad, () => `${name} lost its gradient during the step`);
      scope(() =>
        this.update(tensor, grad, scaled, settings, (slot) => this.slot(tensor, name, slot)),
      );
    }
  }

  #scalarsTensor(index: number, settings: H): Tensor {
    let tensor = this.#scalars[index];
    if (!tensor) {
      const count = this.scalarsOf(settings, 1).length;
      tensor = inMemory(() =>
        fromHost(hostTensor(new Float32Array(count), [count], 'float32'), 'optimizer'),
      );
      tensor.label = `optimizer.scalars.${index}`;
      this.#scalars[index] = tensor;
    }
    return tensor;
  }

  #stateOf(tensor: Tensor): ParameterState {
    let state = this.#states.get(tensor);
    if (!state) {
      state = { slots: new Map(), steps: 0, ahead: 0 };
      this.#states.set(tensor, state);
    }
    return state;
  }

  #all(): NamedTensor[] {
    return this.groups.flatMap(({ params }) => params);
  }

  static readonly ratesState: HostState<
    { readonly groups: readonly { readonly settings: { lr: number } }[] },
    readonly number[]
  > = {
    describe: () => 'the learning rates',
    get: ({ groups }) => groups.map(({ settings }) => settings.lr),
    set: ({ groups }, rates) => {
      groups.forEach(({ settings }, i) => {
        settings.lr = rates[i] ?? settings.lr;
      });
    },
    endsWithStep: true,
  };

  // biome-ignore lint/suspicious/noExplicitAny: a static member does not know the settings.
  static readonly scalarsTakenState: HostState<Optimizer<any>, number> = {
    describe: () => 'the tensors that hold settings',
    get: (optimizer) => optimizer.#scalarsTaken,
    set: (optimizer, taken) => {
      optimizer.#scalarsTaken = taken;
    },
    endsWithStep: true,
  };

  #checkGroups(state: LoadedOptimizerState): void {
    const own = this.groups.map(({ params }) => params.map(({ name }) => name).join());
    const found = state.groups.map(({ params }) => String(params));
    if (own.length === found.length && own.every((names, i) => names === found[i])) return;
    throw new ConfigError(
      `Optimizer.loadStateDict: the state has other parameter groups (expected ${own.length}, got ${found.length}, or other names). ` +
        'Make the optimizer with the groups it was saved with.',
      { key: 'groups', expected: own, found },
    );
  }
}

/**
 * What a trace of an update depends on: the kernels, and which parameters have been updated equally often
 * and so share their scalars.
 */
const updateShape: HostState<
  { readonly variant: () => string; readonly counts: () => readonly number[] },
  string
> = {
  describe: () => 'what the optimizer does',
  get: ({ variant, counts }) => {
    const steps = counts();
    const distinct = [...new Set(steps)];
    return `${variant()} ${distinct.length < 2 ? 0 : steps.map((count) => distinct.indexOf(count))}`;
  },
};

const aheadState: HostState<ParameterState, number> = {
  describe: () => 'the updates of a parameter in this step',
  get: ({ ahead }) => ahead,
  set: (state, ahead) => {
    state.ahead = ahead;
  },
  endsWithStep: true,
};

/** `scalars` with its last entry, the factor for gradients, multiplied by `factor`. */
function withFactor(scalars: Tensor, factor: Tensor): Tensor {
  const count = scalars.size;
  const last = Array.from({ length: count }, (_, i) => i === count - 1);
  return mul(scalars, where(tensor(last, { dtype: 'bool' }), factor, 1));
}

function isGroupList<H>(list: readonly unknown[]): list is readonly GroupOf<H>[] {
  const [first] = list;
  return typeof first === 'object' && first !== null && 'params' in first;
}

function nameAll(members: ParameterList, taken: Set<string>): NamedTensor[] {
  return [...members].map((member) => {
    const [given, tensor] = member instanceof Tensor ? [member.label, member] : member;
    const name = given ?? String(taken.size);
    if (taken.has(name)) {
      throw new ArgumentError(
        `Optimizer: a parameter is listed twice, or two have one name (got '${name}'). List each once, under its own name.`,
        { name },
      );
    }
    taken.add(name);
    return { name, tensor };
  });
}

/** Makes a tensor that outlives scopes and traces, counted as optimizer memory. */
function inMemory(make: () => Tensor): Tensor {
  const tensor = withMode(
    () => eagerMode(),
    () => make().keep(),
  );
  if (tensor.data instanceof BufferData) tensor.data.storage.setCategory('optimizer');
  return tensor;
}

function overwrite(target: Tensor, source: Tensor | HostTensor): void {
  noGrad(() =>
    scope(() => {
      copyInPlace(target, source instanceof Tensor ? source : fromHost(source, 'temporary'));
    }),
  );
}
