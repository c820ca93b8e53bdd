/** What mode auto found, in words. */

import { formatBytes } from '../../core/bytes.ts';
import type { BatchSplit, MemoryChoice } from './choice.ts';
import type { MemoryNeeds } from './needs.ts';

/** Two lines: what there is, and what was chosen for it. */
export function describeChoice(choice: MemoryChoice): string[] {
  const { availableBytes, availableFrom } = choice;
  return [
    `memory for training: ${formatBytes(availableBytes)} (${availableFrom})`,
    `automatic: ${describeChosen(choice)}`,
  ];
}

/** The batch, what is recomputed, the memory of all, and what recomputing costs. */
export function describeChosen(choice: MemoryChoice): string {
  const { chosen, extraTime } = choice;
  const extra = `; recomputing adds ${(100 * extraTime).toFixed(1)} % time (estimated)`;
  const what = [describeSplit(chosen), describeRecompute(choice), describeNeeds(choice)];
  return what.join('; ') + (extraTime > 0 ? extra : '');
}

/** `batch_size 2 x 4 micro-batches`. */
export function describeSplit({
  batch_size,
  gradient_accumulation_steps: count,
}: BatchSplit): string {
  return count === 1
    ? `batch_size ${batch_size}`
    : `batch_size ${batch_size} x ${count} micro-batches`;
}

/** The total and what it is made of. */
export function describeNeeds(needs: MemoryNeeds): string {
  const { totalBytes, parameterBytes, optimizerBytes, gradientBytes, stepBytes } = needs;
  const parts = [
    ['parameters', parameterBytes],
    ['optimizer state', optimizerBytes],
    ['gradients between micro-batches', gradientBytes],
    ['step', stepBytes],
  ] as const;
  const listed = parts.filter(([, bytes]) => bytes > 0);
  return `${formatBytes(totalBytes)} in all (${listed.map(([name, bytes]) => `${name} ${formatBytes(bytes)}`).join(', ')})`;
}

function describeRecompute({ chosen }: MemoryChoice): string {
  const { mode, budget, every } = chosen.activation_checkpointing;
  if (mode === 'budget')
    return `recomputing what a step memory of ${formatBytes(Number(budget))} needs`;
  if (mode === 'every') return `recomputing every ${String(every)} layers`;
  return mode === 'full' ? 'recomputing every layer' : 'nothing recomputed';
}
