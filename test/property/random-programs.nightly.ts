/**
 * The long run, `npm run test:nightly`: 10,000 programs, a hundred to a test, so that the output shows how far it is.
 * Every test has its own seed, named in its title; RETUNE_SEED=<that number> begins with the same programs again.
 */

import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkPrograms } from './check-programs.ts';

const programsOfTest = 100;
const tests = 100;

const first = process.env.RETUNE_SEED ? Number(process.env.RETUNE_SEED) : Date.now() % 2 ** 31;

for (let i = 0; i < tests; i++) {
  const seed = first + i;
  const title = `random programs ${i * programsOfTest + 1} to ${(i + 1) * programsOfTest} of ${tests * programsOfTest}, seed ${seed}`;
  test(title, { timeout: 1_800_000 }, async () => {
    // Programs never wait, so without this nothing would be reported before the last one is done.
    await sleep(1);
    checkPrograms(programsOfTest, seed);
  });
}
