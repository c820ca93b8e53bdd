/**
 * The base of everything with weights (torch.nn.Module). Children, parameters and buffers are found
 * among the fields: a Module is a child, a tensor made with parameter() or buffer() belongs to the
 * module. A name is the dotted path of fields in snake case, which is what PyTorch and Hugging Face use:
 * `model.layers.0.selfAttn.qProj.weight` is `model.layers.0.self_attn.q_proj.weight`.
 *
 * `call` runs `forward` under the module's path and inside a scope of its own: what forward made and did
 * not return is released. Checkpointing wraps calls, never modules, so names do not depend on it.
 */

import { type CallWrapper, wrapperImage } from '../checkpoint/wrapping.ts';
import type { DType } from '../core/dtype.ts';
import { isFloat } from '../core/dtype.ts';
import { ArgumentError } from '../core/errors.ts';
import type { HostTensor } from '../core/host-tensor.ts';
import { cast } from '../ops/broadcast.ts';
import { currentModule, noGrad, withModule } from '../tensor/context.ts';
import { type HostState, noteRead, noteWrite } from '../tensor/host-state.ts';
import { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { buffer, parameter, roleOf } from './parameter.ts';
import { type LoadReport, loadEntries } from './state-dict.ts';

/** A module whose arguments and result do not matter to the caller. */
export type AnyModule = Module<never, unknown>;

/** The outermost module being called: names are relative to it. */
let root: AnyModule | undefined;

export abstract class Module<A extends readonly unknown[], R> {
  #training = true;
  #callWrapper: CallWrapper | undefined;
  #path: string | undefined;
  readonly #forward = (...args: A): R => this.forward(...args);

  /** What the module computes. Call the module through `call`, not this. */
  abstract forward(...args: A): R;

  /** Runs the module. Tensors in the result (in arrays and plain objects too) outlive the call. */
  call(...args: A): R {
    const path = this.#path ?? this.#locate();
    const outer = root;
    const wrapper = this.callWrapper;
    root ??= this;
    try {
      return withModule(path, () =>
        scope(() => (wrapper ? wrapper(this.#forward, args) : this.forward(...args))),
      );
    } finally {
      root = outer;
    }
  }

  /** Whether dropout and the like are active; set with train() and eval(). */
  get training(): boolean {
    noteRead(this, Module.trainingState);
    return this.#training;
  }

  set training(value: boolean) {
    noteWrite(this, Module.trainingState);
    this.#training = value;
  }

  /** Set by checkpointing: how a call runs `forward`. */
  get callWrapper(): CallWrapper | undefined {
    noteRead(this, Module.callWrapperState);
    return this.#callWrapper;
  }

  set callWrapper(value: CallWrapper | undefined) {
    noteWrite(this, Module.callWrapperState);
    this.#callWrapper = value;
  }

  /** Dotted path from the root whose names were last assigned; undefined before that. */
  get path(): string | undefined {
    return this.#path;
  }

  /** Gives this module as root, and all below it, their paths, and each parameter its name as label. */
  assignPaths(): this {
    for (const [path, module] of this.namedModules()) {
      module.#path = path;
      for (const [name, tensor] of module.ownTensors()) tensor.label = join(path, name);
    }
    return this;
  }

  /** Direct children with the names they have in paths. */
  *children(): Generator<[string, AnyModule]> {
    for (const [field, value] of Object.entries(this)) {
      if (value instanceof Module) yield [pathSegment(field), value];
    }
  }

  /** Parameters and buffers of this module itself. */
  *ownTensors(): Generator<[string, Tensor]> {
    for (const [field, value] of Object.entries(this)) {
      if (value instanceof Tensor && roleOf(value)) yield [pathSegment(field), value];
    }
  }

  /** This module ('') and everything below it, parents first; a shared module once. */
  *namedModules(prefix = '', seen: Set<AnyModule> = new Set()): Generator<[string, AnyModule]> {
    if (seen.has(this)) return;
    seen.add(this);
    yield [prefix, this];
    for (const [name, child] of this.children())
      yield* child.namedModules(join(prefix, name), seen);
  }

  /** Parameters with their names, a shared (tied) one once, under its first name. */
  *namedParameters(): Generator<[string, Tensor]> {
    for (const { name, tensor, alias } of this.namedTensors()) {
      if (roleOf(tensor) === 'parameter' && alias === undefined) yield [name, tensor];
    }
  }

  *parameters(): Generator<Tensor> {
    for (const [, tensor] of this.namedParameters()) yield tensor;
  }

  *namedBuffers(): Generator<[string, Tensor]> {
    for (const { name, tensor, alias } of this.namedTensors()) {
      if (roleOf(tensor) !== 'parameter' && alias === undefined) yield [name, tensor];
    }
  }

  /** Every parameter and buffer; `alias` is the first name of a tensor that was already listed. */
  *namedTensors(): Generator<NamedTensor> {
    const first = new Map<Tensor, string>();
    for (const [path, module] of this.namedModules()) {
      for (const [own, tensor] of module.ownTensors()) {
        const name = join(path, own);
        yield { name, tensor, alias: first.get(tensor) };
        if (!first.has(tensor)) first.set(tensor, name);
      }
    }
  }

  /** Parameters and persistent buffers by name (torch.nn.Module.state_dict), a tied one once. */
  stateDict(): Map<string, Tensor> {
    const entries = new Map<string, Tensor>();
    for (const { name, tensor, alias } of this.namedTensors()) {
      if (alias === undefined && roleOf(tensor) !== 'table') entries.set(name, tensor);
    }
    return entries;
  }

  /**
   * Overwrites parameters and buffers with `entries`, converted to their dtypes
   * (torch.nn.Module.load_state_dict). With `strict` (default) throws ConfigError when a name is missing
   * or not expected; throws ShapeError for another shape. Nothing is written when it throws.
   */
  loadStateDict(
    entries: Iterable<readonly [string, Tensor | HostTensor]>,
    options: { readonly strict?: boolean } = {},
  ): LoadReport {
    return loadEntries(this.namedTensors(), entries, options.strict ?? true);
  }

  /** Switches dropout and the like on in all modules below (torch.nn.Module.train). */
  train(mode = true): this {
    for (const [, module] of this.namedModules()) module.training = mode;
    return this;
  }

  eval(): this {
    return this.train(false);
  }

  /** Freezes or unfreezes all parameters (torch.nn.Module.requires_grad_). */
  requiresGrad_(value = true): this {
    for (const tensor of this.parameters()) {
      if (isFloat(tensor.dtype)) tensor.requiresGrad = value;
    }
    return this;
  }

  /**
   * Converts all float parameters and buffers to `dtype`. The old tensors are disposed, so make
   * optimizers afterwards.
   */
  to(dtype: DType): this {
    const converted = new Map<Tensor, Tensor>();
    for (const [, module] of this.namedModules()) {
      for (const [field, value] of Object.entries(module)) {
        if (!(value instanceof Tensor) || !roleOf(value)) continue;
        if (!isFloat(value.dtype) || value.dtype === dtype) continue;
        const twin = converted.get(value) ?? convert(value, dtype);
        converted.set(value, twin);
        Reflect.set(module, field, twin);
      }
    }
    for (const old of converted.keys()) old.dispose();
    return this;
  }

  /** Removes all gradients. */
  zeroGrad(): void {
    for (const tensor of this.parameters()) tensor.grad = undefined;
  }

  /** Frees parameters, buffers and what the modules below keep otherwise. */
  dispose(): void {
    for (const [, module] of this.namedModules()) {
      for (const [, tensor] of module.ownTensors()) tensor.dispose();
      module.onDispose();
    }
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Frees what the module keeps besides parameters and buffers. */
  protected onDispose(): void {}

  static readonly trainingState: HostState<AnyModule, boolean> = {
    describe: (module) => `training of ${module.describe()}`,
    get: (module) => module.#training,
    set: (module, value) => {
      module.#training = value;
    },
  };

  static readonly callWrapperState: HostState<AnyModule, CallWrapper | undefined> = {
    describe: (module) => `call wrapper of ${module.describe()}`,
    get: (module) => module.#callWrapper,
    set: (module, value) => {
      module.#callWrapper = value;
    },
    image: wrapperImage,
    sameImage: (value, image) => wrapperImage(value) === image,
    show: (image) => (image === undefined ? 'absent' : 'another'),
  };

  /** Path, or the class for a module without one; for messages. */
  describe(): string {
    return this.#path || this.constructor.name;
  }

  /** First call of a module that has no path yet: names are given from the outermost module being called. */
  #locate(): string {
    (root ?? this).assignPaths();
    // A module that no field of the root leads to: made inside a forward, or held in a plain array.
    this.#path ??= join(currentModule(), pathSegment(this.constructor.name));
    return this.#path;
  }
}

export interface NamedTensor {
  readonly name: string;
  readonly tensor: Tensor;
  readonly alias: string | undefined;
}

/** A list of modules, named '0', '1', ... (torch.nn.ModuleList). */
export class ModuleList<M extends AnyModule> extends Module<never, never> {
  readonly items: readonly M[];

  constructor(items: Iterable<M>) {
    super();
    this.items = [...items];
  }

  get length(): number {
    return this.items.length;
  }

  [Symbol.iterator](): Iterator<M> {
    return this.items[Symbol.iterator]();
  }

  override *children(): Generator<[string, AnyModule]> {
    for (const [i, item] of this.items.entries()) yield [String(i), item];
  }

  forward(): never {
    throw new ArgumentError(
      'ModuleList: a list cannot be called (got a call). Call its items, or use LayerStack.',
    );
  }
}

/** The name of a field in a path: `selfAttn` is `self_attn`. */
export function pathSegment(field: string): string {
  return field.replace(/([a-z0-9])([A-Z])/g, '$1_$2').toLowerCase();
}

function join(prefix: string, name: string): string {
  return prefix === '' ? name : `${prefix}.${name}`;
}

function convert(tensor: Tensor, dtype: DType): Tensor {
  const values = noGrad(() => cast(tensor, dtype));
  const role = roleOf(tensor);
  const made =
    role === 'parameter'
      ? parameter(values, { requiresGrad: tensor.requiresGrad })
      : buffer(values, { persistent: role === 'buffer' });
  made.label = tensor.label;
  return made;
}
