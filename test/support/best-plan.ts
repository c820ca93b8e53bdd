/**
 * The least extra time of any schedule of a small graph, by looking at every state: how many ops have run
 * once, and which storages are resident (Dijkstra over runs and frees). First runs keep the graph's order.
 * Uses nothing of the planner.
 */

import type { PlanGraph, ValueRef } from '../../src/plan/graph.ts';

/** Extra nanoseconds of the best schedule within `budget`; Infinity when there is none. */
export function bestExtra(graph: PlanGraph, budget: number): number {
  const { nodes } = graph;
  const rootOf = ([node, output]: ValueRef): ValueRef => {
    const alias = nodes[node]!.outputs[output]!.alias;
    return alias ? rootOf(alias) : [node, output];
  };
  const names = new Map<string, number>();
  const bytes: number[] = [];
  nodes.forEach((node, i) => {
    if (node.kind !== 'op') return;
    node.outputs.forEach((out, k) => {
      if (out.alias) return;
      names.set(`${i}:${k}`, bytes.length);
      bytes.push(out.bytes);
    });
  });
  const bitOf = (value: ValueRef): number => {
    const s = names.get(rootOf(value).join(':'));
    return s === undefined ? 0 : 2 ** s;
  };
  const ops = nodes.flatMap((node, i) => {
    // A view costs nothing and can run as soon as what it shows is there.
    if (node.kind !== 'op' || node.outputs.every((out) => out.alias)) return [];
    const reads = node.inputs.reduce((mask, value) => mask | bitOf(value), 0);
    const makes = node.outputs.reduce((mask, out, k) => mask | (out.alias ? 0 : bitOf([i, k])), 0);
    return [{ reads, makes, costNs: node.costNs, workspace: node.workspaceBytes ?? 0 }];
  });
  const results = graph.outputs.reduce((mask, value) => mask | bitOf(value), 0);
  const size = (mask: number): number =>
    bytes.reduce((sum, each, s) => sum + (mask & (2 ** s) ? each : 0), 0);

  const width = 2 ** bytes.length;
  const best = new Map<number, number>([[0, 0]]);
  const queue: { cost: number; state: number }[] = [{ cost: 0, state: 0 }];
  const reach = (cost: number, done: number, mask: number) => {
    const state = done * width + mask;
    if ((best.get(state) ?? Number.POSITIVE_INFINITY) <= cost) return;
    best.set(state, cost);
    let at = queue.length;
    while (at > 0 && queue[at - 1]!.cost < cost) at--;
    queue.splice(at, 0, { cost, state });
  };
  for (let entry = queue.pop(); entry; entry = queue.pop()) {
    const { cost, state } = entry;
    if (cost > (best.get(state) ?? 0)) continue;
    const done = Math.floor(state / width);
    const mask = state % width;
    if (done === ops.length && (mask & results) === results) return cost;
    for (let s = 0; s < bytes.length; s++) if (mask & (2 ** s)) reach(cost, done, mask & ~(2 ** s));
    for (let i = 0; i <= done && i < ops.length; i++) {
      const { reads, makes, costNs, workspace } = ops[i]!;
      if ((mask & reads) !== reads || size(mask | makes) + workspace > budget) continue;
      reach(cost + (i < done ? costNs : 0), Math.max(done, i + 1), mask | makes);
    }
  }
  return Number.POSITIVE_INFINITY;
}
