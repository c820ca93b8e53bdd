/**
 * The passes between a traced graph and a runnable plan, in order. Each graph pass can be left out by
 * name (to find a culprit) and its result looked at. There are two routes: checkpoint regions recomputed
 * as they were written, and a schedule of a planner, which decides for each value.
 */

import { readEnv } from '../core/env.ts';
import { ConfigError, nearest } from '../core/errors.ts';
import type { Graph, Value } from '../ir/graph.ts';
import { verifyGraph } from '../ir/verify.ts';
import type { Step } from '../plan/graph.ts';
import { type FusedStep, fuse } from './fuse.ts';
import { type MemoryPlan, planMemory } from './memory-plan.ts';
import { place } from './place.ts';
import { type PlacedBuffer, type PlacedStep, type Placement, setLifetimes } from './placement.ts';
import type { RematGraph } from './remat-graph.ts';
import { readSavedValues, rematerializeRegions } from './rematerialize.ts';
import { replaySchedule } from './replay.ts';
import { scheduleGraph, scheduleUpdatesLast } from './schedule.ts';
import { mergeCommonSubexpressions, removeDeadCode } from './simplify.ts';
import { spreadTransfers } from './spread-transfers.ts';
import { type TransferRates, assumedRates } from './transfer-rates.ts';

export interface Pass {
  readonly name: string;
  readonly run: (graph: Graph) => Graph;
  /** Passes that give the graph its meaning cannot be left out. */
  readonly required?: boolean;
}

const simplify: readonly Pass[] = [
  { name: 'removeDeadCode', run: removeDeadCode },
  { name: 'mergeCommonSubexpressions', run: mergeCommonSubexpressions },
];

const finish: readonly Pass[] = [
  { name: 'removeDeadCopies', run: removeDeadCode },
  { name: 'schedule', run: scheduleGraph },
];

const recomputeRegions: readonly Pass[] = [
  ...simplify,
  { name: 'rematerializeRegions', run: rematerializeRegions, required: true },
];

/** Regions are recomputed as they were written. */
export const regionPasses: readonly Pass[] = [...recomputeRegions, ...finish];

/** The same in the order of the program, as eager execution has it. */
export const writtenOrderPasses: readonly Pass[] = [
  ...recomputeRegions,
  ...finish.filter(({ run }) => run !== scheduleGraph),
];

/** Nothing is recomputed: what a planner starts from. */
export const basePasses: readonly Pass[] = [
  ...simplify,
  { name: 'readSavedValues', run: readSavedValues, required: true },
  ...finish,
];

/** As basePasses, for planners that may fetch values: parameters change after all that can fail. */
export const fetchingPasses: readonly Pass[] = basePasses.map((pass) =>
  pass.name === 'schedule' ? { ...pass, run: scheduleUpdatesLast } : pass,
);

/**
 * What a planner decided, applied to what basePasses or fetchingPasses made. `onSpoilt` gets the compressed values that
 * forward would read rounded, if there are any.
 */
export function plannedPasses(
  remat: RematGraph,
  schedule: readonly Step[],
  onSpoilt: (values: ReadonlySet<Value>) => void = () => {},
): readonly Pass[] {
  const run = (graph: Graph): Graph => {
    const replayed = replaySchedule(graph, remat, schedule);
    if (replayed.spoilt.size > 0) onSpoilt(replayed.spoilt);
    return replayed.graph;
  };
  return [{ name: 'rematerialize', run, required: true }, ...finish];
}

/** Names that `disable` takes: graph passes, the fusion of kernels, and planning inside regions. */
export const passNames: readonly string[] = [
  ...[...simplify, ...finish].map((pass) => pass.name),
  'fuse',
  'planRegions',
];

export interface PassOptions {
  /** Passes to leave out. */
  readonly disable?: readonly string[];
  /** Check the graph after every pass. Default: the environment variable RETUNE_VERIFY. */
  readonly verify?: boolean;
  /** Sees the graph after each pass. */
  readonly inspect?: (pass: string, graph: Graph) => void;
}

/** A graph with its kernels and its memory. */
export interface LoweredGraph {
  readonly graph: Graph;
  readonly fused: readonly FusedStep[];
  readonly placement: Placement;
  readonly memory: MemoryPlan;
  /** Offset of each arena buffer. */
  readonly offsets: ReadonlyMap<PlacedBuffer, number>;
  /** Bytes of the arena and of the results: what the step allocates. */
  readonly peakBytes: number;
}

/** Runs passes with the same settings on one graph after the other. */
export class PassRunner {
  readonly #disabled: ReadonlySet<string>;
  readonly #verify: boolean;
  readonly #inspect: PassOptions['inspect'];
  readonly rates: TransferRates;

  /** Throws ConfigError for an unknown name in `disable`. `rates`: of transfers. */
  constructor(options: PassOptions, rates: TransferRates = assumedRates) {
    this.rates = rates;
    this.#disabled = new Set(options.disable ?? []);
    for (const name of this.#disabled) {
      if (passNames.includes(name)) continue;
      throw new ConfigError(
        `compile: there is no pass '${name}' to disable. Did you mean ${nearest(name, passNames, 2).join(' or ')}?`,
        { key: 'disable', value: name },
      );
    }
    this.#verify = options.verify ?? readEnv('RETUNE_VERIFY') === '1';
    this.#inspect = options.inspect;
  }

  /** Whether somebody wants to see each pass of the plan that is taken. */
  get watched(): boolean {
    return this.#verify || this.#inspect !== undefined;
  }

  isDisabled(name: string): boolean {
    return this.#disabled.has(name);
  }

  /** `quiet` for trials: nothing is checked or shown. */
  run(passes: readonly Pass[], graph: Graph, quiet = false): Graph {
    let result = graph;
    for (const pass of passes) {
      if (this.#disabled.has(pass.name)) continue;
      result = pass.run(result);
      if (quiet) continue;
      if (this.#verify) verifyGraph(result, pass.name);
      this.#inspect?.(pass.name, result);
    }
    return result;
  }

  /**
   * Kernels, places and memory. Transfers are given time beside kernels where that keeps the peak within `roomBytes`, or
   * does not raise it. `fused: false` for one kernel per op.
   */
  lower(graph: Graph, { roomBytes = 0, fused: mayFuse = true } = {}): LoweredGraph {
    const fused = fuse(graph, { enabled: mayFuse && !this.isDisabled('fuse') });
    const moves = fused.some((step) => step.kind === 'transfer');
    let best = this.#arrange(place(graph, fused), roomBytes);
    if (moves) {
      // Faster, but a value that is being copied cannot be computed on in place.
      const kept = this.#arrange(place(graph, fused, { keepStored: true }), roomBytes);
      if (kept.peakBytes <= Math.max(roomBytes, best.peakBytes)) best = kept;
    }
    return { graph, fused, ...best };
  }

  #arrange(
    placement: Placement,
    roomBytes: number,
  ): Pick<LoweredGraph, 'placement' | 'memory' | 'offsets' | 'peakBytes'> {
    const resultBytes = [...new Set(placement.results)].reduce((sum, { bytes }) => sum + bytes, 0);
    const room = Math.max(0, roomBytes - resultBytes);
    const { steps, arena, memory } = planArena(placement, room, this.rates);
    return {
      placement: { ...placement, steps },
      memory,
      offsets: new Map(arena.map((buffer, i) => [buffer, memory.offsets[i] ?? 0])),
      peakBytes: memory.arenaBytes + resultBytes,
    };
  }
}

interface PlannedArena {
  readonly steps: readonly PlacedStep[];
  readonly arena: readonly PlacedBuffer[];
  readonly memory: MemoryPlan;
}

/** How often transfers get a smaller limit when the arena is larger than what is live in it. */
const arenaTrials = 4;

function planArena(placement: Placement, roomBytes: number, rates: TransferRates): PlannedArena {
  const { buffers, steps } = placement;
  const plan = (order: readonly PlacedStep[]): PlannedArena => {
    if (order !== steps) setLifetimes(buffers, order);
    const arena = buffers.filter((buffer) => buffer.kind === 'arena' && buffer.last >= 0);
    return { steps: order, arena, memory: planMemory(arena) };
  };
  const waiting = plan(steps);
  if (steps.every((step) => step.kind === 'launch')) return waiting;
  const room = Math.max(roomBytes, waiting.memory.arenaBytes);
  let limit = Math.max(roomBytes, waiting.memory.lowerBoundBytes);
  for (let trial = 0; trial < arenaTrials; trial++) {
    setLifetimes(buffers, steps);
    const made = plan(spreadTransfers(steps, buffers, limit, rates));
    const over = made.memory.arenaBytes - room;
    if (over <= 0) return made;
    limit -= over;
  }
  setLifetimes(buffers, steps);
  return waiting;
}
