/**
 * The one seam for what backward needs. A saved tensor either holds its data directly, or whatever the
 * innermost pair of saved-tensor hooks made of it (torch.autograd.graph.saved_tensors_hooks).
 * Checkpointing, offload, compression and accounting are clients of these hooks and of nothing deeper.
 */

import { AutogradError } from '../core/errors.ts';
import type { DType } from '../core/dtype.ts';
import type { Shape } from '../core/shape.ts';
import type { TensorData } from './data.ts';
import { type SavedValue, edgeOf } from './graph-node.ts';
import { type StandIn, type TapeEdge, type TapeNode, Tensor } from './tensor.ts';

/** What is known of the op that saves, for hooks that report or decide by op. */
export interface SaveContext {
  readonly op: string;
  readonly name: string;
  readonly module: string;
  /** The op needs the value to the last bit: see Traits.exactSaves. */
  readonly exact?: boolean;
}

export interface SavedTensorHooks<T = unknown> {
  /**
   * Called when a tensor is saved. Without `release`, a tensor that pack returns belongs to the graph
   * from then on; returning the argument itself is allowed and leaves it alone.
   */
  readonly pack: (tensor: Tensor, context: SaveContext) => T;
  /** Called when backward needs it: a tensor of the same shape, dtype and values. */
  readonly unpack: (packed: T) => Tensor;
  /** Called once when the graph no longer needs what pack returned. */
  readonly release?: (packed: T) => void;
  /** What memory pack's result holds, for reports. Left out: the result itself, if it is a tensor. */
  readonly held?: (packed: T) => Iterable<HeldValue>;
  /** Called between ops: after an op packed its inputs, before its kernel, and again when it is done. */
  readonly boundary?: () => void;
  /**
   * What these hooks want that a region in a traced step does not give, since its inputs do not pass through
   * hooks there: text for the error. Left out: nothing.
   */
  readonly wantsRegionInputs?: string;
  /** Each packed value stands for itself: it does not matter how many are packed, and in which order. */
  readonly independent?: boolean;
}

/** A value that the graph, or hooks for it, keep until backward. */
export interface HeldValue {
  readonly context: SaveContext;
  readonly shape: Shape;
  readonly dtype: DType;
  /** Its memory; undefined when hooks keep something else in its place. */
  readonly heldData: TensorData | undefined;
  /** What those hooks hold. */
  readonly heldByHooks: Iterable<HeldValue>;
}

/** A tensor's stand-in, as savers see it: the tensor itself need not know the hooks. */
export interface SaveStandIn<T = unknown> extends StandIn {
  readonly hooks: SavedTensorHooks<T>;
  /** Hooks in force where it was made: under others those are asked. */
  readonly under: SavedTensorHooks | undefined;
  /** Of the tensor: once changed in place it is another value, which is saved as any other. */
  readonly version: number;
}

const hookStack: (SavedTensorHooks | undefined)[] = [];

export function currentHooks(): SavedTensorHooks | undefined {
  return hookStack[hookStack.length - 1];
}

/** Runs `body` with these hooks innermost; `undefined` runs it as if no hooks were active. */
export function withSavedTensorHooks<R, T = unknown>(
  hooks: SavedTensorHooks<T> | undefined,
  body: () => R,
): R {
  hookStack.push(hooks as SavedTensorHooks | undefined);
  try {
    return body();
  } finally {
    hookStack.pop();
  }
}

type Slot =
  | { readonly kind: 'data'; readonly data: TensorData; readonly version: number }
  | { readonly kind: 'packed'; readonly hooks: SavedTensorHooks; readonly packed: unknown };

/** Throws AutogradError when what was saved at version `expected` has been changed in place since. */
export function checkVersion(version: number, expected: number, context: SaveContext): void {
  if (version === expected) return;
  const { op, name, module } = context;
  throw new AutogradError(
    `backward: '${name}' of ${op}${module === '' ? '' : ` in ${module}`} was changed in place after it was saved ` +
      `(got version ${version}, expected ${expected}). Clone it before the in-place change.`,
    { op, name, module, version, expected },
  );
}

/** What the hooks made of `tensor`; without a release hook the graph owns a tensor among that. */
function pack(hooks: SavedTensorHooks, tensor: Tensor, context: SaveContext): unknown {
  const packed = hooks.pack(tensor, context);
  if (hooks.release || !(packed instanceof Tensor)) return packed;
  return (packed === tensor ? tensor.detach() : packed).keep();
}

/** The hooks of the tensor itself, or those around whoever saves it. */
function hooksFor(tensor: Tensor): SavedTensorHooks | undefined {
  const standIn = tensor.standIn as SaveStandIn | undefined;
  const around = currentHooks();
  const stands = standIn?.under === around && standIn?.version === tensor.version;
  return stands ? standIn?.hooks : around;
}

export class SavedTensor implements SavedValue<Tensor>, HeldValue {
  readonly #slot: Slot;
  readonly shape: Shape;
  readonly dtype: DType;
  /** Place in the graph of a saved input; a saved output belongs to its own node. */
  readonly #edge: TapeEdge | undefined;
  readonly #ownOutput: number | undefined;
  readonly #context: SaveContext;

  /** Saves `tensor`; `ownOutput` is its index when it is an output of the node that saves it. */
  constructor(tensor: Tensor, context: SaveContext, ownOutput?: number) {
    this.shape = tensor.shape;
    this.dtype = tensor.dtype;
    this.#ownOutput = ownOutput;
    this.#edge = ownOutput === undefined ? edgeOf(tensor) : undefined;
    this.#context = context;
    const hooks = hooksFor(tensor);
    if (hooks) {
      this.#slot = { kind: 'packed', hooks, packed: pack(hooks, tensor, context) };
    } else {
      this.#slot = { kind: 'data', data: tensor.data.retain(), version: tensor.version };
    }
  }

  get context(): SaveContext {
    return this.#context;
  }

  get heldData(): TensorData | undefined {
    const slot = this.#slot;
    if (slot.kind === 'data') return slot.data;
    const { hooks, packed } = slot;
    return !hooks.held && packed instanceof Tensor ? packed.data : undefined;
  }

  get heldByHooks(): Iterable<HeldValue> {
    const slot = this.#slot;
    return slot.kind === 'packed' ? (slot.hooks.held?.(slot.packed) ?? []) : [];
  }

  /**
   * A handle of the saved value, with its place in the graph. `owner` is the node that saved it.
   * Throws AutogradError when it was changed in place since.
   */
  unpack(owner: TapeNode | undefined): Tensor {
    const slot = this.#slot;
    if (slot.kind === 'packed') {
      const tensor = withSavedTensorHooks(undefined, () => slot.hooks.unpack(slot.packed));
      return this.#connect(tensor.detach(), owner);
    }
    checkVersion(slot.data.version, slot.version, this.#context);
    return this.#connect(new Tensor(slot.data.retain(), this.shape, this.dtype), owner);
  }

  release(): void {
    const slot = this.#slot;
    if (slot.kind === 'data') slot.data.release();
    else if (slot.hooks.release) slot.hooks.release(slot.packed);
    else if (slot.packed instanceof Tensor) slot.packed.dispose();
  }

  #connect(tensor: Tensor, owner: TapeNode | undefined): Tensor {
    if (this.#ownOutput !== undefined) {
      if (owner) tensor.attach(owner.retain(), this.#ownOutput);
    } else if (this.#edge?.kind === 'node') {
      tensor.attach(this.#edge.node.retain(), this.#edge.index);
    } else if (this.#edge?.kind === 'leaf') {
      tensor.standFor(this.#edge.leaf);
    }
    return tensor;
  }
}
