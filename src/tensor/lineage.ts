/**
 * What a tensor and its views have in common on the tape (PyTorch: the base of a view, and CopySlices). An
 * in-place change through any of them changes the history of all. The lineage holds the base's place in
 * the graph and counts the changes; a handle that is behind makes its own place anew from it.
 */

import type { Aval } from '../ir/aval.ts';
import type { AnyOp, Params } from '../ir/op.ts';
import { type Edge, GraphNode } from './graph-node.ts';

/** One view op between the base and a handle. */
export interface ViewStep {
  readonly op: AnyOp;
  readonly params: Params;
  readonly input: Aval;
  readonly output: Aval;
  readonly module: string;
}

export class Lineage<T> {
  /** Shape and dtype of the base. */
  readonly base: Aval;
  #edge: Edge<T> | undefined;
  #members = 1;
  /** Changes of the base's place in the graph so far. */
  generation = 0;

  /** With one member: the base, whose place in the graph is `edge`. */
  constructor(base: Aval, edge: Edge<T> | undefined) {
    this.base = base;
    this.#edge = edge;
    if (edge?.kind === 'node') edge.node.retain();
  }

  /** Where the gradient of the base goes. */
  get edge(): Edge<T> | undefined {
    return this.#edge;
  }

  join(): this {
    this.#members++;
    return this;
  }

  leave(): void {
    this.#members--;
    if (this.#members === 0) this.#replace(undefined);
  }

  /** The base is output `index` of `node` from now on. */
  moveTo(node: GraphNode<T>, index: number): void {
    node.retain();
    this.#replace({ kind: 'node', node, index });
    this.generation++;
  }

  /** The base was a leaf when it began or ceased to want a gradient. */
  setLeaf(edge: Edge<T> | undefined): void {
    this.#replace(edge);
  }

  /** The present place of the view that `steps` lead to: new nodes, of which the caller owns the last. */
  place(
    steps: readonly ViewStep[],
  ): { readonly node: GraphNode<T>; readonly index: number } | undefined {
    let edge = this.#edge;
    if (edge?.kind !== 'node') return undefined;
    edge.node.retain();
    for (const { op, params, input, output, module } of steps) {
      const node: GraphNode<T> = new GraphNode<T>({
        op,
        params,
        inputs: [input],
        outputs: [output],
        module,
        edges: [edge],
      }).retain();
      edge.node.release();
      edge = { kind: 'node', node, index: 0 };
    }
    return edge;
  }

  #replace(edge: Edge<T> | undefined): void {
    const old = this.#edge;
    this.#edge = edge;
    if (old?.kind === 'node') old.node.release();
  }
}
