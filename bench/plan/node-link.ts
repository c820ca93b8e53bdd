/**
 * Reads graphs in networkx's node-link JSON as Checkmate's and Moccasin's tools write them: one output per node,
 * either `cost_cpu` and `cost_ram` in execution order, or `duration` and `out_cost` with the order in `graph.order`.
 */

import type { PlanGraph, PlanNode, ValueRef } from '../../src/plan/graph.ts';

interface NodeLink {
  readonly graph: { readonly order?: readonly number[] };
  readonly nodes: readonly Readonly<Record<string, unknown>>[];
  readonly links: readonly Readonly<Record<string, number>>[];
}

/** Whether parsed JSON has this form. */
export function isNodeLink(json: unknown): json is NodeLink {
  return typeof json === 'object' && json !== null && 'nodes' in json && 'links' in json;
}

export function readNodeLink({ graph, nodes, links }: NodeLink): PlanGraph {
  const idOf = (node: NodeLink['nodes'][number]): number => Number(node.id ?? node.name);
  const order = graph.order ?? nodes.map(idOf);
  const place = new Map(order.map((id, i) => [id, i]));
  const inputs: ValueRef[][] = order.map(() => []);
  for (const link of links) {
    const [from, to] = [link.source ?? link['0'], link.target ?? link['1']];
    inputs[place.get(to ?? -1) ?? -1]?.push([place.get(from ?? -1) ?? -1, 0]);
  }
  const read = new Array<PlanNode>(order.length);
  for (const node of nodes) {
    const at = place.get(idOf(node)) ?? -1;
    read[at] = {
      kind: 'op',
      phase: node.backward === true ? 'backward' : 'forward',
      inputs: inputs[at] ?? [],
      outputs: [{ bytes: Number(node.cost_ram ?? node.out_cost) }],
      costNs: Number(node.cost_cpu ?? node.duration),
      hard: false,
      label: String(node.name),
    };
  }
  return { nodes: read, outputs: [[order.length - 1, 0]] };
}
