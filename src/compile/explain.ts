/**
 * What a compiled step does with every value that forward makes and backward needs (checkpointing.md P7):
 * kept, computed again, moved out of memory or compressed, at what price, and why; what is alive at the peak; and how memory goes over time.
 */

import { ArgumentError } from '../core/errors.ts';
import { avalBytes, formatAval } from '../ir/aval.ts';
import type { Node, NodeMeta, Phase, Value } from '../ir/graph.ts';
import { alignBytes } from '../runtime/allocator.ts';
import { baseOf } from './base-value.ts';
import type { CompiledStep } from './compile.ts';
import { rooflineCost } from './cost-model.ts';
import { type Peak, peakOf } from './peak.ts';
import { asideOf } from './set-aside.ts';
import { withTransfers } from './transfer-rates.ts';
import { type ValueAside, valuesSetAside } from './values-set-aside.ts';
import type { CompiledPlan } from './plan-step.ts';

export type ValueAction = 'saved' | 'recomputed' | 'offloaded' | 'compressed';

/** One value of forward that backward reads, or one that is computed more than once. */
export interface ExplainedValue {
  readonly action: ValueAction;
  /** Bytes that it takes while it exists. */
  readonly bytes: number;
  /** How often it is computed again, or brought back. */
  readonly repeats: number;
  /** Estimated nanoseconds of computing it once; of offloaded and compressed ones: of setting it aside and bringing it back once. */
  readonly costNs: number;
  readonly op: string;
  /** Which part of the step makes it first. Under a tight budget gradients may be made twice, too. */
  readonly phase: Phase;
  readonly module: string;
  /** Given by checkpointName. */
  readonly name: string | undefined;
  readonly aval: string;
  readonly reason: string;
}

/** Bytes in use during one launch of the step. */
export interface MemoryPoint {
  readonly bytes: number;
  readonly op: string;
  readonly module: string;
  readonly phase: Phase;
}

export interface StepReport {
  /** What a run allocates at its peak. */
  readonly peakBytes: number;
  /** The same with nothing recomputed; undefined when no planner looked at the step. */
  readonly basePeakBytes: number | undefined;
  /** What the peak was to stay within. */
  readonly budgetBytes: number | undefined;
  /** Estimated time added by what the plan does to save memory, as a share of the step without; and what is proven that any plan adds. */
  readonly extraTime: number | undefined;
  readonly extraTimeBound: number | undefined;
  readonly values: readonly ExplainedValue[];
  readonly peak: Peak;
  /** In launch order. */
  readonly timeline: readonly MemoryPoint[];
}

/** The report of the last plan of a compiled step, or of a plan. */
export function explain(
  step: Pick<CompiledStep<readonly unknown[], unknown>, 'plans'>,
): StepReport {
  const plan = step.plans.at(-1)?.plan;
  if (!plan) {
    throw new ArgumentError(
      'explain: the step has no plan yet (got one that never ran). Run it, or call prepare() with its arguments.',
    );
  }
  return explainPlan(plan);
}

export function explainPlan(plan: CompiledPlan): StepReport {
  const { choice, peakBytes } = plan;
  const extraTime = choice && choice.estimatedNs / choice.baseNs - 1;
  return {
    peakBytes,
    basePeakBytes: choice?.basePeakBytes,
    budgetBytes: choice?.budgetBytes,
    extraTime,
    // Encoding and decoding fuse with other kernels, which the planner does not count on.
    extraTimeBound:
      choice && Math.min(choice.planned.lowerBoundNs / choice.planned.baseNs, extraTime ?? 0),
    values: valuesOf(plan),
    peak: peakOf(plan),
    timeline: timelineOf(plan),
  };
}

function valuesOf(plan: CompiledPlan): ExplainedValue[] {
  const { graph, placement } = plan;
  const repeats = new Map<number, number>();
  const readLate = new Set<Value>();
  for (const node of graph.nodes) {
    const { recomputeOf, phase } = node.meta;
    if (recomputeOf !== undefined) repeats.set(recomputeOf, (repeats.get(recomputeOf) ?? 0) + 1);
    if (phase === 'forward') continue;
    for (const input of node.inputs) readLate.add(baseOf(input));
  }
  const asides = valuesSetAside(graph);
  const movers = new Set([...asides.values()].flatMap(({ nodes }) => [...nodes]));
  const found: ExplainedValue[] = [];
  for (const node of graph.nodes) {
    if (node.kind !== 'op' || !node.op || node.op.lower.kind === 'view') continue;
    const { phase, recomputeOf } = node.meta;
    // Copies, and what is there to move or compress, are told of with the value that they stand for.
    if (recomputeOf !== undefined || movers.has(node)) continue;
    const times = repeats.get(node.id) ?? 0;
    const { costNs } = rooflineCost([node], node.inputs, node.outputs);
    for (const value of node.outputs) {
      const tell = (action: ValueAction, reason: string, repeats: number, ns: number): void => {
        found.push({
          action,
          bytes: alignBytes(avalBytes(value.aval)),
          repeats,
          costNs: ns,
          op: node.op?.name ?? '',
          phase,
          module: node.meta.module,
          name: node.meta.name,
          aval: formatAval(value.aval),
          reason,
        });
      };
      const aside = asides.get(value);
      if (aside) {
        const { action, returns } = aside;
        tell(action, asideReason(aside, node, plan), returns, asideNs(aside, plan));
      }
      const stored = placement.buffersOf.get(value)?.kind === 'arena';
      const kept = times === 0 && phase === 'forward' && stored && readLate.has(value) && !aside;
      if (!kept && times === 0) continue;
      const action = kept ? 'saved' : 'recomputed';
      tell(action, reasonOf(action, node, plan), times, costNs);
    }
  }
  return found;
}

/** In words, with the place or the format. */
function asideReason({ action, format }: ValueAside, node: Node, plan: CompiledPlan): string {
  const { place, choice } = plan;
  const where = place.to === 'file' ? 'in a file' : 'in host memory';
  const how = action === 'offloaded' ? where : `in ${format}`;
  const { policy } = node.meta;
  const ordered = asideOf(policy) !== undefined;
  const name = typeof policy === 'object' ? 'compress' : policy;
  if (ordered) return `policy ${name}, ${how}`;
  return `${choice ? 'planner: saves memory' : 'saves memory'}, ${how}`;
}

function asideNs({ nodes, returns }: ValueAside, { rates }: CompiledPlan): number {
  const priceOf = withTransfers(rooflineCost, rates);
  const price = (list: readonly Node[]): number =>
    list
      .filter((node) => node.op?.lower.kind !== 'view')
      .reduce((sum, node) => sum + priceOf([node], node.inputs, node.outputs).costNs, 0);
  const back = [...nodes].filter(({ meta }) => meta.restores !== undefined);
  const out = [...nodes].filter(({ meta }) => meta.restores === undefined);
  return price(out) + price(back) / Math.max(1, returns);
}

function reasonOf(action: ValueAction, node: Node, { choice }: CompiledPlan): string {
  const { policy, regions }: NodeMeta = node.meta;
  if (typeof policy === 'string' && policy.startsWith('must')) return `policy ${policy}`;
  const { keep, remat } = node.op?.traits ?? {};
  if (action === 'saved' && remat === 'never') return 'must not run twice';
  if (action === 'saved' && keep) return 'kept by default';
  if (choice) {
    const inside = regions.length > 0 ? 'planner, inside a region' : 'planner';
    return action === 'saved' ? `${inside}: cheaper to keep` : `${inside}: saves memory`;
  }
  if (policy !== undefined) return `policy ${typeof policy === 'string' ? policy : 'compress'}`;
  if (action === 'recomputed') return 'inside a region';
  return regions.length > 0 ? 'read by the recompute of a region' : 'outside regions';
}

/** Arena bytes in use during each launch, in launch order. */
export function timelineOf({ placement }: CompiledPlan): MemoryPoint[] {
  const delta = new Array<number>(placement.steps.length + 1).fill(0);
  for (const { kind, bytes, first, last } of placement.buffers) {
    if (kind !== 'arena' || last < 0) continue;
    delta[first] = (delta[first] ?? 0) + bytes;
    delta[last + 1] = (delta[last + 1] ?? 0) - bytes;
  }
  let live = 0;
  return placement.steps.map(({ label, nodes }, i) => {
    live += delta[i] ?? 0;
    const meta = nodes[0]?.meta;
    return { bytes: live, op: label, module: meta?.module ?? '', phase: meta?.phase ?? 'forward' };
  });
}
