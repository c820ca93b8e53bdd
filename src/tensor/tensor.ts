/**
 * The tensor handle: shape, dtype, data and place in the autograd graph. A handle owns one count of its
 * data and, if it was computed with gradients, one of its graph node; `dispose` gives both back. Maths
 * methods are attached by ops/methods.ts.
 */

import type { DType } from '../core/dtype.ts';
import { AutogradError, DisposedError } from '../core/errors.ts';
import { formatShape, numElements, type Shape, sameShape } from '../core/shape.ts';
import { type Aval, formatAval } from '../ir/aval.ts';
import type { TensorData } from './data.ts';
import { type Edge, edgeOf, type GradientHook, type GraphNode } from './graph-node.ts';
import { type HostState, isKept, noteRead, noteWrite } from './host-state.ts';
import { Lineage, type ViewStep } from './lineage.ts';
import { register, unregister } from './scope.ts';

/** A node of the autograd tape over tensors, and an edge between nodes. */
export type TapeNode = GraphNode<Tensor>;
export type TapeEdge = Edge<Tensor>;
export type TensorHook = GradientHook<Tensor>;
export type PostAccumulateHook = (parameter: Tensor) => void;

/** Hooks of a leaf, in the order in which they were registered; replaced whole, never changed. */
export interface LeafHooks {
  readonly gradient: readonly TensorHook[];
  readonly accumulated: readonly PostAccumulateHook[];
}

const noHooks: LeafHooks = { gradient: [], accumulated: [] };

/** Methods are declared by ops/methods.ts through interface merging. */
export interface Tensor extends Disposable {}

// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: methods are attached by ops/methods.ts.
export class Tensor {
  readonly shape: Shape;
  readonly dtype: DType;
  #data: TensorData | undefined;
  #node: TapeNode | undefined;
  #outputIndex = 0;
  #requiresGrad = false;
  #leaf: Tensor | undefined;
  /** Shared with the tensor that this one views, and with its own views. */
  #lineage: Lineage<Tensor> | undefined;
  /** From the base of the lineage to this tensor; 'unrecorded' for a view made inside noGrad. */
  #steps: readonly ViewStep[] | 'unrecorded' = [];
  /** Generation of the lineage that `#node` is of. */
  #generation = 0;
  #gradient: Tensor | undefined;
  #leafHooks: LeafHooks = noHooks;
  /** checkpointName mark or parameter name, for reports. */
  label: string | undefined;

  /** Takes over one owner of `data`; registers in the current scope unless told not to. */
  constructor(data: TensorData, shape: Shape, dtype: DType, scoped = true) {
    this.#data = data;
    this.shape = shape;
    this.dtype = dtype;
    if (scoped) register(this);
  }

  get aval(): Aval {
    return { shape: this.shape, dtype: this.dtype };
  }

  get rank(): number {
    return this.shape.length;
  }

  /** Number of elements. */
  get size(): number {
    return numElements(this.shape);
  }

  get disposed(): boolean {
    return this.#data === undefined;
  }

  /** The data, for backends and modes. Throws DisposedError after dispose or the end of the scope. */
  get data(): TensorData {
    if (this.#data === undefined) {
      throw new DisposedError(
        `tensor: ${this.describe()} was used after it was disposed or its scope ended. ` +
          'Return it from the scope, or call keep() on it inside.',
        { shape: this.shape, dtype: this.dtype },
      );
    }
    return this.#data;
  }

  get version(): number {
    return this.data.version;
  }

  get requiresGrad(): boolean {
    this.#follow();
    if (this.#isOutside) noteRead(this, Tensor.requiresGradState);
    return this.#requiresGrad;
  }

  /** Only leaves may be set; others follow from how they were computed. */
  set requiresGrad(value: boolean) {
    if (this.node && !value) {
      throw new AutogradError(
        'requiresGrad: only leaf tensors can be set to false (got a tensor that was computed). Use detach().',
      );
    }
    if (value && !this.dtype.includes('float')) {
      throw new AutogradError(
        `requiresGrad: only floating point tensors have gradients (got ${this.dtype}). Cast to float32 first.`,
      );
    }
    if (this.#isOutside) noteWrite(this, Tensor.requiresGradState);
    this.#requiresGrad = value;
    if (this.#lineage && this.#steps.length === 0 && !this.#node) {
      this.#lineage.setLeaf(edgeOf<Tensor>(this));
    }
  }

  get isLeaf(): boolean {
    return this.node === undefined;
  }

  /** The leaf that this one's gradients belong to: itself, unless it stands for another. */
  get leaf(): Tensor {
    return this.#leaf ?? this;
  }

  /** Makes this handle stand for `leaf`, whose values it has: its gradients are the leaf's. */
  standFor(leaf: Tensor): void {
    this.#leaf = leaf;
    this.#requiresGrad = true;
  }

  get node(): TapeNode | undefined {
    this.#follow();
    return this.#node;
  }

  get outputIndex(): number {
    this.#follow();
    return this.#outputIndex;
  }

  /** The lineage and how this tensor lies in it; undefined when it has no views and is none. */
  get lineage():
    | { readonly lineage: Lineage<Tensor>; readonly steps: readonly ViewStep[] }
    | undefined {
    const steps = this.#steps;
    return this.#lineage && steps !== 'unrecorded' ? { lineage: this.#lineage, steps } : undefined;
  }

  /** Whether this is a view that was made inside noGrad: autograd does not know what it looks into. */
  get isUnrecordedView(): boolean {
    return this.#steps === 'unrecorded';
  }

  /**
   * Makes `view`, which shares this tensor's memory and place in the graph, follow in-place changes of
   * this tensor, and this tensor those of the view. `step` is the op that made it; undefined for a
   * second handle of the same value.
   */
  addView(view: Tensor, step: ViewStep | undefined): void {
    const steps = this.#steps;
    if (steps === 'unrecorded') {
      view.#steps = steps;
      return;
    }
    this.#follow();
    this.#lineage ??= new Lineage<Tensor>(this.aval, edgeOf<Tensor>(this));
    view.#lineage = this.#lineage.join();
    view.#steps = step ? [...steps, step] : steps;
    view.#generation = view.#lineage.generation;
  }

  /** Marks a view that was made without recording. */
  markUnrecorded(): void {
    this.#steps = 'unrecorded';
  }

  /** Takes the present place of the lineage after an in-place change through another of its members. */
  #follow(): void {
    const lineage = this.#lineage;
    if (!lineage || lineage.generation === this.#generation) return;
    this.#generation = lineage.generation;
    const place = lineage.place(this.#steps as readonly ViewStep[]);
    if (place) this.attach(place.node, place.index);
  }

  /** Makes this handle output `index` of `node`; takes over one owner of the node. */
  attach(node: TapeNode, index: number): void {
    if (this.#isOutside) noteWrite(this, Tensor.placeState);
    const old = this.#node;
    this.#node = node;
    this.#outputIndex = index;
    this.#requiresGrad = true;
    if (this.#lineage) this.#generation = this.#lineage.generation;
    old?.release();
  }

  /** Accumulated gradient of a leaf (or of any tensor after retainGrad). */
  get grad(): Tensor | undefined {
    if (this.#isOutside) noteRead(this, Tensor.gradState);
    return this.#gradient;
  }

  /** Takes over the handle `value`; the old gradient is disposed. */
  set grad(value: Tensor | undefined) {
    if (this.#isOutside) noteWrite(this, Tensor.gradState);
    if (value === this.#gradient) return;
    if (!isKept(this.#gradient)) this.#gradient?.dispose();
    if (value) unregister(value);
    this.#gradient = value;
  }

  get leafHooks(): LeafHooks {
    if (this.#isOutside) noteRead(this, Tensor.leafHooksState);
    return this.#leafHooks;
  }

  set leafHooks(hooks: LeafHooks) {
    if (this.#isOutside) noteWrite(this, Tensor.leafHooksState);
    this.#leafHooks = hooks;
  }

  /** A second handle of the same data without history: shares memory and version (torch.Tensor.detach). */
  detach(): Tensor {
    const twin = new Tensor(this.data.retain(), this.shape, this.dtype);
    twin.label = this.label;
    return twin;
  }

  /** A second handle with the same history. */
  alias(): Tensor {
    const twin = this.detach();
    const { node } = this;
    if (node) twin.attach(node.retain(), this.#outputIndex);
    else twin.#requiresGrad = this.requiresGrad;
    if (node) this.addView(twin, undefined);
    return twin;
  }

  /** Takes the tensor out of every scope: it lives until dispose. Returns itself. */
  keep(): this {
    unregister(this);
    return this;
  }

  /** Gives up this handle's share of data, graph node and gradient. Safe to call twice. */
  dispose(): void {
    const data = this.#data;
    if (!data) return;
    this.#data = undefined;
    const node = this.#node;
    this.#node = undefined;
    this.#gradient?.dispose();
    this.#gradient = undefined;
    unregister(this);
    data.release();
    node?.release();
    const lineage = this.#lineage;
    this.#lineage = undefined;
    lineage?.leave();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** A leaf in memory exists outside the step that is being traced, if one is. */
  get #isOutside(): boolean {
    return this.#node === undefined && this.#data?.kind === 'buffer';
  }

  static readonly requiresGradState: HostState<Tensor, boolean | 'computed'> = {
    describe: (tensor) => `requiresGrad of ${tensor.describe()}`,
    get: (tensor) => (tensor.#node ? 'computed' : tensor.#requiresGrad),
    set: (tensor, value) => {
      if (value !== 'computed') tensor.#requiresGrad = value;
    },
  };

  /** What computed it. A tensor from outside a traced step that the step computes into has no history after it. */
  static readonly placeState: HostState<Tensor, TapeNode | undefined> = {
    describe: (tensor) => `the history of ${tensor.describe()}`,
    get: (tensor) => tensor.#node,
    set: (tensor, node) => {
      if (node) return;
      const old = tensor.#node;
      tensor.#node = undefined;
      tensor.#requiresGrad = false;
      if (tensor.#steps.length === 0) tensor.#lineage?.setLeaf(undefined);
      old?.release();
    },
    endsWithStep: true,
  };

  /** A trace depends on whether there is a gradient and of what kind, not on which one it is. */
  static readonly gradState: HostState<Tensor, Tensor | undefined> = {
    describe: (tensor) => `grad of ${tensor.describe()}`,
    get: (tensor) => tensor.#gradient,
    set: (tensor, value) => {
      tensor.grad = value;
    },
    image: (gradient) => gradient && { ...gradient.aval, requiresGrad: gradient.#requiresGrad },
    sameImage: (gradient, image) => {
      const known = image as (Aval & { requiresGrad: boolean }) | undefined;
      if (!gradient || !known) return gradient === known;
      return (
        gradient.dtype === known.dtype &&
        gradient.#requiresGrad === known.requiresGrad &&
        sameShape(gradient.shape, known.shape)
      );
    },
    show: (image) => (image ? formatAval(image as Aval) : 'absent'),
  };

  static readonly leafHooksState: HostState<Tensor, LeafHooks> = {
    describe: (tensor) => `the hooks of ${tensor.describe()}`,
    get: (tensor) => tensor.#leafHooks,
    set: (tensor, value) => {
      tensor.#leafHooks = value;
    },
    sameImage: (hooks, image) => {
      const known = image as LeafHooks;
      return (
        sameItems(hooks.gradient, known.gradient) && sameItems(hooks.accumulated, known.accumulated)
      );
    },
    show: (image) => {
      const { gradient, accumulated } = image as LeafHooks;
      return `${gradient.length + accumulated.length} hooks`;
    },
  };

  /** Short text for errors: dtype, shape and label. */
  describe(): string {
    const name = this.label === undefined ? '' : ` '${this.label}'`;
    return `${this.dtype}${formatShape(this.shape)}${name}`;
  }

  toString(): string {
    return `Tensor(${this.describe()}${this.#requiresGrad ? ', requiresGrad' : ''})`;
  }
}

function sameItems(a: readonly unknown[], b: readonly unknown[]): boolean {
  return a.length === b.length && a.every((item, i) => item === b[i]);
}
