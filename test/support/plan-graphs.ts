/** Graphs for tests of the planner: made by code, random by seed, and traced ones from test/fixtures/plan. */

import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import type { PlanGraph, PlanNode, ValueRef } from '../../src/plan/graph.ts';
import { readJointGraph } from '../../src/plan/joint-graph.ts';

/** An op with one output; `node` overrides what is usual. */
export function op(
  label: string,
  inputs: readonly (number | ValueRef)[],
  bytes: number | readonly number[],
  node: Partial<PlanNode> = {},
): PlanNode {
  const sizes = typeof bytes === 'number' ? [bytes] : bytes;
  return {
    kind: 'op',
    phase: 'forward',
    inputs: inputs.map((value) => (typeof value === 'number' ? [value, 0] : value)),
    outputs: sizes.map((size) => ({ bytes: size })),
    costNs: 10,
    hard: false,
    label,
    ...node,
  };
}

/** A constant of 1,000 bytes, which no plan counts. */
export const constant: PlanNode = op('input', [], 1000, { kind: 'constant', costNs: 0 });

/** A view of output 0 of `of`. */
export function view(label: string, of: number, node: Partial<PlanNode> = {}): PlanNode {
  return op(label, [of], 0, { outputs: [{ bytes: 0, alias: [of, 0] }], costNs: 0, ...node });
}

/**
 * A chain of `layers` ops of `bytes` and `costNs` each, and its backward: the gradient of a layer reads the
 * gradient above it and the layer's input. The last gradient is the result.
 */
export function chain(layers: number, bytes = 100, costNs = 10): PlanGraph {
  const nodes: PlanNode[] = [constant];
  for (let i = 1; i <= layers; i++) nodes.push(op(`f${i}`, [i - 1], bytes, { costNs, hard: true }));
  for (let i = layers; i >= 1; i--) {
    const above = i === layers ? layers : nodes.length - 1;
    const reads = i === layers ? [i - 1, i] : [i - 1, above];
    nodes.push(op(`b${i}`, reads, bytes, { costNs, hard: true, phase: 'backward' }));
  }
  return { nodes, outputs: [[nodes.length - 1, 0]] };
}

/** Numbers in 0..1 from a seed (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Any execution order: several outputs, views, dead values, ops without cost or bytes, results anywhere. */
export function randomGraph(seed: number, size: number): PlanGraph {
  const random = randomNumbers(seed);
  const below = (limit: number) => Math.floor(random() * limit);
  const nodes: PlanNode[] = [constant];
  for (let i = 1; i <= size; i++) {
    const far = random() < 0.3;
    const pick = (): ValueRef => {
      const node = far ? below(i) : Math.max(0, i - 1 - below(4));
      return [node, below(nodes[node]?.outputs.length ?? 1)];
    };
    if (random() < 0.15) {
      const of = pick();
      nodes.push(view(`v${i}`, of[0], { inputs: [of], outputs: [{ bytes: 0, alias: of }] }));
      continue;
    }
    const sizes = Array.from({ length: random() < 0.15 ? 2 : 1 }, () => below(10) * 10);
    nodes.push(
      op(`n${i}`, Array.from({ length: 1 + below(3) }, pick), sizes, {
        costNs: random() < 0.1 ? 0 : 1 + below(20),
        hard: random() < 0.3,
        phase: i > size / 2 ? 'backward' : 'forward',
        ...(random() < 0.1 ? { workspaceBytes: below(50) } : {}),
      }),
    );
  }
  const outputs: ValueRef[] = [[size, 0]];
  if (random() < 0.5) outputs.push([1 + below(size), 0]);
  return { nodes, outputs };
}

/** A traced training step of a two-layer Llama, as parsed JSON. */
export function tracedJson(name: 'llama-tiny-2L-aten' | 'llama-tiny-2L-inductor'): unknown {
  return JSON.parse(gunzipSync(readFileSync(tracedFile(name))).toString());
}

export function tracedFile(name: string): URL {
  return new URL(`../fixtures/plan/${name}.json.gz`, import.meta.url);
}

export function tracedGraph(name: 'llama-tiny-2L-aten' | 'llama-tiny-2L-inductor'): PlanGraph {
  return readJointGraph(tracedJson(name));
}
