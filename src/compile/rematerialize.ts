/**
 * Rematerialization by region (checkpointing.md P3, P6). Where backward reads a value that a checkpointed
 * region saved, the read is marked in the graph. If the region itself computed the value, the read gets
 * a copy of the computation instead, placed just before it; inputs of the region are read as they are.
 * Each node is copied once, however many reads there are. What the region's policy keeps is read as it is,
 * and copies read it too. Nested regions are flattened: inside an
 * outer region nothing is kept, so inner ones only decide what eager execution would recompute twice. What a
 * region discards (S7) is computed again for reads of other regions too. What its policy offloads or compresses is set
 * aside when it is made and brought back for the first of these reads.
 */

import { definite } from '../core/errors.ts';
import {
  type CheckpointPolicy,
  type Graph,
  type GraphBuilder,
  type Node,
  type NodeMeta,
  type Value,
  rewriteGraph,
} from '../ir/graph.ts';
import { baseOf } from './base-value.ts';
import { type Aside, asideOf, bringBack, canWait, setAside } from './set-aside.ts';

/** Every read of a saved value gets a copy of its computation where a region was to drop it. */
export function rematerializeRegions(graph: Graph): Graph {
  const rootOf = outermostRegions(graph);
  const rules: RepeatRules = {
    overwritten: overwrittenValues(graph),
    policies: policiesOf(graph),
  };
  /** Outputs, in the new graph, of the copy of an old node. */
  const copies = new Map<Node, readonly Value[]>();
  /** Values of the new graph, for values of the old one. */
  const mapped = new Map<Value, Value>();
  /** What stands for values that are set aside, and values that were brought back. */
  const waiting = new Map<Value, { readonly aside: Aside; readonly parts: readonly Value[] }>();
  const returned = new Map<Value, Value>();

  const recompute = (value: Value, root: number, builder: GraphBuilder): Value => {
    if (!isInside(value.node, root)) return mapped.get(value) ?? value;
    if (!mayRepeat(value.node, rules)) return kept(value, builder);
    const order = missingCopies(value.node, root, copies, rules);
    for (const node of order) {
      const inputs = node.inputs.map((input) => copyOf(input, root, builder));
      copies.set(node, builder.copy(node, inputs, recomputeMeta(node, mapped)));
    }
    return copies.get(value.node)?.[value.index] ?? mapped.get(value) ?? value;
  };
  const copyOf = (value: Value, root: number, builder: GraphBuilder): Value => {
    if (!isInside(value.node, root)) return mapped.get(value) ?? value;
    return copies.get(value.node)?.[value.index] ?? kept(value, builder);
  };
  /** A value that is not computed again: as it is, or brought back. */
  const kept = (value: Value, builder: GraphBuilder): Value => {
    const original = mapped.get(value) ?? value;
    const waits = waiting.get(value);
    if (!waits) return original;
    const known = returned.get(value);
    if (known) return known;
    const made = bringBack(builder, waits.parts, original, waits.aside, original.node.id);
    returned.set(value, made);
    return made;
  };
  const setAsideOutputs = (node: Node, outputs: readonly Value[], builder: GraphBuilder): void => {
    const aside = asideOf(rules.policies.get(node));
    if (!aside || node.meta.phase !== 'forward') return;
    node.outputs.forEach((value, i) => {
      const output = outputs[i];
      if (!output || !canWait(output, aside)) return;
      waiting.set(value, { aside, parts: setAside(builder, output, aside) });
    });
  };

  return rewriteGraph(graph, (node, inputs, builder) => {
    const outputs = visit(node, inputs, builder);
    node.outputs.forEach((value, i) => {
      const output = outputs[i];
      if (output) mapped.set(value, output);
    });
    setAsideOutputs(node, outputs, builder);
    return outputs;
  });

  function visit(node: Node, inputs: readonly Value[], builder: GraphBuilder): readonly Value[] {
    if (!node.op?.traits.savedRead) return builder.copy(node, inputs);
    const root = rootOf.get(node.params.region as number);
    const source = definite(node.inputs[0]);
    return [root === undefined ? definite(inputs[0]) : recompute(source, root, builder)];
  }
}

/** The marks of saved reads gone and nothing recomputed: every read gets the value that forward made. */
export function readSavedValues(graph: Graph): Graph {
  return rewriteGraph(graph, (node, inputs, builder) =>
    node.op?.traits.savedRead ? [definite(inputs[0])] : builder.copy(node, inputs),
  );
}

/** Whether a read of a saved value is marked anywhere: whether regions have anything to recompute. */
export function hasRegions(graph: Graph): boolean {
  return graph.nodes.some((node) => node.op?.traits.savedRead);
}

/** The outermost region that encloses each region. */
function outermostRegions(graph: Graph): Map<number, number> {
  const roots = new Map<number, number>();
  for (const { meta } of graph.nodes) {
    for (const region of meta.regions) roots.set(region, meta.regions[0] ?? region);
  }
  return roots;
}

/**
 * Whether a read for region `root` may be given a copy of the node: it is in the region, or in another one that
 * discards its outputs. Views of such values belong to them.
 */
function isInside(node: Node, root: number): boolean {
  let at: Node | undefined = node;
  for (; at?.kind === 'op'; at = at.op?.lower.kind === 'view' ? at.inputs[0]?.node : undefined) {
    const { regions, discarded } = at.meta;
    if (regions[0] === root || (discarded && regions.length > 0)) return true;
  }
  return false;
}

/** Inputs of in-place ops: computing from them again after the change would give something else. */
function overwrittenValues(graph: Graph): Set<Value> {
  const found = new Set<Value>();
  for (const node of graph.nodes) {
    for (const { input } of node.op?.traits.updates ?? []) {
      const value = node.inputs[input];
      if (value?.node.kind === 'state' && node.meta.phase === 'forward') found.add(value);
    }
  }
  return found;
}

/** By the node that makes a value: what a policy says of it, the names given to it later included. */
export function policiesOf(graph: Graph): Map<Node, CheckpointPolicy> {
  const policies = new Map<Node, CheckpointPolicy>();
  for (const node of graph.nodes) {
    const { policy } = node.meta;
    if (policy === undefined) continue;
    const [first] = node.outputs;
    policies.set(node.op?.traits.marksName && first ? baseOf(first).node : node, policy);
  }
  return policies;
}

interface RepeatRules {
  readonly overwritten: ReadonlySet<Value>;
  readonly policies: ReadonlyMap<Node, CheckpointPolicy>;
}

/** Whether a node may be computed again: not what must not run twice, nor what a policy keeps. */
function mayRepeat(node: Node, { overwritten, policies }: RepeatRules): boolean {
  const traits = node.op?.traits;
  if (!traits || traits.remat === 'never') return false;
  const policy = policies.get(node);
  if (node.inputs.some((input) => overwritten.has(input))) return false;
  if (policy === 'mustRecompute') return true;
  const recomputes = policy === undefined || policy === 'preferRecompute';
  return recomputes && !traits.keep;
}

/** The nodes to copy for `target`, producers first, without recursion: layers can be long chains. */
function missingCopies(
  target: Node,
  root: number,
  copies: ReadonlyMap<Node, unknown>,
  rules: RepeatRules,
): Node[] {
  const needed = new Set<Node>();
  const stack = [target];
  for (let node = stack.pop(); node; node = stack.pop()) {
    if (needed.has(node) || copies.has(node)) continue;
    if (!isInside(node, root) || !mayRepeat(node, rules)) continue;
    needed.add(node);
    for (const input of node.inputs) stack.push(input.node);
  }
  return [...needed].sort((a, b) => a.id - b.id);
}

function recomputeMeta(node: Node, mapped: ReadonlyMap<Value, Value>): NodeMeta {
  const first = node.outputs[0];
  const original = first && mapped.get(first);
  return { ...node.meta, phase: 'backward', recomputeOf: original?.node.id ?? node.id };
}
