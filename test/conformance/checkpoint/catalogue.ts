/** All cases, in the order of their numbers. */

import type { ConformanceCase } from './case.ts';
import { budgetCases } from './cases/budgets.ts';
import { functionCases } from './cases/functions.ts';
import { jointGraphCases } from './cases/joint-graphs.ts';
import { nestedCases } from './cases/nested.ts';
import { otherCases } from './cases/elsewhere.ts';
import { regionCases } from './cases/regions.ts';
import { selectiveGraphCases } from './cases/selective-graphs.ts';
import { selectiveCases } from './cases/selective.ts';
import { wrappingCases } from './cases/wrapping.ts';

export const catalogue: readonly ConformanceCase[] = [
  ...regionCases,
  ...nestedCases,
  ...functionCases,
  ...jointGraphCases,
  ...wrappingCases,
  ...selectiveCases,
  ...selectiveGraphCases,
  ...budgetCases,
  ...otherCases,
].sort((a, b) => a.number - b.number);
