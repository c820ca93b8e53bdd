/** The long run: `npm run test:nightly`. */

import { test } from 'node:test';
import { checkPrograms } from './check-programs.ts';

test('10,000 random programs', { timeout: 3_600_000 }, () => {
  for (let round = 0; round < 100; round++) checkPrograms(100, Date.now() + round);
});
