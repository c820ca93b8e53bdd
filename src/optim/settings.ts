/** Checks of hyperparameters. */

import { ConfigError } from '../core/errors.ts';

/** Throws ConfigError naming the first of `keys` whose value is not a number >= 0. */
export function checkNonNegative<T extends object>(
  who: string,
  settings: T,
  keys: readonly (keyof T & string)[],
): void {
  for (const key of keys) {
    const value: unknown = settings[key];
    if (typeof value === 'number' && value >= 0 && Number.isFinite(value)) continue;
    throw new ConfigError(
      `${who}: '${key}' must be a number of at least 0 (got ${String(value)}).`,
      {
        key,
        value,
      },
    );
  }
}
