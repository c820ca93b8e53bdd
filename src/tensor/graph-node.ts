/**
 * One application of an op on the autograd tape. Nodes are counted: each tensor handle that is an
 * output of the node and each consumer node own one count. When the last goes, the node drops its
 * saved tensors and its producers, so a graph that nobody can reach holds no memory.
 */

import { AutogradError } from '../core/errors.ts';
import type { Aval } from '../ir/aval.ts';
import type { AnyOp, Params } from '../ir/op.ts';

/** Where the gradient of an input goes: to an output of another node, or into a leaf. */
export type Edge<T> =
  | { readonly kind: 'node'; readonly node: GraphNode<T>; readonly index: number }
  | { readonly kind: 'leaf'; readonly leaf: T };

/** Sees a gradient; a returned tensor replaces it. */
export type GradientHook<T> = (gradient: T) => T | undefined;

/** What a node keeps for its backward. */
export interface SavedValue<T> {
  /** The saved tensor, with its place in the graph; `owner` is the node that saved it. */
  unpack(owner: GraphNode<T> | undefined): T;
  release(): void;
}

/** A differentiable step that is not an op record: forward already ran, backward is a closure. */
export interface CustomBackward<T> {
  readonly name: string;
  /** Cotangents in the order of outputs; results in the order of inputs. */
  readonly backward: (
    cotangents: readonly (T | undefined)[],
    saved: readonly T[],
  ) => readonly (T | undefined)[];
}

let sequence = 0;

/** `T` is the tensor handle: this file does not know it, so that tensors can know their nodes. */
export class GraphNode<T> {
  /** Later nodes have higher numbers; backward visits them in falling order. */
  readonly sequence: number = sequence++;
  readonly op: AnyOp | undefined;
  readonly custom: CustomBackward<T> | undefined;
  readonly params: Params;
  readonly inputs: readonly Aval[];
  readonly outputs: readonly Aval[];
  readonly module: string;
  readonly edges: readonly (Edge<T> | undefined)[];
  /** By the name in the op's `saves`; numbered for custom nodes. */
  readonly saved: Map<string, SavedValue<T>> = new Map();
  /** Hooks on the gradient of an output, run before the node's own backward. */
  readonly outputHooks: Map<number, Set<GradientHook<T>>> = new Map();
  /** Non-leaf tensors that asked to keep their gradient. */
  readonly retained: Map<number, T> = new Map();
  #owners = 0;
  #freed = false;

  constructor(init: {
    op?: AnyOp;
    custom?: CustomBackward<T>;
    params: Params;
    inputs: readonly Aval[];
    outputs: readonly Aval[];
    module: string;
    edges: readonly (Edge<T> | undefined)[];
  }) {
    this.op = init.op;
    this.custom = init.custom;
    this.params = init.params;
    this.inputs = init.inputs;
    this.outputs = init.outputs;
    this.module = init.module;
    this.edges = init.edges;
    for (const edge of this.edges) if (edge?.kind === 'node') edge.node.retain();
  }

  get name(): string {
    return this.op?.name ?? this.custom?.name ?? 'node';
  }

  get freed(): boolean {
    return this.#freed;
  }

  retain(): this {
    this.#owners++;
    return this;
  }

  release(): void {
    // A chain may be thousands of nodes long: walk it with a list, not the call stack.
    const pending: GraphNode<T>[] = [this];
    for (let node = pending.pop(); node; node = pending.pop()) {
      node.#owners--;
      if (node.#owners > 0) continue;
      node.freeSaved();
      for (const edge of node.edges) if (edge?.kind === 'node') pending.push(edge.node);
    }
  }

  /** Drops the saved tensors: after a backward without retainGraph, or when nobody can reach the node. */
  freeSaved(): void {
    if (this.#freed) return;
    this.#freed = true;
    for (const saved of this.saved.values()) saved.release();
    this.saved.clear();
  }

  /** Throws when a backward already used the node up. */
  checkAlive(): void {
    if (!this.#freed) return;
    throw new AutogradError(
      `backward: the saved tensors of ${this.name} have already been freed by an earlier backward. ` +
        'Pass retainGraph: true to that backward if you need a second one.',
      { op: this.name, module: this.module },
    );
  }
}

/** What edgeOf needs to know of a tensor handle. */
export interface Differentiable<T> {
  readonly requiresGrad: boolean;
  readonly node: GraphNode<T> | undefined;
  readonly outputIndex: number;
  /** The leaf that gradients of this handle belong to; itself for all but saved copies of a leaf. */
  readonly leaf: T;
}

/** The edge along which the gradient of `tensor` flows; undefined if it wants none. */
export function edgeOf<T extends Differentiable<T>>(tensor: T): Edge<T> | undefined {
  if (!tensor.requiresGrad) return undefined;
  if (tensor.node) return { kind: 'node', node: tensor.node, index: tensor.outputIndex };
  return { kind: 'leaf', leaf: tensor.leaf };
}
