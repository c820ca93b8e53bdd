/** Tests of eager semantics that run again inside `compile`. */

import assert from 'node:assert/strict';
import path from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { eagerOnly } from './eager-only.ts';
import { runCompiled } from './run-compiled.ts';

const root = path.resolve(import.meta.dirname, '..', '..');

/**
 * `test` of node:test for the file at `url` (its import.meta.url). Each test runs as it is, and then compiled:
 * with what it makes of host values as constants of the step, and as memory outside it. Tests that
 * eager-only.ts lists for the file run only as they are.
 */
export function alsoCompiled(url: string): (name: string, body: () => unknown) => void {
  const file = path.relative(root, fileURLToPath(url)).replaceAll('\\', '/');
  const reasons = new Map(Object.entries(eagerOnly[file] ?? {}));
  const seen = new Set<string>();
  after(() => {
    const unknown = [...reasons.keys()].filter((name) => !seen.has(name));
    assert.deepEqual(unknown, [], `eager-only.ts lists tests that ${file} does not have`);
  });
  return (name, body) => {
    seen.add(name);
    test(name, body as () => void);
    if (reasons.has(name)) return;
    test(`${name} [compiled, constants]`, () => runCompiled(body, 'constants'));
    test(`${name} [compiled, state]`, () => runCompiled(body, 'state'));
  };
}
