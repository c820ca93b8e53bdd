/** Budgets as they are typed: bytes with a unit, or a share of the peak without a budget. */

import { parseBytes } from '../../core/bytes.ts';
import { CliUsageError } from '../command.ts';

export type Budget = { readonly bytes: number } | { readonly percent: number };

/** `512MiB`, `4096` or `40%`. Throws CliUsageError for anything else. */
export function parseBudget(text: string): Budget {
  const share = /^\s*(\d+(?:\.\d*)?|\.\d+)\s*%\s*$/.exec(text);
  if (share) return { percent: Number(share[1]) };
  const bytes = parseBytes(text);
  if (bytes !== undefined) return { bytes };
  throw new CliUsageError(
    `--budget must be an amount of memory such as 512MiB or 40% (got '${text}')`,
  );
}

/** Bytes; a share is rounded down. */
export function budgetBytes(budget: Budget, peakBytes: number): number {
  return 'bytes' in budget ? budget.bytes : Math.floor((peakBytes * budget.percent) / 100);
}
