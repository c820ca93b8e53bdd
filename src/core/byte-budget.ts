/** A budget of memory as users write it: an amount of bytes, or a share of a whole. */

import { readBytes } from './bytes.ts';
import { ConfigError } from './errors.ts';

/** Bytes (`536870912`, `512MiB`, `1.5 GiB`) or a share (`40%`). */
export type ByteBudget = number | string;

/** What a budget may look like, for error messages. */
export const budgetForms = 'bytes such as 512MiB or 1.5GiB, or a share such as 40%';

/** Whether `value` is a budget above zero. */
export function isByteBudget(value: unknown): value is ByteBudget {
  return shareOf(value) !== undefined || (readBytes(value) ?? 0) > 0;
}

/** Whole bytes of a budget; `fullBytes` is what 100 % stands for. Throws ConfigError for what is no budget. */
export function budgetBytes(budget: ByteBudget, fullBytes: () => number): number {
  const share = shareOf(budget);
  if (share !== undefined) return Math.max(1, Math.floor(fullBytes() * share));
  const bytes = readBytes(budget) ?? 0;
  if (bytes > 0) return bytes;
  throw new ConfigError(
    `budget: not an amount of memory (got ${JSON.stringify(budget)}). Give ${budgetForms}.`,
    { key: 'budget', value: budget },
  );
}

/** 0.4 for `40%`; undefined for anything but a percentage above zero. */
export function shareOf(value: unknown): number | undefined {
  const match = typeof value === 'string' ? /^\s*(\d+(?:\.\d*)?|\.\d+)\s*%\s*$/.exec(value) : null;
  const share = Number(match?.[1] ?? 0) / 100;
  return share > 0 ? share : undefined;
}
