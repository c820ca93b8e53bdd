/** Which values of a planned graph wait outside memory or in fewer bits, found by the nodes that bring them back. */

import { definite } from '../core/errors.ts';
import type { Graph, Node, SaveFormat, Value } from '../ir/graph.ts';

export interface ValueAside {
  readonly action: 'offloaded' | 'compressed';
  /** Of compressed ones. */
  readonly format: SaveFormat | undefined;
  /** How often it is brought back. */
  returns: number;
  /** The nodes that set it aside and, with `restores`, bring it back. */
  readonly nodes: Set<Node>;
}

/** By the value that was set aside. */
export function valuesSetAside(graph: Graph): Map<Value, ValueAside> {
  const found = new Map<Value, ValueAside>();
  const inner = new Set<Value>();
  for (const node of graph.nodes) {
    if (node.meta.restores !== undefined) for (const input of node.inputs) inner.add(input);
  }
  for (const node of graph.nodes) {
    // Of the nodes that bring one value back only the last makes it.
    const ends =
      node.meta.restores !== undefined && !node.outputs.some((value) => inner.has(value));
    if (!ends) continue;
    const { source, path } = pathFrom(graph, node);
    const moved = path.some(({ op }) => op?.traits.transfer);
    const aside = found.get(source) ?? {
      action: moved ? ('offloaded' as const) : ('compressed' as const),
      format: moved ? undefined : formatOf(path),
      returns: 0,
      nodes: new Set<Node>(),
    };
    aside.returns++;
    for (const each of path) aside.nodes.add(each);
    found.set(source, aside);
  }
  return found;
}

/** From what a chain of nodes brings back to the value that went in, which `restores` names; or a copy of that. */
function pathFrom(graph: Graph, end: Node): { source: Value; path: readonly Node[] } {
  const { restores = -1 } = end.meta;
  const path: Node[] = [];
  const stack = [end];
  let output = 0;
  for (let node = stack.pop(); node; node = stack.pop()) {
    if (path.includes(node)) continue;
    path.push(node);
    for (const { node: maker, index } of node.inputs) {
      if (maker.id === restores || maker.meta.recomputeOf === restores) output = index;
      else stack.push(maker);
    }
  }
  return { source: definite(graph.nodes[restores]?.outputs[output]), path };
}

function formatOf(path: readonly Node[]): SaveFormat {
  for (const { params } of path) {
    if (params.format === 'fp8' || params.format === 'int8') return params.format;
  }
  return 'bf16';
}
