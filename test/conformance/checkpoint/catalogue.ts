/** All cases, in the order of their numbers. */

import type { ConformanceCase } from './case.ts';
import { nestedCases } from './cases/nested.ts';
import { regionCases } from './cases/regions.ts';

export const catalogue: readonly ConformanceCase[] = [...regionCases, ...nestedCases].sort(
  (a, b) => a.number - b.number,
);
