/** Every case of the catalogue that says something about this library, in both executions. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkLiveBytes } from '../../support/backend.ts';
import { executions } from '../../support/executions.ts';
import { catalogue } from './catalogue.ts';

checkLiveBytes();

for (const execution of executions) {
  for (const entry of catalogue) {
    const outcome = entry[execution.name];
    if (outcome.kind === 'absent') continue;
    const { check } = outcome;
    test(`${entry.number} [${entry.torch}] ${execution.name}: ${entry.claim}`, () =>
      check(execution));
  }
}

test('every case of the catalogue is listed once', () => {
  assert.deepEqual(
    catalogue.map(({ number }) => number),
    Array.from({ length: 158 }, (_, i) => i + 1),
  );
});
