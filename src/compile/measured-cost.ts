/**
 * Costs measured on the backend at hand: the nodes of a planner op run as a little program of their own
 * on zeros, several times, and the median counts. Equal programs are measured once and remembered by the
 * backend.
 */

import { OutOfMemoryError, definite } from '../core/errors.ts';
import { type Graph, GraphBuilder, type Node, type Value } from '../ir/graph.ts';
import { printGraph } from '../ir/print.ts';
import type { Block } from '../runtime/allocator.ts';
import type { Backend, Program } from '../runtime/backend.ts';
import { baseOf } from './base-value.ts';
import { type CostModel, rooflineCost } from './cost-model.ts';
import { fuse } from './fuse.ts';
import { NodeCopier } from './node-copier.ts';
import { place } from './place.ts';
import { programSteps } from './program-steps.ts';

const warmRuns = 2;
const timedRuns = 5;

/** A cost model for `backend`. Work that the backend cannot run alone is priced by rooflineCost. */
export function measuredCost(backend: Backend): CostModel {
  const { costs } = backend;
  return (nodes, reads, writes) => {
    const { costNs, hard } = rooflineCost(nodes, reads, writes);
    const graph = graphOf(nodes, reads, writes);
    const key = printGraph(graph);
    const known = costs.get(key);
    if (known !== undefined) return { costNs: known, hard };
    const measured = Math.round(measure(backend, graph) ?? costNs);
    costs.set(key, measured);
    return { costNs: measured, hard };
  };
}

/** The nodes as a step of their own. What they read is state, so that in-place ops work in place. */
function graphOf(nodes: readonly Node[], reads: readonly Value[], writes: readonly Value[]): Graph {
  const builder = new GraphBuilder();
  const copier = new NodeCopier(builder);
  reads.forEach((value, i) => {
    if (copier.latest.has(value)) return;
    copier.latest.set(value, builder.input(`read${i}`, value.aval, 'state'));
  });
  const emit = (node: Node): void => {
    // Fills are written into the kernels that read them and stand in no list.
    for (const base of node.inputs.map(baseOf)) if (!copier.latest.has(base)) emit(base.node);
    copier.copy(node, node.meta, copier.latest);
  };
  for (const node of nodes) emit(node);
  return builder.build(
    writes.map((value) => copier.find(value)),
    [],
  );
}

/** Median nanoseconds of a run; undefined when its buffers do not fit beside what is in memory. */
function measure(backend: Backend, graph: Graph): number | undefined {
  const placement = place(graph, fuse(graph, { enabled: true }));
  const blocks: Block[] = [];
  try {
    for (const { bytes } of placement.buffers) {
      const block = backend.allocator.alloc(bytes, 'temporary');
      blocks.push(block);
      backend.fillZero({ block, byteOffset: 0 }, bytes);
    }
    const slotOf = new Map(placement.buffers.map((buffer, slot) => [buffer, slot]));
    for (const { buffer, tensor } of placement.constants) {
      const block = definite(blocks[definite(slotOf.get(buffer))]);
      backend.write({ block, byteOffset: 0 }, tensor.data, tensor.dtype);
    }
    const steps = programSteps(backend, placement.steps, (buffer) => ({
      slot: definite(slotOf.get(buffer)),
      byteOffset: 0,
    }));
    return medianRun(backend.createProgram(steps), blocks);
  } catch (error) {
    if (error instanceof OutOfMemoryError) return undefined;
    throw error;
  } finally {
    for (const block of blocks) backend.allocator.free(block);
  }
}

function medianRun(program: Program, blocks: readonly Block[]): number {
  try {
    for (let i = 0; i < warmRuns; i++) program.run(blocks);
    const times = Array.from({ length: timedRuns }, () => {
      const began = performance.now();
      program.run(blocks);
      return performance.now() - began;
    });
    return 1e6 * definite(times.sort((a, b) => a - b)[timedRuns >> 1]);
  } finally {
    program.dispose();
  }
}
