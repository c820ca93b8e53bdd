/**
 * Fusion: walks the nodes in order and lets each pointwise or row node join the kernel that made its
 * latest input, or a neighbour that reads the same data. A joined node runs where that kernel ran; a
 * value that only members of its own kernel read is never stored.
 */

import { type Graph, type Node, type Value, liveOutputs, usesOf } from '../ir/graph.ts';
import { avalBytes } from '../ir/aval.ts';
import { e } from '../ir/expr.ts';
import { baseOf } from './base-value.ts';
import {
  type InlineSource,
  type KernelGroup,
  absorb,
  fits,
  groupOf,
  innerOutput,
  fillOf,
  templateOf,
} from './kernel-group.ts';

/** One step of the program: a fused kernel, a routine, a move out of memory or back, or a view (no code, kept for layouts). */
export type FusedStep =
  | { readonly kind: 'kernel'; readonly group: KernelGroup }
  | { readonly kind: 'routine'; readonly node: Node }
  | { readonly kind: 'transfer'; readonly node: Node }
  | { readonly kind: 'view'; readonly node: Node }
  | { readonly kind: 'source'; readonly node: Node };

/** How many steps a node may move forward to join a kernel, and in what distance neighbours are sought. */
const reach = 24;
const neighbourReach = 3;

export interface FuseOptions {
  /** One kernel per node when false: for bisection. */
  readonly enabled: boolean;
}

export function fuse(graph: Graph, options: FuseOptions): FusedStep[] {
  const steps: FusedStep[] = [];
  /** Step that makes each value. */
  const madeAt = new Map<Value, number>();
  const uses = usesOf(graph);
  const readAt = new Map<Value, number>();
  const fills = options.enabled ? inlineFills(graph, uses) : new Map<Value, InlineSource>();
  const context: Context = { steps, madeAt, uses, readAt, fills };
  for (const node of graph.nodes) {
    if (node.outputs.length > 0 && node.outputs.every((value) => fills.has(value))) continue;
    const at = placeNode(node, context, options);
    for (const value of node.outputs) madeAt.set(value, at);
    for (const value of node.inputs.map(baseOf)) {
      readAt.set(value, Math.max(at, readAt.get(value) ?? 0));
    }
  }
  dropUnread(graph, steps, uses);
  return steps;
}

interface Context {
  readonly steps: FusedStep[];
  readonly madeAt: Map<Value, number>;
  readonly uses: ReadonlyMap<Value, readonly Node[]>;
  /** Last step so far that reads the memory of each value that is no view. */
  readonly readAt: Map<Value, number>;
  /** Values that are one number everywhere and never stored. */
  readonly fills: ReadonlyMap<Value, InlineSource>;
}

/** Fills, and views of fills, that only kernels read: each reader computes the number itself. */
function inlineFills(
  graph: Graph,
  uses: ReadonlyMap<Value, readonly Node[]>,
): Map<Value, InlineSource> {
  const found = new Map<Value, InlineSource>();
  const live = liveOutputs(graph);
  for (const node of graph.nodes) {
    const value = node.outputs[0];
    const source = node.inputs[0] && found.get(node.inputs[0]);
    if (node.op?.lower.kind === 'view' && value && source) found.set(value, source);
    const template = node.op?.traits.class === 'creation' ? templateOf(node) : undefined;
    const expr = template && fillOf(template);
    if (value && expr) {
      found.set(value, { axes: undefined, expr: e.stored(expr, value.aval.dtype) });
    }
  }
  for (const node of [...graph.nodes].reverse()) {
    for (const value of node.outputs) {
      if (!found.has(value)) continue;
      const inlinable = (uses.get(value) ?? []).every((reader) =>
        reader.op?.lower.kind === 'view'
          ? reader.outputs.every((output) => found.has(output))
          : reader.op?.lower.kind === 'kernel' && !overwrites(reader, value),
      );
      if (live.has(value) || !inlinable) found.delete(value);
    }
  }
  return found;
}

function overwrites(node: Node, value: Value): boolean {
  return (node.op?.traits.updates ?? []).some((pair) => node.inputs[pair.input] === value);
}

function placeNode(node: Node, context: Context, options: FuseOptions): number {
  const { steps } = context;
  if (!node.op) return steps.push({ kind: 'source', node }) - 1;
  if (node.op.lower.kind === 'view') return steps.push({ kind: 'view', node }) - 1;
  if (node.op.lower.kind === 'transfer') return steps.push({ kind: 'transfer', node }) - 1;
  const template = templateOf(node);
  if (!template) return steps.push({ kind: 'routine', node }) - 1;
  if (options.enabled) {
    const joined = tryJoin(node, context);
    if (joined !== undefined) return joined;
  }
  return steps.push({ kind: 'kernel', group: groupOf(node, template, context.fills) }) - 1;
}

function tryJoin(node: Node, context: Context): number | undefined {
  const { steps, madeAt } = context;
  const latest = Math.max(-1, ...node.inputs.map((value) => sourceStep(value, context)));
  const candidates: number[] = [];
  if (latest >= 0 && steps.length - latest <= reach) candidates.push(latest);
  for (let at = steps.length - 1; at > latest && steps.length - at <= neighbourReach; at--) {
    if (sharesInput(steps[at], node)) candidates.push(at);
  }
  const template = templateOf(node);
  if (!template) return undefined;
  for (const at of candidates) {
    const step = steps[at];
    if (step?.kind !== 'kernel' || !mayMove(node, at, step.group, context)) continue;
    if (!fits(step.group, node, template)) continue;
    const inlined = new Map<Value, InlineSource>(context.fills);
    let readable = true;
    for (const value of node.inputs) {
      if (madeAt.get(value) !== at) continue;
      const source = innerOutput(step.group, value);
      if (source) inlined.set(value, source);
      else readable = false;
    }
    if (readable && absorb(step.group, node, template, inlined)) return at;
  }
  return undefined;
}

/** The step after which a value can be read; views count as the step of what they view. */
function sourceStep(value: Value, context: Context): number {
  return context.madeAt.get(value) ?? -1;
}

function sharesInput(step: FusedStep | undefined, node: Node): boolean {
  if (step?.kind !== 'kernel') return false;
  return node.inputs.some(
    (value) => step.group.operands.includes(value) && avalBytes(value.aval) >= 1024,
  );
}

/** Moving a node forward must not overwrite what a step in between still reads, nor lengthen lives much. */
function mayMove(node: Node, at: number, group: KernelGroup, context: Context): boolean {
  for (const { input } of node.op?.traits.updates ?? []) {
    const target = node.inputs[input];
    if (!target) continue;
    const base = baseOf(target);
    if ((context.readAt.get(base) ?? -1) > at) return false;
    // Inside one kernel the old value may only be read at the very point that is written.
    if (
      group.operands.some((value) => baseOf(value) === base) ||
      group.outputs.some((out) => out.value === base)
    ) {
      return false;
    }
  }
  // A member that is updated in place elsewhere in this group must not be read by the newcomer.
  const overwritten = group.nodes.flatMap((member) =>
    (member.op?.traits.updates ?? []).flatMap((pair) => {
      const target = member.inputs[pair.input];
      return target ? [baseOf(target)] : [];
    }),
  );
  if (node.inputs.some((value) => overwritten.includes(baseOf(value)))) return false;
  return group.nodes[0]?.meta.phase === node.meta.phase;
}

/** Values that only their own kernel reads are not stored. */
function dropUnread(
  graph: Graph,
  steps: readonly FusedStep[],
  uses: ReadonlyMap<Value, readonly Node[]>,
): void {
  const live = liveOutputs(graph);
  for (const step of steps) {
    if (step.kind !== 'kernel') continue;
    const members = new Set(step.group.nodes);
    const updated = new Set(
      step.group.nodes.flatMap((node) =>
        (node.op?.traits.updates ?? []).map((pair) => node.outputs[pair.out]),
      ),
    );
    const kept = step.group.outputs.filter(
      ({ value }) =>
        live.has(value) ||
        updated.has(value) ||
        (uses.get(value) ?? []).some((reader) => !members.has(reader)),
    );
    if (kept.length > 0) step.group.outputs.splice(0, step.group.outputs.length, ...kept);
  }
}
