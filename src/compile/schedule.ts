/**
 * Scheduling: the order of nodes decides what is alive together. The traced order is the user's; two
 * things are moved. Optimizer updates run as soon as their inputs exist, so that a gradient dies right
 * after it was made; but not before the last value was fetched, since a fetch that fails must leave parameters
 * as they were. Cheap values wait for their first reader.
 */

import {
  type Graph,
  GraphBuilder,
  type Node,
  type Value,
  liveOutputs,
  renumberMeta,
  usesOf,
} from '../ir/graph.ts';

export function scheduleGraph(graph: Graph): Graph {
  const isFetch = ({ op }: Node): boolean => op?.traits.transfer === 'fetch';
  return reorder(graph, hoistUpdates(graph, delayFree(graph), isFetch));
}

/** As scheduleGraph, with updates behind all of backward: what a plan that may fetch values starts from. */
export function scheduleUpdatesLast(graph: Graph): Graph {
  const isEarlier = ({ kind, meta }: Node): boolean => kind === 'op' && meta.phase !== 'optimizer';
  return reorder(graph, hoistUpdates(graph, delayFree(graph), isEarlier));
}

/** Views, constants and other free values move to just before their first reader. */
function delayFree(graph: Graph): Node[] {
  const live = liveOutputs(graph);
  const delayed = new Set<Node>();
  for (const node of graph.nodes) {
    const movable =
      node.op?.traits.remat === 'free' &&
      !node.op.traits.updates &&
      !node.outputs.some((value) => live.has(value)) &&
      !node.inputs.some((input) => isOverwritten(graph, input));
    if (movable) delayed.add(node);
  }
  const order: Node[] = [];
  const placed = new Set<Node>();
  const place = (node: Node): void => {
    if (placed.has(node)) return;
    placed.add(node);
    for (const input of node.inputs) if (delayed.has(input.node)) place(input.node);
    order.push(node);
  };
  for (const node of graph.nodes) if (!delayed.has(node)) place(node);
  return order;
}

const overwrittenCache = new WeakMap<Graph, Set<Value>>();

function isOverwritten(graph: Graph, value: Value): boolean {
  let set = overwrittenCache.get(graph);
  if (!set) {
    set = new Set();
    for (const node of graph.nodes) {
      for (const { input } of node.op?.traits.updates ?? []) {
        const target = node.inputs[input];
        if (target) set.add(target);
      }
    }
    overwrittenCache.set(graph, set);
  }
  return set.has(value);
}

/**
 * Optimizer nodes run once their inputs exist and everybody who reads what they overwrite has done so; those that
 * change something also wait for the last node before them that is a barrier.
 */
function hoistUpdates(
  graph: Graph,
  order: readonly Node[],
  isBarrier: (node: Node) => boolean,
): Node[] {
  const uses = usesOf(graph);
  let barrier: Node | undefined;
  const waiting = new Map<Node, number>();
  const unlocks = new Map<Node, Node[]>();
  for (const node of order) {
    if (isBarrier(node)) barrier = node;
    if (node.meta.phase !== 'optimizer' || node.kind !== 'op') continue;
    const before = new Set(node.inputs.map((input) => input.node));
    if (barrier && node.op?.traits.updates) before.add(barrier);
    for (const { input } of node.op?.traits.updates ?? []) {
      const target = node.inputs[input];
      for (const reader of target ? readersOf(target, uses) : []) {
        if (reader !== node) before.add(reader);
      }
    }
    waiting.set(node, before.size);
    for (const earlier of before) unlocks.set(earlier, [...(unlocks.get(earlier) ?? []), node]);
  }
  const result = new Set<Node>();
  const emit = (first: Node): void => {
    const queue = [first];
    for (let node = queue.shift(); node; node = queue.shift()) {
      result.add(node);
      for (const next of unlocks.get(node) ?? []) {
        const left = (waiting.get(next) ?? 0) - 1;
        waiting.set(next, left);
        if (left === 0) queue.push(next);
      }
    }
  };
  // Inputs and state cost nothing to have; traced where they were first used, they would hold updates back.
  for (const node of order) if (node.kind !== 'op') emit(node);
  for (const node of order) {
    const ready = (waiting.get(node) ?? 0) === 0;
    if (ready && !result.has(node)) emit(node);
  }
  return [...result];
}

/** Nodes that read the memory of `value`, through views as well. */
function readersOf(value: Value, uses: ReadonlyMap<Value, readonly Node[]>): Set<Node> {
  const readers = new Set<Node>();
  const stack = [value];
  for (let seen = stack.pop(); seen; seen = stack.pop()) {
    for (const reader of uses.get(seen) ?? []) {
      readers.add(reader);
      if (reader.op?.lower.kind === 'view') stack.push(...reader.outputs);
    }
  }
  return readers;
}

function reorder(graph: Graph, order: readonly Node[]): Graph {
  const builder = new GraphBuilder();
  const mapped = new Map<Value, Value>();
  const find = (value: Value): Value => mapped.get(value) ?? value;
  const renumbered = new Map<number, number>();
  for (const node of order) {
    const meta = renumberMeta(node.meta, renumbered);
    renumbered.set(node.id, builder.nodes.length);
    const outputs = builder.copy(node, node.inputs.map(find), meta);
    node.outputs.forEach((value, i) => {
      const copy = outputs[i];
      if (copy) mapped.set(value, copy);
    });
  }
  return builder.build(
    graph.results.map(find),
    graph.updates.map((update) => ({ state: find(update.state), value: find(update.value) })),
  );
}
