/**
 * Records every allocation and free of eager code with the op, the module and the phase it belongs to
 * (checkpointing.md P7; torch.cuda.memory._record_memory_history).
 */

import type { Aval } from '../ir/aval.ts';
import type { AnyOp, Params } from '../ir/op.ts';
import { type MemoryEvent, memoryCategories } from '../runtime/allocator.ts';
import { currentBackend } from '../tensor/backend.ts';
import { currentModule, currentPhase } from '../tensor/context.ts';
import type { TensorData } from '../tensor/data.ts';
import { type Mode, withMode } from '../tensor/mode.ts';
import { PassThroughMode } from '../tensor/pass-through-mode.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { MemoryTrace, TraceBlock, TraceCategory, TraceEvent } from './schema.ts';

type OpenBlock = { -readonly [K in keyof TraceBlock]: TraceBlock[K] };

/** Runs `body` and returns what it returned with the trace of its memory on the current backend. */
export function recordMemory<R>(
  title: string,
  body: () => R,
): { readonly result: R; readonly trace: MemoryTrace } {
  const { allocator, name } = currentBackend();
  const before = { ...allocator.stats().byCategory };
  const recorder = new Recorder();
  const stop = allocator.observe((event) => recorder.note(event));
  try {
    const result = withMode((inner) => new NamingMode(inner, recorder), body);
    return { result, trace: recorder.finish({ title, backend: name, before }) };
  } finally {
    stop();
  }
}

class Recorder {
  op = '';
  readonly #began = performance.now();
  readonly #events: TraceEvent[] = [];
  readonly #blocks: OpenBlock[] = [];
  readonly #open = new Map<number, OpenBlock>();

  note({ kind, block, bytes, category, live, time }: MemoryEvent): void {
    const known = this.#open.get(block);
    if (kind === 'recategorize') {
      if (known) known.category = category;
      return;
    }
    const at = this.#events.length;
    const context = { op: this.op, module: currentModule(), phase: currentPhase() };
    this.#events.push({ live, ...context, time: time - this.#began });
    if (kind === 'alloc') {
      const made = { id: this.#blocks.length, bytes, category, first: at, last: -1, ...context };
      this.#blocks.push(made);
      this.#open.set(block, made);
    } else if (known) {
      // It is alive up to, not during, the event that frees it.
      known.last = at - 1;
      this.#open.delete(block);
    } else {
      const id = this.#blocks.length;
      this.#blocks.push({ id, bytes, category, first: -1, last: at - 1, ...context, op: '' });
    }
  }

  finish(facts: Pick<MemoryTrace, 'title' | 'backend' | 'before'>): MemoryTrace {
    for (const block of this.#open.values()) block.last = this.#events.length;
    const start = Object.values(facts.before).reduce((sum, bytes) => sum + bytes, 0);
    let peak = { bytes: start, event: -1 };
    this.#events.forEach(({ live }, event) => {
      if (live > peak.bytes) peak = { bytes: live, event };
    });
    const byCategory = categoriesAt(facts.before, this.#blocks, peak.event);
    return {
      format: 'retune-memory-trace-v1',
      execution: 'eager',
      ...facts,
      peak: { ...peak, byCategory },
      events: this.#events,
      blocks: this.#blocks,
    };
  }
}

/** Bytes of each category during `event`. Blocks count as what they were last used as. */
export function categoriesAt(
  before: MemoryTrace['before'],
  blocks: readonly TraceBlock[],
  event: number,
): Record<TraceCategory, number> {
  const sums = Object.fromEntries(
    memoryCategories.map((category) => [category, before[category]]),
  ) as Record<TraceCategory, number>;
  for (const { first, last, bytes, category } of blocks) {
    if (first === -1 && last < event) sums[category] -= bytes;
    else if (first >= 0 && first <= event && last >= event) sums[category] += bytes;
  }
  return sums;
}

/** Tells the recorder which op is running. */
class NamingMode extends PassThroughMode {
  readonly #recorder: Recorder;

  constructor(inner: Mode, recorder: Recorder) {
    super(inner);
    this.#recorder = recorder;
  }

  override run(
    op: AnyOp,
    inputs: readonly Tensor[],
    params: Params,
    outputs: readonly Aval[],
  ): readonly TensorData[] {
    const outer = this.#recorder.op;
    this.#recorder.op = op.name;
    try {
      return super.run(op, inputs, params, outputs);
    } finally {
      this.#recorder.op = outer;
    }
  }
}
