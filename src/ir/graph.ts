/**
 * The graph of a traced step: nodes in execution order, each one application of an op. A value is
 * (node, output index). Inputs and constants are nodes without an op. Graphs are immutable once built;
 * a pass builds the next one with GraphBuilder.
 */

import type { HostTensor } from '../core/host-tensor.ts';
import { invariant, definite } from '../core/errors.ts';
import type { Aval } from './aval.ts';
import type { AnyOp, Params } from './op.ts';

/** A value of the graph. Identity is the object: one per (node, output). */
export interface Value {
  readonly node: Node;
  readonly index: number;
  readonly aval: Aval;
}

export type Phase = 'forward' | 'backward' | 'optimizer';

/** Formats in which a saved value may be kept in fewer bits. */
export type SaveFormat = 'bf16' | 'fp8' | 'int8';

/** What a checkpoint policy says of a value. Must is an order, prefer a hint that a byte budget may overrule. */
export type CheckpointPolicy =
  | 'mustSave'
  | 'preferSave'
  | 'mustRecompute'
  | 'preferRecompute'
  | 'mustOffload'
  | 'preferOffload'
  | { readonly compress: SaveFormat };

/** What is known of a node beside what it computes; travels with it through every pass. */
export interface NodeMeta {
  readonly phase: Phase;
  /** Path of the module being called, such as `layers.3.attention`; '' outside modules. */
  readonly module: string;
  /** Enclosing checkpoint regions, outermost first. */
  readonly regions: readonly number[];
  /** The outermost region discards its outputs: nobody keeps them for backward. */
  readonly discarded?: boolean;
  /** checkpointName mark. */
  readonly name?: string;
  /** What the policy of the outermost enclosing region says of the outputs. */
  readonly policy?: CheckpointPolicy;
  /** The user's source line, when recorded. */
  readonly source?: string;
  /** Set on a copy made by rematerialization: the node it repeats. */
  readonly recomputeOf?: number;
  /** Set on a node that brings back a value that was moved out of memory or compressed: the node that made it. */
  readonly restores?: number;
}

export type NodeKind =
  /** `op` applied to `inputs`. */
  | 'op'
  /** Given at each run: a batch, a learning rate, a generator state. */
  | 'input'
  /** Persistent storage that the step reads and may update in place: parameters, optimizer state. */
  | 'state'
  /** Known when traced. */
  | 'constant';

export interface Node {
  readonly id: number;
  readonly kind: NodeKind;
  readonly op: AnyOp | undefined;
  readonly inputs: readonly Value[];
  readonly params: Params;
  readonly outputs: readonly Value[];
  readonly meta: NodeMeta;
  /** For inputs and state: a name for printing. */
  readonly label: string;
  /** For constants. */
  readonly constant: HostTensor | undefined;
}

export interface Graph {
  /** In execution order: every node after the producers of its inputs. */
  readonly nodes: readonly Node[];
  /** Values handed to the caller. */
  readonly results: readonly Value[];
  /** State that ends the step with a new value: `state` takes over `value`. */
  readonly updates: readonly { readonly state: Value; readonly value: Value }[];
}

export const rootMeta: NodeMeta = { phase: 'forward', module: '', regions: [] };

/** Appends nodes; ids count up from zero in the order of addition. */
export class GraphBuilder {
  readonly nodes: Node[] = [];

  input(label: string, aval: Aval, kind: 'input' | 'state' = 'input'): Value {
    return definite(this.#push(kind, undefined, [], {}, [aval], rootMeta, label, undefined)[0]);
  }

  constant(tensor: HostTensor, label = 'constant'): Value {
    const outputs = [{ shape: tensor.shape, dtype: tensor.dtype }];
    return definite(this.#push('constant', undefined, [], {}, outputs, rootMeta, label, tensor)[0]);
  }

  apply(
    op: AnyOp,
    inputs: readonly Value[],
    params: Params,
    outputs: readonly Aval[],
    meta: NodeMeta,
  ): readonly Value[] {
    return this.#push('op', op, inputs, params, outputs, meta, '', undefined);
  }

  /** A copy of `node` in this graph with other inputs; outputs keep their avals. */
  copy(node: Node, inputs: readonly Value[], meta: NodeMeta = node.meta): readonly Value[] {
    const avals = node.outputs.map((value) => value.aval);
    return this.#push(
      node.kind,
      node.op,
      inputs,
      node.params,
      avals,
      meta,
      node.label,
      node.constant,
    );
  }

  build(results: readonly Value[], updates: Graph['updates']): Graph {
    return { nodes: this.nodes, results, updates };
  }

  #push(
    kind: NodeKind,
    op: AnyOp | undefined,
    inputs: readonly Value[],
    params: Params,
    avals: readonly Aval[],
    meta: NodeMeta,
    label: string,
    constant: HostTensor | undefined,
  ): readonly Value[] {
    const outputs: Value[] = [];
    const id = this.nodes.length;
    const node: Node = { id, kind, op, inputs, params, outputs, meta, label, constant };
    avals.forEach((aval, index) => {
      outputs.push({ node, index, aval });
    });
    this.nodes.push(node);
    return outputs;
  }
}

/** `meta` in a graph where nodes have other numbers. */
export function renumberMeta(meta: NodeMeta, numbers: ReadonlyMap<number, number>): NodeMeta {
  const { recomputeOf, restores } = meta;
  if (recomputeOf === undefined && restores === undefined) return meta;
  const now = (id: number): number => numbers.get(id) ?? id;
  return {
    ...meta,
    ...(recomputeOf !== undefined && { recomputeOf: now(recomputeOf) }),
    ...(restores !== undefined && { restores: now(restores) }),
  };
}

/** Where each value is read: nodes in order, each once per value. */
export function usesOf(graph: Graph): Map<Value, Node[]> {
  const uses = new Map<Value, Node[]>();
  for (const node of graph.nodes) {
    for (const input of new Set(node.inputs)) {
      const list = uses.get(input);
      if (list) list.push(node);
      else uses.set(input, [node]);
    }
  }
  return uses;
}

/** Every value that must survive the step. */
export function liveOutputs(graph: Graph): Set<Value> {
  return new Set([...graph.results, ...graph.updates.map((update) => update.value)]);
}

/**
 * Rebuilds a graph node by node. `visit` gets a node and its inputs in the new graph and returns the
 * values that stand for its outputs there.
 */
export function rewriteGraph(
  graph: Graph,
  visit: (node: Node, inputs: readonly Value[], builder: GraphBuilder) => readonly Value[],
): Graph {
  const builder = new GraphBuilder();
  const mapped = new Map<Value, Value>();
  const find = (value: Value): Value => {
    const found = mapped.get(value);
    invariant(found, () => `value %${value.node.id}.${value.index} is used before it is defined`);
    return found;
  };
  for (const node of graph.nodes) {
    const outputs = visit(node, node.inputs.map(find), builder);
    node.outputs.forEach((value, i) => {
      const replacement = outputs[i];
      if (replacement) mapped.set(value, replacement);
    });
  }
  return builder.build(
    graph.results.map(find),
    graph.updates.map((update) => ({ state: find(update.state), value: find(update.value) })),
  );
}
