/** The refusal of a run that does not fit into memory. */

import { formatBytes } from '../../core/bytes.ts';
import { InfeasibleBudgetError } from '../../core/errors.ts';
import type { Alternative } from './alternatives.ts';
import type { AvailableMemory } from './available.ts';
import { describeNeeds, describeSplit } from './describe.ts';
import type { SmallestCandidate } from './search.ts';

/**
 * The error for a run that may hold `limit` and holds at least what `smallest` does. `details`: budgetBytes,
 * smallestBytes, the needs of the smallest, and the alternatives.
 */
export function doesNotFit(
  limit: AvailableMemory,
  { step, chosen, enoughBytes }: SmallestCandidate,
  alternatives: readonly Alternative[],
): InfeasibleBudgetError {
  const lines = alternatives.map(
    (each) => `\n  ${each.change} (${describeSplit(each)}: ${formatBytes(each.totalBytes)})`,
  );
  const others =
    lines.length === 0
      ? 'No other batch, sequence length, dtype or optimizer that was tried fits: take a smaller model.'
      : `Or change the config; each of these fits:${lines.join('')}`;
  const { totalBytes, parameterBytes, optimizerBytes, gradientBytes, stepBytes } = step;
  return new InfeasibleBudgetError(
    `fitMemory: training does not fit into the memory there is (got ${formatBytes(limit.bytes)}, ${limit.from}; the smallest plan ` +
      `takes ${describeNeeds(step)} with ${describeSplit(chosen)}). Give at least memory: ${enoughBytes}. ${others}`,
    {
      budgetBytes: limit.bytes,
      smallestBytes: enoughBytes,
      needs: { totalBytes, parameterBytes, optimizerBytes, gradientBytes, stepBytes },
      alternatives,
    },
  );
}
