/** The walk of one backward over the tape: gradients pending by node, later nodes first. */

import { definite, invariant } from '../core/errors.ts';
import { formatShape, sameShape } from '../core/shape.ts';
import { add } from '../ops/arithmetic.ts';
import { currentScope } from '../tensor/scope.ts';
import type { TapeEdge, TapeNode, Tensor, TensorHook } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { accumulate } from './leaf.ts';
import { type GradFunction, differentiate } from './vjp.ts';

/** Takes a finished gradient; `wantedIndex` is its place among the wanted edges. */
export type Sink = (edge: TapeEdge, gradient: Tensor, wantedIndex: number | undefined) => void;

export interface WalkOptions {
  readonly createGraph: boolean;
  /** Keep saved tensors after they were used. */
  readonly retain: boolean;
  /** Only these edges matter; undefined means every leaf. */
  readonly wanted: readonly TapeEdge[] | undefined;
  readonly sink: Sink;
  readonly grad: GradFunction;
}

/** One backward: pending gradients by node, visited in falling sequence. */
export class Walk {
  readonly #createGraph: boolean;
  readonly #retain: boolean;
  readonly #sink: Sink;
  readonly #grad: GradFunction;
  readonly #wanted: readonly TapeEdge[] | undefined;
  /** Nodes on a path to a wanted edge; undefined when everything is wanted. */
  readonly #needed: Set<TapeNode> | undefined;
  readonly #pending = new Map<TapeNode, (Tensor | undefined)[]>();
  readonly #leaves = new Map<Tensor, Tensor>();
  /** Edges into each leaf that are still to be visited: at zero its gradient is complete. */
  readonly #leafEdges = new Map<Tensor, number>();
  readonly #queue: TapeNode[] = [];

  constructor(roots: readonly TapeEdge[], options: WalkOptions) {
    const { wanted } = options;
    this.#createGraph = options.createGraph;
    this.#retain = options.retain;
    this.#wanted = wanted;
    this.#sink = options.sink;
    this.#grad = options.grad;
    const order = reachable(roots);
    if (wanted) this.#needed = this.#pathsToWanted(order);
    for (const edge of [...roots, ...order.flatMap((node) => node.edges)]) {
      if (edge?.kind !== 'leaf') continue;
      this.#leafEdges.set(edge.leaf, (this.#leafEdges.get(edge.leaf) ?? 0) + 1);
    }
  }

  /** Adds `gradient` (a handle that the walk takes over) to what flows along `edge`. */
  #receive(edge: TapeEdge, gradient: Tensor): void {
    if (edge.kind === 'leaf') {
      const have = this.#leaves.get(edge.leaf);
      this.#leaves.set(edge.leaf, have ? this.#sum(have, gradient) : gradient);
      this.#leafEdgeDone(edge.leaf);
      return;
    }
    const { node, index } = edge;
    let slots = this.#pending.get(node);
    if (!slots) {
      slots = new Array<Tensor | undefined>(node.outputs.length).fill(undefined);
      this.#pending.set(node, slots);
      node.retain();
      this.#push(node);
    }
    const have = slots[index];
    slots[index] = have ? this.#sum(have, gradient) : gradient;
  }

  /** Walks from `seeds`, the cotangents of `roots` (handles that the walk takes over). */
  run(roots: readonly TapeEdge[], seeds: readonly Tensor[]): void {
    try {
      roots.forEach((root, i) => {
        this.#receive(root, definite(seeds[i]));
      });
      for (let node = this.#pop(); node; node = this.#pop()) this.#visit(node);
      // Leaves with an edge that no gradient reached.
      for (const leaf of [...this.#leaves.keys()]) this.#emitLeaf(leaf);
    } finally {
      for (const node of this.#pending.keys()) node.release();
    }
  }

  #leafEdgeDone(leaf: Tensor): void {
    const left = (this.#leafEdges.get(leaf) ?? 1) - 1;
    this.#leafEdges.set(leaf, left);
    if (left === 0) this.#emitLeaf(leaf);
  }

  #emitLeaf(leaf: Tensor): void {
    const gradient = this.#leaves.get(leaf);
    if (!gradient) return;
    this.#leaves.delete(leaf);
    const edge: TapeEdge = { kind: 'leaf', leaf };
    let value = gradient;
    for (const hook of leaf.leafHooks.gradient) value = hooked(hook, value);
    if (this.#wanted) for (const i of this.#wantedIndices(edge)) this.#sink(edge, value, i);
    else this.#sink(edge, value, undefined);
    if (!this.#createGraph) gradient.dispose();
  }

  #pathsToWanted(order: readonly TapeNode[]): Set<TapeNode> {
    const needed = new Set<TapeNode>();
    for (const node of order) {
      const leads = node.edges.some(
        (edge) =>
          edge &&
          (this.#wantedIndices(edge).length > 0 || (edge.kind === 'node' && needed.has(edge.node))),
      );
      if (leads) needed.add(node);
    }
    return needed;
  }

  #wantedIndices(edge: TapeEdge): number[] {
    const found: number[] = [];
    this.#wanted?.forEach((want, i) => {
      const same =
        want.kind === 'leaf'
          ? edge.kind === 'leaf' && edge.leaf === want.leaf
          : edge.kind === 'node' && edge.node === want.node && edge.index === want.index;
      if (same) found.push(i);
    });
    return found;
  }

  #sum(a: Tensor, b: Tensor): Tensor {
    const total = add(a, b);
    // Without createGraph nobody else holds the parts: their memory can go at once.
    if (!this.#createGraph) {
      a.dispose();
      b.dispose();
    }
    return total;
  }

  #visit(node: TapeNode): void {
    const cotangents = this.#pending.get(node);
    invariant(cotangents, () => `${node.name} was queued without a gradient`);
    this.#pending.delete(node);
    try {
      this.#runOutputHooks(node, cotangents);
      node.outputs.forEach((_, index) => {
        const gradient = cotangents[index];
        if (gradient) this.#emitNode(node, index, gradient);
      });
      if (!this.#needed || this.#needed.has(node)) this.#passOn(node, cotangents);
      else this.#dispose(cotangents);
    } finally {
      node.release();
    }
  }

  #passOn(node: TapeNode, cotangents: readonly (Tensor | undefined)[]): void {
    const results = scope(() =>
      differentiate(node, cotangents, {
        createGraph: this.#createGraph,
        wanted: this.#edgeWanted,
        grad: this.#grad,
      }),
    );
    // What this node needed goes before its results are added to others: that is often the peak.
    if (!this.#retain) node.freeSaved();
    this.#dispose(cotangents);
    node.edges.forEach((edge, i) => {
      const gradient = results[i];
      if (gradient && edge && this.#edgeWanted(edge)) {
        this.#receive(edge, checked(node, i, gradient));
        return;
      }
      gradient?.dispose();
      if (edge?.kind === 'leaf') this.#leafEdgeDone(edge.leaf);
    });
  }

  /** Without createGraph nobody else holds these handles. */
  #dispose(cotangents: readonly (Tensor | undefined)[]): void {
    if (this.#createGraph) return;
    for (const cotangent of cotangents) cotangent?.dispose();
  }

  readonly #edgeWanted = (edge: TapeEdge): boolean =>
    !this.#wanted ||
    this.#wantedIndices(edge).length > 0 ||
    (edge.kind === 'node' && (this.#needed?.has(edge.node) ?? false));

  #runOutputHooks(node: TapeNode, cotangents: (Tensor | undefined)[]): void {
    for (const [index, hooks] of node.outputHooks) {
      for (const hook of hooks) {
        const gradient = cotangents[index];
        if (gradient) cotangents[index] = hooked(hook, gradient);
      }
    }
  }

  #emitNode(node: TapeNode, index: number, gradient: Tensor): void {
    const retained = node.retained.get(index);
    if (retained && !retained.disposed) accumulate(retained, gradient, this.#createGraph);
    const edge: TapeEdge = { kind: 'node', node, index };
    for (const i of this.#wantedIndices(edge)) this.#sink(edge, gradient, i);
  }

  /** Queue as a binary heap on sequence, highest first. */
  #push(node: TapeNode): void {
    const heap = this.#queue;
    let at = heap.push(node) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (definite(heap[parent]).sequence >= node.sequence) break;
      heap[at] = definite(heap[parent]);
      at = parent;
    }
    heap[at] = node;
  }

  #pop(): TapeNode | undefined {
    const heap = this.#queue;
    const top = heap[0];
    const last = heap.pop();
    if (!top || !last || heap.length === 0) return top;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      const right = child + 1;
      if (right < heap.length && definite(heap[right]).sequence > definite(heap[child]).sequence)
        child = right;
      if (definite(heap[child]).sequence <= last.sequence) break;
      heap[at] = definite(heap[child]);
      at = child;
    }
    heap[at] = last;
    return top;
  }
}

/** Every node that gradients from `roots` can reach, in rising sequence. */
function reachable(roots: readonly TapeEdge[]): TapeNode[] {
  const seen = new Set<TapeNode>();
  const stack = roots.flatMap((edge) => (edge.kind === 'node' ? [edge.node] : []));
  for (let node = stack.pop(); node; node = stack.pop()) {
    if (seen.has(node)) continue;
    seen.add(node);
    for (const edge of node.edges) if (edge?.kind === 'node') stack.push(edge.node);
  }
  return [...seen].sort((a, b) => a.sequence - b.sequence);
}

/** What `hook` makes of a gradient. A tensor that the hook keeps for itself is not taken over. */
function hooked(hook: TensorHook, gradient: Tensor): Tensor {
  const replacement = hook(gradient);
  if (!replacement || replacement === gradient) return gradient;
  return currentScope()?.members.has(replacement) ? replacement : replacement.alias();
}

function checked(node: TapeNode, i: number, gradient: Tensor): Tensor {
  const expected = node.inputs[i];
  invariant(
    expected && sameShape(expected.shape, gradient.shape),
    () =>
      `the vjp of ${node.name} gave shape ${formatShape(gradient.shape)} for input ${i} of shape ${formatShape(expected?.shape ?? [])}`,
  );
  return gradient;
}
