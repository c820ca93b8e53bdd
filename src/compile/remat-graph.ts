/**
 * A training step as the planner sees it: one planner op for each graph node whose values the fused
 * program stores, together with what its kernel computes on the way and stores nowhere. So the bytes
 * that the planner counts are those of the buffers that will exist, and values that fusion
 * makes free are free. Views are no ops: they lie in what they view.
 *
 * A value that may be set aside is two ops. The one that computes it leaves a token that stands for it (no bytes for a file,
 * few for a compressed form), the next one makes the value from the token, and everybody reads that. The first run of the second is no
 * work, the value is just there; a further run brings it back.
 */

import { invariant } from '../core/errors.ts';
import { avalBytes } from '../ir/aval.ts';
import { type Graph, type Node, type Value, liveOutputs } from '../ir/graph.ts';
import type { PlanGraph, PlanNode } from '../plan/graph.ts';
import { alignBytes } from '../runtime/allocator.ts';
import type { AsideChoice, AsideChoices } from './aside-choices.ts';
import { baseOf } from './base-value.ts';
import type { CostModel } from './cost-model.ts';
import type { FusedStep } from './fuse.ts';
import type { Placement } from './placement.ts';
import type { Aside } from './set-aside.ts';

export interface RematGraph {
  readonly plan: PlanGraph;
  /** For each planner node: the graph nodes that one run of it computes, producers first. */
  readonly members: readonly (readonly Node[])[];
  /** Nodes of optimizer updates, which can run after every reader of what they overwrite. */
  readonly waiting: ReadonlySet<Node>;
  /** Planner nodes that bring a value back, and the value. */
  readonly returns: ReadonlyMap<number, SetAsideValue>;
  /** Cost of the first runs of those, which are none. */
  readonly freeNs: number;
}

export interface SetAsideValue {
  readonly value: Value;
  readonly aside: Aside;
}

/** What the planner may do with the values of a node: 'free' leaves it the choice. */
export type RematRule =
  | 'free'
  /** Never computed twice: the value stays for as long as anybody reads it. */
  | 'keep'
  /** Not kept from forward to backward. */
  | 'drop';

/** The step with nothing recomputed, lowered. */
export interface RematBase {
  readonly graph: Graph;
  readonly fused: readonly FusedStep[];
  readonly placement: Placement;
}

export interface RematOptions {
  readonly costOf: CostModel;
  /** What the caller's regions and policies say; ops that must not run twice are kept in any case. */
  readonly ruleOf: (node: Node) => RematRule;
  /** What may be set aside; undefined for nothing. */
  readonly asides?: AsideChoices | undefined;
}

export function rematGraph(base: RematBase, options: RematOptions): RematGraph {
  return new Builder(base, options).build();
}

/** A node and an output of it, of the planner's graph. */
type Ref = readonly [number, number];

class Builder {
  readonly #base: RematBase;
  readonly #options: RematOptions;
  readonly #stored: ReadonlySet<Value>;
  readonly #donors: ReadonlyMap<Value, Value>;
  /** Values whose memory another one takes over. */
  readonly #takenOver: ReadonlySet<Value>;
  readonly #results: ReadonlySet<Value>;
  readonly #waiting: ReadonlySet<Node>;
  readonly #once: ReadonlySet<Node>;
  readonly #nodes: PlanNode[] = [];
  readonly #members: Node[][] = [];
  readonly #refs = new Map<Value, Ref>();
  readonly #costs = new Map<Node, number>();
  readonly #returns = new Map<number, SetAsideValue>();
  #freeNs = 0;

  constructor(base: RematBase, options: RematOptions) {
    const { graph, fused } = base;
    this.#base = base;
    this.#options = options;
    this.#stored = storedValues(fused);
    this.#donors = donorsOf(base, this.#stored);
    this.#takenOver = new Set(this.#donors.values());
    this.#results = new Set(graph.results.map(baseOf));
    this.#waiting = updatesThatCanWait(graph);
    const once = nodesThatRunOnce(graph, this.#waiting);
    for (const [value, donor] of this.#donors) once.add(value.node).add(donor.node);
    this.#once = once;
  }

  build(): RematGraph {
    for (const node of nodesInOrder(this.#base.fused)) {
      if (node.kind !== 'op') this.#add(node, constantNode(node), []);
      else if (node.outputs.some((value) => this.#stored.has(value))) this.#addOp(node);
    }
    const outputs = [...liveOutputs(this.#base.graph)].flatMap((value) =>
      this.#holdersOf(baseOf(value)),
    );
    return {
      plan: { nodes: this.#nodes, outputs },
      members: this.#members,
      waiting: this.#waiting,
      returns: this.#returns,
      freeNs: this.#freeNs,
    };
  }

  #addOp(node: Node): void {
    const { costOf, ruleOf } = this.#options;
    const { runs, reads } = closure(node, this.#stored);
    const asked = ruleOf(node);
    const rule = runs.some((run) => this.#once.has(run)) ? 'keep' : asked;
    const writes = node.outputs.filter((value) => this.#stored.has(value));
    const cost = costOf(runs, reads, writes);
    this.#costs.set(node, cost.costNs);
    const repeatNs = reads.reduce(
      (sum, { node: maker }) => sum + (this.#costs.get(maker) ?? 0),
      cost.costNs,
    );
    const bytes = this.#bytesOf(node);
    const asides = node.outputs.map((value) => this.#asideOf(value, asked, repeatNs));
    const workspaceBytes = bytes.reduce((sum, size, i) => sum + (asides[i] ? size : 0), 0);
    const made = this.#nodes.length;
    this.#add(
      node,
      {
        kind: 'op',
        phase: node.meta.phase === 'forward' ? 'forward' : 'backward',
        inputs: reads.flatMap((value) => this.#holdersOf(value)),
        outputs: bytes.map((size, i) => ({ bytes: asides[i]?.bytes ?? size })),
        ...cost,
        ...(workspaceBytes > 0 && { workspaceBytes }),
        recompute: rule !== 'keep',
        drop: rule === 'drop',
        label: node.op?.name ?? '',
        module: node.meta.module,
      },
      runs,
    );
    node.outputs.forEach((value, i) => {
      const aside = asides[i];
      if (aside) this.#addReturn(value, aside, [made, i], bytes[i] ?? 0);
    });
  }

  /** What brings `value` back, of so many bytes, from the token `from`. */
  #addReturn(value: Value, choice: AsideChoice, from: Ref, bytes: number): void {
    const { aside, costNs, ordered } = choice;
    this.#refs.set(value, [this.#nodes.length, 0]);
    this.#returns.set(this.#nodes.length, { value, aside });
    this.#freeNs += costNs;
    this.#nodes.push({
      kind: 'op',
      phase: 'forward',
      inputs: [from],
      outputs: [{ bytes }],
      costNs,
      hard: false,
      drop: ordered,
      label: 'return',
      module: value.node.meta.module,
    });
    this.#members.push([]);
  }

  #add(node: Node, plan: PlanNode, runs: Node[]): void {
    node.outputs.forEach((value, i) => this.#refs.set(value, [this.#nodes.length, i]));
    this.#nodes.push(plan);
    this.#members.push(runs);
  }

  /** Per output of `node`: the bytes that the step pays for it. */
  #bytesOf(node: Node): number[] {
    const state = stateOutputs(node);
    return node.outputs.map((value, i) => {
      const own = this.#stored.has(value) && !this.#donors.has(value);
      const counts = own && !state.has(i) && !this.#results.has(value);
      return counts ? alignBytes(avalBytes(value.aval)) : 0;
    });
  }

  #asideOf(value: Value, asked: RematRule, repeatNs: number): AsideChoice | undefined {
    const { asides } = this.#options;
    const buffer = this.#base.placement.buffersOf.get(value);
    const apart =
      this.#stored.has(value) && !this.#donors.has(value) && !this.#takenOver.has(value);
    if (!asides || !apart || buffer?.kind !== 'arena') return undefined;
    const ordered = asides.ordered(value);
    return ordered ?? (asked === 'free' ? asides.optional(value, repeatNs) : undefined);
  }

  /** A value and those whose memory it has taken over: reading it needs them all. */
  #holdersOf(value: Value): Ref[] {
    const ref = this.#refs.get(value);
    invariant(ref, () => `a value that is read is not stored (%${value.node.id})`);
    const donor = this.#donors.get(value);
    return donor ? [ref, ...this.#holdersOf(donor)] : [ref];
  }
}

function constantNode(node: Node): PlanNode {
  return {
    kind: 'constant',
    phase: 'forward',
    inputs: [],
    outputs: node.outputs.map(() => ({ bytes: 0 })),
    costNs: 0,
    hard: false,
    label: node.label,
  };
}

function nodesInOrder(steps: readonly FusedStep[]): Node[] {
  return steps.flatMap((step) => {
    if (step.kind === 'kernel') return step.group.nodes;
    return step.kind === 'view' ? [] : [step.node];
  });
}

/** Values that have memory of their own in the fused program. */
function storedValues(steps: readonly FusedStep[]): Set<Value> {
  const stored = new Set<Value>();
  for (const step of steps) {
    if (step.kind === 'kernel') for (const { value } of step.group.outputs) stored.add(value);
    else if (step.kind !== 'view') for (const value of step.node.outputs) stored.add(value);
  }
  return stored;
}

/** `node` with the producers of all that it reads and that is not stored, and the stored values they read. */
function closure(node: Node, stored: ReadonlySet<Value>): { runs: Node[]; reads: Value[] } {
  const runs = new Set<Node>();
  const reads = new Set<Value>();
  const stack = [node];
  for (let next = stack.pop(); next; next = stack.pop()) {
    if (runs.has(next)) continue;
    runs.add(next);
    for (const input of next.inputs) {
      const base = baseOf(input);
      if (stored.has(base)) reads.add(base);
      else stack.push(base.node);
    }
  }
  return { runs: [...runs].sort((a, b) => a.id - b.id), reads: [...reads] };
}

/**
 * Values that take over the memory of one they are made of and are never made again: those of backward,
 * and sums that costly ops add to in place. In the model they have no bytes and keep that value alive, which
 * is true only as long as both are made once. Other values of forward may be worth repeating, so they count in full.
 */
function donorsOf({ placement }: RematBase, stored: ReadonlySet<Value>): Map<Value, Value> {
  const donors = new Map<Value, Value>();
  for (const value of stored) {
    const buffer = placement.buffersOf.get(value);
    if (buffer?.kind !== 'arena' || !isMadeOnce(value)) continue;
    const { reads } = closure(value.node, stored);
    const donor = reads.find(
      (read) =>
        placement.buffersOf.get(read) === buffer &&
        read.node.kind === 'op' &&
        (isMadeOnce(read) || updatesInPlace(value)),
    );
    if (donor) donors.set(value, donor);
  }
  return donors;
}

function isMadeOnce(value: Value): boolean {
  return value.node.meta.phase !== 'forward' || updatesInPlace(value);
}

function updatesInPlace({ node, index }: Value): boolean {
  const { class: kind, updates = [] } = node.op?.traits ?? {};
  return kind !== 'elementwise' && updates.some((pair) => pair.out === index);
}

/** Outputs of in-place ops that lie in persistent state: the step does not pay for them. */
function stateOutputs(node: Node): Set<number> {
  const found = new Set<number>();
  for (const { input, out } of node.op?.traits.updates ?? []) {
    const target = node.inputs[input];
    if (target && liesInState(target)) found.add(out);
  }
  return found;
}

function liesInState(value: Value): boolean {
  for (let base = baseOf(value); ; ) {
    if (base.node.kind === 'state') return true;
    const update = base.node.op?.traits.updates?.find((pair) => pair.out === base.index);
    const target = update && base.node.inputs[update.input];
    if (!target) return false;
    base = baseOf(target);
  }
}

/**
 * Nodes that may not run again: those whose op says so, those that change state, and readers of state
 * that is changed under way; updates that can wait for their readers are no obstacle.
 */
function nodesThatRunOnce(graph: Graph, waiting: ReadonlySet<Node>): Set<Node> {
  const overwritten = new Set<Value>();
  const once = new Set<Node>();
  for (const node of graph.nodes) {
    const traits = node.op?.traits;
    if (!traits) continue;
    if (traits.remat === 'never') once.add(node);
    for (const { input } of traits.updates ?? []) {
      const target = node.inputs[input];
      if (!target || !liesInState(target)) continue;
      once.add(node);
      if (!waiting.has(node)) overwritten.add(baseOf(target));
    }
  }
  for (const node of graph.nodes) {
    if (node.inputs.some((input) => overwritten.has(baseOf(input)))) once.add(node);
  }
  return once;
}

/** Optimizer updates and what the optimizer does with their results; none if anything else reads those. */
function updatesThatCanWait(graph: Graph): Set<Node> {
  const waiting = new Set<Node>();
  for (const node of graph.nodes) {
    const reads = node.inputs.some((input) => waiting.has(input.node));
    if (reads && node.meta.phase !== 'optimizer' && node.op?.lower.kind !== 'view') {
      return new Set();
    }
    const updates = (node.op?.traits.updates ?? []).length > 0;
    if (reads || (updates && node.meta.phase === 'optimizer')) waiting.add(node);
  }
  return waiting;
}
