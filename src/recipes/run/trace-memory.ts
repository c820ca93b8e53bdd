/** `--trace-memory`: the memory of one training step as a file (docs/internals/memory-trace.md). */

import { plannedTrace } from '../../compile/planned-trace.ts';
import type { Batch } from '../../data/corpus/batches.ts';
import { writeFileAtomic } from '../../data/files/atomic.ts';
import { recordMemory } from '../../observe/memory-recorder.ts';
import type { MemoryTrace } from '../../observe/schema.ts';
import { currentBackend } from '../../tensor/backend.ts';
import type { StepResult, TrainingStep } from './training-step.ts';

/** Runs a step and traces it: recorded in eager code, from the plan of the step (or micro-step) in compiled code. */
export function runTraced(
  step: TrainingStep,
  batches: readonly Batch[],
  title: string,
): { readonly result: StepResult; readonly trace: MemoryTrace } {
  const { allocator, name } = currentBackend();
  const [first] = batches;
  const plan = first && step.plan(first);
  if (!plan) return recordMemory(title, () => step.run(batches));
  const before = { ...allocator.stats().byCategory };
  const result = step.run(batches);
  return { result, trace: plannedTrace(plan.plan, { title, backend: name, before }) };
}

export async function writeTrace(path: string, trace: MemoryTrace): Promise<void> {
  await writeFileAtomic(path, `${JSON.stringify(trace)}\n`);
}
