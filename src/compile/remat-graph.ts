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
import type { AsideChoices } from './aside-choices.ts';
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
  const { graph, fused: steps, placement } = base;
  const stored = storedValues(steps);
  const waiting = updatesThatCanWait(graph);
  const once = nodesThatRunOnce(graph, waiting);
  const donors = donorsOf(base, stored);
  for (const [value, donor] of donors) once.add(value.node).add(donor.node);
  const results = new Set(graph.results.map(baseOf));
  const takenOver = new Set(donors.values());
  const returns = new Map<number, SetAsideValue>();
  const costs = new Map<Node, number>();
  let freeNs = 0;
  const nodes: PlanNode[] = [];
  const members: Node[][] = [];
  const refs = new Map<Value, readonly [number, number]>();
  /** A value and those whose memory it has taken over: reading it needs them all. */
  const holdersOf = (value: Value): (readonly [number, number])[] => {
    const ref = refs.get(value);
    invariant(ref, () => `a value that is read is not stored (%${value.node.id})`);
    const donor = donors.get(value);
    return donor ? [ref, ...holdersOf(donor)] : [ref];
  };
  const add = (node: Node, plan: PlanNode, runs: Node[]): void => {
    node.outputs.forEach((value, i) => refs.set(value, [nodes.length, i]));
    nodes.push(plan);
    members.push(runs);
  };
  for (const node of nodesInOrder(steps)) {
    if (node.kind !== 'op') {
      add(node, constantNode(node), []);
      continue;
    }
    if (!node.outputs.some((value) => stored.has(value))) continue;
    const { runs, reads } = closure(node, stored);
    const inputs = reads.flatMap((value) => holdersOf(value));
    const state = stateOutputs(node);
    const outputs = node.outputs.map((value, i) => {
      const own = stored.has(value) && !donors.has(value);
      const counts = own && !state.has(i) && !results.has(value);
      return { bytes: counts ? alignBytes(avalBytes(value.aval)) : 0 };
    });
    const asked = options.ruleOf(node);
    const rule = runs.some((run) => once.has(run)) ? 'keep' : asked;
    const writes = node.outputs.filter((value) => stored.has(value));
    const cost = options.costOf(runs, reads, writes);
    costs.set(node, cost.costNs);
    const repeatNs = reads.reduce((sum, { node }) => sum + (costs.get(node) ?? 0), cost.costNs);
    const asides = node.outputs.map((value) => {
      const buffer = placement.buffersOf.get(value);
      const apart = stored.has(value) && !donors.has(value) && !takenOver.has(value);
      if (!options.asides || !apart || buffer?.kind !== 'arena') return undefined;
      const ordered = options.asides.ordered(value);
      return ordered ?? (asked === 'free' ? options.asides.optional(value, repeatNs) : undefined);
    });
    const workspaceBytes = outputs.reduce((sum, { bytes }, i) => sum + (asides[i] ? bytes : 0), 0);
    add(
      node,
      {
        kind: 'op',
        phase: node.meta.phase === 'forward' ? 'forward' : 'backward',
        inputs,
        outputs: outputs.map((output, i) => (asides[i] ? { bytes: asides[i].bytes } : output)),
        ...cost,
        ...(workspaceBytes > 0 && { workspaceBytes }),
        recompute: rule !== 'keep',
        drop: rule === 'drop',
        label: node.op?.name ?? '',
        module: node.meta.module,
      },
      runs,
    );
    const made = nodes.length - 1;
    for (const [i, aside] of asides.entries()) {
      const [value, output] = [node.outputs[i], outputs[i]];
      if (!aside || !value || !output) continue;
      refs.set(value, [nodes.length, 0]);
      returns.set(nodes.length, { value, aside: aside.aside });
      freeNs += aside.costNs;
      nodes.push({
        kind: 'op',
        phase: 'forward',
        inputs: [[made, i]],
        outputs: [output],
        costNs: aside.costNs,
        hard: false,
        drop: aside.ordered,
        label: 'return',
        module: node.meta.module,
      });
      members.push([]);
    }
  }
  const outputs = [...liveOutputs(graph)].flatMap((value) => holdersOf(baseOf(value)));
  return { plan: { nodes, outputs }, members, waiting, returns, freeNs };
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
