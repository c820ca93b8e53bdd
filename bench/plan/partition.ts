/**
 * Reads what PyTorch's partitioner did to a joint graph: per memory budget its saved values, exact peak and what
 * it runs again. Work in matrix products and attention is found by walking back from the gradients to what is saved.
 */

import type { PlanGraph } from '../../src/plan/graph.ts';

export interface PartitionPoint {
  /** PyTorch's own setting, 0 to 1. */
  readonly setting: number;
  readonly peakBytes: number;
  readonly extraNs: number;
  readonly extraHardNs: number;
  readonly seconds: number;
}

interface Result {
  readonly budget: number | string;
  readonly saved_names?: readonly string[];
  readonly peak_bytes_excl_params: number;
  readonly recompute_est_ns: number;
  readonly partition_seconds: number;
}

/** `forwardOutputs`: how many of the graph's outputs, the first ones, belong to the forward. */
export function readPartition(
  json: { readonly results: readonly Result[] },
  graph: PlanGraph,
  forwardOutputs: number,
): PartitionPoint[] {
  const byLabel = new Map(graph.nodes.map((node, i) => [node.label, i]));
  const results = graph.outputs.map(([node]) => node);
  return json.results.flatMap((result) => {
    const { budget, saved_names: names } = result;
    if (typeof budget !== 'number' || !names) return [];
    const saved = new Set(names.map((name) => byLabel.get(name) ?? -1));
    const backward = walk(graph, results.slice(forwardOutputs), saved);
    const forward = walk(graph, [...results.slice(0, forwardOutputs), ...saved], new Set());
    let extraNs = 0;
    let extraHardNs = 0;
    for (const node of backward) {
      const { costNs, hard, kind } = graph.nodes[node] ?? { costNs: 0, hard: false };
      if (!forward.has(node) || kind !== 'op') continue;
      extraNs += costNs;
      if (hard) extraHardNs += costNs;
    }
    // Names that the graph does not have are second outputs of attention, which so is not run again.
    const notRun = extraNs - result.recompute_est_ns;
    return [
      {
        setting: budget,
        peakBytes: result.peak_bytes_excl_params,
        extraNs: result.recompute_est_ns,
        extraHardNs: Math.max(0, extraHardNs - notRun),
        seconds: result.partition_seconds,
      },
    ];
  });
}

function walk(graph: PlanGraph, from: readonly number[], stop: ReadonlySet<number>): Set<number> {
  const seen = new Set<number>();
  const pending = [...from];
  for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
    if (seen.has(node) || stop.has(node)) continue;
    seen.add(node);
    for (const [input] of graph.nodes[node]?.inputs ?? []) pending.push(input);
  }
  return seen;
}
