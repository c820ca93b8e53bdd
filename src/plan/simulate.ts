/**
 * The verifier: replays a schedule on the graph itself and shares no arithmetic with the planner. At a run the
 * outputs are allocated while the inputs are resident; constants are not counted; views have no bytes.
 */

import { ArgumentError } from '../core/errors.ts';
import type { PlanGraph, PlanNode, Step, ValueRef } from './graph.ts';
import { buildProblem } from './problem.ts';
import { baseSequence, scheduleOf } from './sequence.ts';

export interface Simulation {
  readonly peakBytes: number;
  /** Step of the schedule during which the peak is first reached; -1 for an empty schedule. */
  readonly peakAt: number;
  readonly baseNs: number;
  readonly extraNs: number;
  readonly extraHardNs: number;
  /** Values alive at the peak, largest first. */
  readonly aliveAtPeak: readonly { readonly value: ValueRef; readonly bytes: number }[];
}

/**
 * Peak and time of a schedule.
 * @throws ArgumentError for a schedule that reads what is not resident, frees it twice, runs a constant,
 *   breaks an order of a node, or ends without the graph's outputs.
 */
export function simulate(graph: PlanGraph, schedule: readonly Step[]): Simulation {
  const resident = new Map<string, { value: ValueRef; bytes: number }>();
  const ran = new Set<number>();
  let live = 0;
  let peakBytes = 0;
  let peakAt = -1;
  let baseNs = 0;
  let extraNs = 0;
  let extraHardNs = 0;
  let aliveAtPeak: { value: ValueRef; bytes: number }[] = [];
  const drops = new DropOrders(graph);
  const rootOf = ([node, output]: ValueRef): ValueRef => {
    const alias = graph.nodes[node]?.outputs[output]?.alias;
    return alias ? rootOf(alias) : [node, output];
  };
  const need = (value: ValueRef, who: string) => {
    const [node, output] = rootOf(value);
    if (graph.nodes[node]?.kind === 'constant' || resident.has(`${node}:${output}`)) return;
    throw new ArgumentError(
      `simulate: ${who} needs a value that is not resident (got ${node}:${output}, '${graph.nodes[node]?.label}'). Run its node before, or free it later.`,
    );
  };
  schedule.forEach((step, index) => {
    const [what, nodeIndex] = step;
    const node = graph.nodes[nodeIndex];
    if (node?.kind !== 'op') {
      throw new ArgumentError(
        `simulate: step ${index} names no op (got ${step.join(' ')}). Name an op of the graph.`,
      );
    }
    if (what === 'free') {
      const name = `${nodeIndex}:${step[2]}`;
      const held = resident.get(name);
      if (!held) {
        throw new ArgumentError(
          `simulate: step ${index} frees a value that is not resident (got ${name}, '${node.label}'). Free a value once.`,
        );
      }
      live -= held.bytes;
      resident.delete(name);
      drops.freed(name);
      return;
    }
    for (const value of node.inputs) need(value, `step ${index} ('${node.label}')`);
    node.outputs.forEach((out, k) => {
      const name = `${nodeIndex}:${k}`;
      if (out.alias || resident.has(name)) return;
      resident.set(name, { value: [nodeIndex, k], bytes: out.bytes });
      live += out.bytes;
    });
    const now = live + (node.workspaceBytes ?? 0);
    if (now > peakBytes) {
      peakBytes = now;
      peakAt = index;
      aliveAtPeak = [];
    }
    if (!ran.has(nodeIndex)) {
      ran.add(nodeIndex);
      drops.ranFirst(nodeIndex, resident);
      baseNs += node.costNs;
      return;
    }
    if (node.recompute === false || node.keep === true) {
      throw new ArgumentError(
        `simulate: step ${index} runs a node again that must run once (got ${nodeIndex}, '${node.label}'). Keep its outputs.`,
      );
    }
    extraNs += node.costNs;
    if (node.hard) extraHardNs += node.costNs;
  });
  for (const value of graph.outputs) need(value, 'the end');
  aliveAtPeak = aliveAt(graph, schedule, peakAt);
  return { peakBytes, peakAt, baseNs, extraNs, extraHardNs, aliveAtPeak };
}

/** Watches that what must be dropped is not held from the last forward op to the first backward op. */
class DropOrders {
  readonly #graph: PlanGraph;
  readonly #lastForward: number;
  readonly #firstBackward: number;
  #held = new Set<string>();

  constructor(graph: PlanGraph) {
    const computes = (node: PlanNode) =>
      node.kind === 'op' && node.outputs.some((out) => out.alias === undefined);
    this.#graph = graph;
    this.#lastForward = graph.nodes.findLastIndex(
      (node) => computes(node) && node.phase === 'forward',
    );
    this.#firstBackward = graph.nodes.findIndex(
      (node, i) => i > this.#lastForward && computes(node),
    );
  }

  ranFirst(node: number, resident: ReadonlyMap<string, { value: ValueRef }>): void {
    if (node === this.#lastForward) {
      for (const [name, { value }] of resident) {
        if (this.#graph.nodes[value[0]]?.drop === true) this.#held.add(name);
      }
    }
    const [name] = this.#held;
    if (node !== this.#firstBackward || name === undefined) return;
    throw new ArgumentError(
      `simulate: the schedule holds a value that must be dropped between forward and backward (got ${name}, '${this.#graph.nodes[Number.parseInt(name, 10)]?.label}'). Free it after the last forward op.`,
    );
  }

  freed(name: string): void {
    this.#held.delete(name);
  }
}

function aliveAt(
  graph: PlanGraph,
  schedule: readonly Step[],
  at: number,
): { value: ValueRef; bytes: number }[] {
  const resident = new Map<string, { value: ValueRef; bytes: number }>();
  for (const step of schedule.slice(0, at + 1)) {
    if (step[0] === 'free') resident.delete(`${step[1]}:${step[2]}`);
    else {
      graph.nodes[step[1]]?.outputs.forEach((out, k) => {
        if (!out.alias) resident.set(`${step[1]}:${k}`, { value: [step[1], k], bytes: out.bytes });
      });
    }
  }
  return [...resident.values()].sort((a, b) => b.bytes - a.bytes || a.value[0] - b.value[0]);
}

/** The graph's own order, every storage freed after its last use, whatever the nodes' orders are. */
export function baseSchedule(graph: PlanGraph): Step[] {
  const problem = buildProblem(graph);
  return scheduleOf(problem, baseSequence(problem));
}
