/**
 * Turns a planner's schedule back into a graph: the first run of a planner op emits its nodes, each
 * further run emits copies, and every reader gets the latest copy of what it reads. A value that is brought back
 * later on is set aside when it is made. Optimizer updates
 * come last, so that no repeated run finds a parameter changed; scheduling moves them up to where they
 * may run.
 */

import { definite } from '../core/errors.ts';
import { type Graph, GraphBuilder, type Node, type Value } from '../ir/graph.ts';
import type { Step } from '../plan/graph.ts';
import { baseOf } from './base-value.ts';
import { NodeCopier } from './node-copier.ts';
import type { RematGraph, SetAsideValue } from './remat-graph.ts';
import { bringBack, setAside } from './set-aside.ts';

export interface ReplayedGraph {
  readonly graph: Graph;
  /** Compressed values that forward would read rounded: the graph is not what the user wrote. */
  readonly spoilt: ReadonlySet<Value>;
}

/** `schedule` counts the nodes of `remat.plan`, which was made of `graph`; frees follow from the order. */
export function replaySchedule(
  graph: Graph,
  remat: RematGraph,
  schedule: readonly Step[],
): ReplayedGraph {
  const replay = new Replay(remat, schedule);
  for (const node of graph.nodes) if (node.kind !== 'op') replay.first(node);
  for (const [kind, index] of schedule) if (kind === 'run') replay.run(index);
  return { graph: replay.finish(graph), spoilt: replay.spoilt };
}

class Replay {
  readonly spoilt = new Set<Value>();
  readonly #builder = new GraphBuilder();
  readonly #copier = new NodeCopier(this.#builder);
  readonly #remat: RematGraph;
  /** Ids in the new graph of first runs. */
  readonly #firstIds = new Map<Node, number>();
  readonly #putOff = new Set<Node>();
  /** Values that are set aside, by the planner op that makes them, with the runs that bring them back, still to come. */
  readonly #asides = new Map<number, SetAside[]>();
  readonly #asideOf = new Map<number, SetAside>();
  /** Compressed values that a value of the new graph was computed from, where there are any. */
  readonly #rounded = new Map<Value, ReadonlySet<Value>>();

  constructor(remat: RematGraph, schedule: readonly Step[]) {
    this.#remat = remat;
    if (remat.returns.size === 0) return;
    for (const [index, value] of remat.returns) {
      const maker = definite(remat.plan.nodes[index]?.inputs[0])[0];
      const aside: SetAside = { ...value, maker, waits: [], here: false, parts: [] };
      this.#asideOf.set(index, aside);
      this.#asides.set(maker, [...(this.#asides.get(maker) ?? []), aside]);
    }
    for (const [kind, index] of schedule) {
      if (kind !== 'run') continue;
      for (const aside of this.#asides.get(index) ?? []) aside.waits.push(-1);
      // The first one after a run of the maker finds the value there.
      const waits = this.#asideOf.get(index)?.waits;
      if (waits) waits[waits.length - 1] = definite(waits.at(-1)) + 1;
    }
  }

  first(node: Node): void {
    if (this.#firstIds.has(node)) return;
    this.#copy(node, node.meta, this.#copier.latest);
    this.#firstIds.set(node, this.#builder.nodes.length - 1);
  }

  run(index: number): void {
    const returning = this.#asideOf.get(index);
    if (returning) {
      this.#bringBack(returning);
      return;
    }
    const members = definite(this.#remat.members[index]);
    const last = definite(members.at(-1));
    if (this.#remat.waiting.has(last)) {
      for (const node of members) this.#putOff.add(node);
    } else if (this.#firstIds.has(last)) this.#again(members);
    else for (const node of members) this.first(node);
    for (const aside of this.#asides.get(index) ?? []) this.#setAside(aside);
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
      this.#copy(node, { ...node.meta, phase: 'backward', recomputeOf }, copies);
    }
    for (const [value, copy] of copies) this.#copier.latest.set(value, copy);
  }

  /** The maker has run: its value is there, and is set aside if it will be brought back before the next run. */
  #setAside(aside: SetAside): void {
    aside.here = true;
    const { value } = aside;
    const returns = definite(aside.waits.shift());
    if (returns > 0) aside.parts = setAside(this.#builder, this.#copier.find(value), aside.aside);
  }

  #bringBack(aside: SetAside): void {
    if (aside.here) {
      aside.here = false;
      return;
    }
    const { value, parts } = aside;
    const maker = definite(this.#firstIds.get(value.node));
    const made = bringBack(this.#builder, parts, value, aside.aside, maker);
    this.#copier.latest.set(value, made);
    if (aside.aside === 'offload') return;
    this.#rounded.set(made, new Set([value, ...(this.#rounded.get(made) ?? [])]));
  }

  /** Copies a node and notes what it was computed from. */
  #copy(node: Node, meta: Node['meta'], table: Map<Value, Value>): void {
    this.#copier.copy(node, meta, table);
    if (this.#rounded.size === 0) return;
    const own = definite(this.#builder.nodes.at(-1));
    const sources = new Set(
      own.inputs.flatMap((input) => [...(this.#rounded.get(baseOf(input)) ?? [])]),
    );
    if (sources.size === 0) return;
    for (const output of own.outputs) this.#rounded.set(output, sources);
    if (meta.phase === 'forward') for (const value of sources) this.spoilt.add(value);
  }
}

interface SetAside extends SetAsideValue {
  readonly maker: number;
  /** For each run of the maker to come: how often the value is brought back after it. */
  readonly waits: number[];
  /** The maker has just run. */
  here: boolean;
  parts: readonly Value[];
}
