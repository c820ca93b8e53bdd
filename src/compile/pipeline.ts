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
import { rematerializeRegions } from './rematerialize.ts';
import { scheduleGraph } from './schedule.ts';
import { mergeCommonSubexpressions, removeDeadCode } from './simplify.ts';

export interface Pass {
  readonly name: string;
  readonly run: (graph: Graph) => Graph;
  /** Passes that give the graph its meaning cannot be left out. */
  readonly required?: boolean;
}

export const passes: readonly Pass[] = [
  { name: 'removeDeadCode', run: removeDeadCode },
  { name: 'mergeCommonSubexpressions', run: mergeCommonSubexpressions },
  { name: 'rematerializeRegions', run: rematerializeRegions, required: true },
  { name: 'removeDeadCopies', run: removeDeadCode },
  { name: 'schedule', run: scheduleGraph },
];

/** Names that `disable` takes: graph passes and the fusion of kernels. */
export const passNames: readonly string[] = [
  ...passes.filter((pass) => !pass.required).map((pass) => pass.name),
  'fuse',
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
}

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
  const show = (name: string, graph: Graph): void => {
    if (verify) verifyGraph(graph, name);
    options.inspect?.(name, graph);
  };
  show('trace', traced);
  let graph = traced;
  for (const pass of passes) {
    if (disabled.has(pass.name)) continue;
    graph = pass.run(graph);
    show(pass.name, graph);
  }
  const placement = place(graph, fuse(graph, { enabled: !disabled.has('fuse') }));
  return planned(graph, placement);
}

function planned(graph: Graph, placement: Placement): CompiledPlan {
  const arena = placement.buffers.filter((buffer) => buffer.kind === 'arena' && buffer.last >= 0);
  const memory = planMemory(arena);
  const offsets = new Map(arena.map((buffer, i) => [buffer, memory.offsets[i] ?? 0]));
  const results = new Set(placement.results);
  let peakBytes = memory.arenaBytes;
  for (const buffer of results) peakBytes += buffer.bytes;
  return { graph, placement, memory, offsets, peakBytes };
}
