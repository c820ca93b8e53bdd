/** All cases, in the order of their numbers. */

import type { ConformanceCase } from './case.ts';
import { functionCases } from './cases/functions.ts';
import { jointGraphCases } from './cases/joint-graphs.ts';
import { nestedCases } from './cases/nested.ts';
import { regionCases } from './cases/regions.ts';

export const catalogue: readonly ConformanceCase[] = [
  ...regionCases,
  ...nestedCases,
  ...functionCases,
  ...jointGraphCases,
].sort((a, b) => a.number - b.number);
