/** Medians and spreads. */

export interface Spread {
  readonly min: number;
  readonly median: number;
  readonly max: number;
  readonly count: number;
}

/** NaN for an empty list. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/** Undefined for an empty list. */
export function spread(values: readonly number[]): Spread | undefined {
  if (values.length === 0) return undefined;
  return {
    min: Math.min(...values),
    median: median(values),
    max: Math.max(...values),
    count: values.length,
  };
}

/** a / b for every round that has both. */
export function ratios(
  a: readonly (number | undefined)[],
  b: readonly (number | undefined)[],
): number[] {
  return a.flatMap((value, round) => {
    const other = b[round];
    return value === undefined || other === undefined ? [] : [value / other];
  });
}
