/**
 * Turns a planner's schedule back into a graph: the first run of a planner op emits its nodes, each
 * further run emits copies, and every reader gets the latest copy of what it reads. Optimizer updates
 * come last, so that no repeated run finds a parameter changed; scheduling moves them up to where they
 * may run.
 */

import { definite } from '../core/errors.ts';
import { type Graph, GraphBuilder, type Node, type Value } from '../ir/graph.ts';
import type { Step } from '../plan/graph.ts';
import { NodeCopier } from './node-copier.ts';
import type { RematGraph } from './remat-graph.ts';

/** `schedule` counts the nodes of `remat.plan`, which was made of `graph`; frees follow from the order. */
export function replaySchedule(graph: Graph, remat: RematGraph, schedule: readonly Step[]): Graph {
  const replay = new Replay(remat.waiting);
  for (const node of graph.nodes) if (node.kind !== 'op') replay.first(node);
  for (const [kind, index] of schedule) {
    if (kind === 'run') replay.run(definite(remat.members[index]));
  }
  return replay.finish(graph);
}

class Replay {
  readonly #builder = new GraphBuilder();
  readonly #copier = new NodeCopier(this.#builder);
  readonly #waiting: ReadonlySet<Node>;
  /** Ids in the new graph of first runs. */
  readonly #firstIds = new Map<Node, number>();
  readonly #putOff = new Set<Node>();

  constructor(waiting: ReadonlySet<Node>) {
    this.#waiting = waiting;
  }

  first(node: Node): void {
    if (this.#firstIds.has(node)) return;
    this.#copier.copy(node, node.meta, this.#copier.latest);
    this.#firstIds.set(node, this.#builder.nodes.length - 1);
  }

  run(members: readonly Node[]): void {
    const last = definite(members.at(-1));
    if (this.#waiting.has(last)) {
      for (const node of members) this.#putOff.add(node);
    } else if (this.#firstIds.has(last)) this.#again(members);
    else for (const node of members) this.first(node);
  }

  finish(graph: Graph): Graph {
    for (const node of graph.nodes) if (this.#putOff.has(node)) this.first(node);
    const find = (value: Value): Value => this.#copier.find(value);
    return this.#builder.build(
      graph.results.map(find),
      graph.updates.map(({ state, value }) => ({ state: find(state), value: find(value) })),
    );
  }

  #again(members: readonly Node[]): void {
    const copies = new Map<Value, Value>();
    for (const node of members) {
      const recomputeOf = definite(this.#firstIds.get(node));
      this.#copier.copy(node, { ...node.meta, phase: 'backward', recomputeOf }, copies);
    }
    for (const [value, copy] of copies) this.#copier.latest.set(value, copy);
  }
}
