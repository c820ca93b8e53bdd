/** The memory trace of a compiled step: known from its plan, to the byte, before it runs. */

import { formatAval } from '../ir/aval.ts';
import { categoriesAt } from '../observe/memory-recorder.ts';
import type { MemoryTrace, TraceBlock } from '../observe/schema.ts';
import type { MemoryCategory } from '../runtime/allocator.ts';
import { timelineOf } from './explain.ts';
import type { PlacedBuffer } from './placement.ts';
import type { CompiledPlan } from './plan-step.ts';
import { valuesSetAside } from './values-set-aside.ts';

/** `before`: what is in memory beside the step. Events are the launches of a run, in order. */
export function plannedTrace(
  plan: CompiledPlan,
  facts: Pick<MemoryTrace, 'title' | 'backend' | 'before'>,
): MemoryTrace {
  const { placement, offsets } = plan;
  const beside = Object.values(facts.before).reduce((sum, bytes) => sum + bytes, 0);
  const launches = timelineOf(plan);
  const results = new Set(placement.results);
  const resultBytes = [...results].reduce((sum, buffer) => sum + buffer.bytes, 0);
  const blocks: TraceBlock[] = [];
  const waitsOf = waitingBuffers(plan);
  for (const buffer of placement.buffers) {
    const inArena = buffer.kind === 'arena' && buffer.last >= 0;
    if (!inArena && !results.has(buffer)) continue;
    const { node, aval } = buffer.value;
    const { phase, module, recomputeOf } = node.meta;
    const offset = offsets.get(buffer);
    const waits = waitsOf.get(buffer);
    blocks.push({
      id: blocks.length,
      bytes: buffer.bytes,
      category: categoryOf(phase),
      first: inArena ? buffer.first : 0,
      last: inArena ? buffer.last : launches.length,
      op: node.op?.name ?? node.label,
      module,
      phase,
      value: formatAval(aval),
      recomputed: recomputeOf !== undefined,
      ...(waits !== undefined && { waits }),
      ...(offset !== undefined && { offset }),
    });
  }
  const events = launches.map(({ bytes, op, module, phase }) => ({
    live: beside + resultBytes + bytes,
    op,
    module,
    phase,
    time: 0,
  }));
  const event = events.reduce(
    (best, { live }, i) => (live > (events[best]?.live ?? 0) ? i : best),
    0,
  );
  const peak = { bytes: events[event]?.live ?? beside, event };
  const byCategory = categoriesAt(facts.before, blocks, event);
  return {
    format: 'retune-memory-trace-v1',
    execution: 'compiled',
    ...facts,
    peak: { ...peak, byCategory },
    events,
    blocks,
  };
}

/** Buffers of values that wait elsewhere, and those that they are brought back to. */
function waitingBuffers({
  graph,
  placement,
}: CompiledPlan): Map<PlacedBuffer, TraceBlock['waits']> {
  const found = new Map<PlacedBuffer, TraceBlock['waits']>();
  for (const [value, { nodes, action }] of valuesSetAside(graph)) {
    const back = [...nodes].filter(({ meta }) => meta.restores !== undefined);
    for (const each of [value, ...back.flatMap(({ outputs }) => outputs)]) {
      const buffer = placement.buffersOf.get(each);
      if (buffer) found.set(buffer, action);
    }
  }
  return found;
}

function categoryOf(phase: TraceBlock['phase']): MemoryCategory {
  return phase === 'forward' ? 'activation' : phase === 'backward' ? 'temporary' : 'optimizer';
}
