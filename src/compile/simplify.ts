/** Simplification: drops what nobody reads, and computes equal things once. */

import {
  type Graph,
  type Node,
  type Value,
  GraphBuilder,
  liveOutputs,
  renumberMeta,
  rewriteGraph,
} from '../ir/graph.ts';
import { paramsKey } from '../ir/op.ts';

/** Removes nodes whose values reach neither a result nor an update. Inputs and state stay. */
export function removeDeadCode(graph: Graph): Graph {
  const needed = new Set<Node>();
  const stack = [...liveOutputs(graph)].map((value) => value.node);
  for (let node = stack.pop(); node; node = stack.pop()) {
    if (needed.has(node)) continue;
    needed.add(node);
    for (const input of node.inputs) stack.push(input.node);
  }
  const builder = new GraphBuilder();
  const mapped = new Map<Value, Value>();
  const find = (value: Value): Value => mapped.get(value) ?? value;
  const renumbered = new Map<number, number>();
  for (const node of graph.nodes) {
    if (!needed.has(node) && node.kind !== 'input' && node.kind !== 'state') continue;
    renumbered.set(node.id, builder.nodes.length);
    const outputs = builder.copy(node, node.inputs.map(find), renumberMeta(node.meta, renumbered));
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

/**
 * Merges nodes that apply the same op to the same inputs with the same params. Only within one phase
 * and one checkpoint region: merging across them would keep a value alive that was meant to be freed.
 * In-place updates are never merged.
 */
export function mergeCommonSubexpressions(graph: Graph): Graph {
  const known = new Map<string, readonly Value[]>();
  return rewriteGraph(graph, (node, inputs, builder) => {
    if (!node.op || node.op.traits.updates || node.op.traits.remat === 'never') {
      return builder.copy(node, inputs);
    }
    const key = [
      node.op.name,
      paramsKey(node.params),
      inputs.map((input) => `${input.node.id}.${input.index}`).join(),
      node.meta.phase,
      node.meta.regions.join(),
      node.meta.name ?? '',
      JSON.stringify(node.meta.policy ?? ''),
    ].join('|');
    const same = known.get(key);
    if (same) return same;
    const outputs = builder.copy(node, inputs);
    known.set(key, outputs);
    return outputs;
  });
}
