/**
 * The passes between a traced graph and a runnable plan, in order. Each graph pass can be left out by
 * name (to find a culprit) and its result looked at.
 */

import { readEnv } from '../core/env.ts';
import { ConfigError, nearest } from '../core/errors.ts';
import type { Graph } from '../ir/graph.ts';
import { verifyGraph } from '../ir/verify.ts';
import { type MemoryPlan, planMemory } from './memory-plan.ts';
import { fuse } from './fuse.ts';
import { type Placement, type PlacedBuffer, place } from './place.ts';
import { regionsByFirstRead, rematerializeRegions } from './rematerialize.ts';
import { scheduleGraph } from './schedule.ts';
import { mergeCommonSubexpressions, removeDeadCode } from './simplify.ts';

/** What passes decide by, beside the graph. */
export interface PassContext {
  /** Outermost checkpoint regions that keep their values; see keepFreeRegions. */
  readonly keptRegions: ReadonlySet<number>;
}

export interface Pass {
  readonly name: string;
  readonly run: (graph: Graph, context: PassContext) => Graph;
  /** Passes that give the graph its meaning cannot be left out. */
  readonly required?: boolean;
}

export const passes: readonly Pass[] = [
  { name: 'removeDeadCode', run: removeDeadCode },
  { name: 'mergeCommonSubexpressions', run: mergeCommonSubexpressions },
  {
    name: 'rematerializeRegions',
    run: (graph, context) => rematerializeRegions(graph, context.keptRegions),
    required: true,
  },
  { name: 'removeDeadCopies', run: removeDeadCode },
  { name: 'schedule', run: scheduleGraph },
];

/** Names that `disable` takes: graph passes, the fusion of kernels, and the choice of kept regions. */
export const passNames: readonly string[] = [
  ...passes.filter((pass) => !pass.required).map((pass) => pass.name),
  'fuse',
  'keepFreeRegions',
];

export interface PipelineOptions {
  /** Passes to leave out. */
  readonly disable?: readonly string[];
  /** Check the graph after every pass. Default: the environment variable RETUNE_VERIFY. */
  readonly verify?: boolean;
  /** Sees the graph after each pass. */
  readonly inspect?: (pass: string, graph: Graph) => void;
}

export interface CompiledPlan {
  readonly graph: Graph;
  readonly placement: Placement;
  readonly memory: MemoryPlan;
  /** Offset of each arena buffer. */
  readonly offsets: ReadonlyMap<PlacedBuffer, number>;
  /** Bytes of the arena and of the results: what the step allocates. */
  readonly peakBytes: number;
  /** Checkpoint regions that were not recomputed because keeping them does not raise the peak. */
  readonly keptRegions: ReadonlySet<number>;
}

/** Plans a traced step. The graph is checked and shown after each pass of the plan that is taken. */
export function runPipeline(traced: Graph, options: PipelineOptions = {}): CompiledPlan {
  const disabled = new Set(options.disable ?? []);
  for (const name of disabled) {
    if (passNames.includes(name)) continue;
    throw new ConfigError(
      `compile: there is no pass '${name}' to disable. Did you mean ${nearest(name, passNames, 2).join(' or ')}?`,
      { key: 'disable', value: name },
    );
  }
  const verify = options.verify ?? readEnv('RETUNE_VERIFY') === '1';
  const best = disabled.has('keepFreeRegions') ? undefined : keepFreeRegions(traced, disabled);
  // The search has made this very plan already; it is made again only for somebody to look at.
  if (best && !verify && !options.inspect) return best;
  return plan(traced, disabled, best?.keptRegions ?? new Set(), (name, graph) => {
    if (verify) verifyGraph(graph, name);
    options.inspect?.(name, graph);
  });
}

/**
 * The plan that keeps the regions whose recompute would buy nothing; undefined when there are no regions.
 * Backward starts with the last layers, so what they would drop is
 * needed again before anything else has been freed. Regions are added from the last backwards
 * for as long as the planned peak stays at or below that of recomputing them all.
 */
function keepFreeRegions(traced: Graph, disabled: ReadonlySet<string>): CompiledPlan | undefined {
  const candidates = regionsByFirstRead(traced);
  if (candidates.length === 0) return undefined;
  let best = plan(traced, disabled, new Set());
  const { peakBytes } = best;
  const fits = (count: number): boolean => {
    const trial = plan(traced, disabled, new Set(candidates.slice(0, count)));
    const free = trial.peakBytes <= peakBytes;
    if (free) best = trial;
    return free;
  };
  // Keeping more never lowers the peak: gallop, then bisect. Usually the first or second trial fails.
  let good = 0;
  let bad = candidates.length + 1;
  for (let count = 1; count < bad; count = Math.min(2 * count, candidates.length)) {
    if (!fits(count)) bad = count;
    else good = count;
    if (good === candidates.length) break;
  }
  while (bad - good > 1) {
    const middle = (good + bad) >> 1;
    if (fits(middle)) good = middle;
    else bad = middle;
  }
  return best;
}

function plan(
  traced: Graph,
  disabled: ReadonlySet<string>,
  keptRegions: ReadonlySet<number>,
  show: (pass: string, graph: Graph) => void = () => {},
): CompiledPlan {
  show('trace', traced);
  let graph = traced;
  for (const pass of passes) {
    if (disabled.has(pass.name)) continue;
    graph = pass.run(graph, { keptRegions });
    show(pass.name, graph);
  }
  const placement = place(graph, fuse(graph, { enabled: !disabled.has('fuse') }));
  return planned(graph, placement, keptRegions);
}

function planned(
  graph: Graph,
  placement: Placement,
  keptRegions: ReadonlySet<number>,
): CompiledPlan {
  const arena = placement.buffers.filter((buffer) => buffer.kind === 'arena' && buffer.last >= 0);
  const memory = planMemory(arena);
  const offsets = new Map(arena.map((buffer, i) => [buffer, memory.offsets[i] ?? 0]));
  const results = new Set(placement.results);
  let peakBytes = memory.arenaBytes;
  for (const buffer of results) peakBytes += buffer.bytes;
  return { graph, placement, memory, offsets, peakBytes, keptRegions };
}
