/** That suites of eager semantics run compiled or say why not, and that a difference would be found. */

import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import '../../src/ops/methods.ts';
import { add, mul } from '../../src/ops/arithmetic.ts';
import { addInPlace } from '../../src/ops/in-place.ts';
import { tensor, toArray } from '../../src/tensor/factory.ts';
import { scope } from '../../src/tensor/with-scope.ts';
import { checkLiveBytes } from './backend.ts';
import { eagerOnly, eagerOnlyFiles } from './eager-only.ts';
import { runCompiled } from './run-compiled.ts';

checkLiveBytes();

const root = path.resolve(import.meta.dirname, '..', '..');
const suites = globSync(
  [
    'src/{autograd,checkpoint,nn,ops,optim,tensor}/**/*.test.ts',
    'test/checkpoint.test.ts',
    'test/selective/*.test.ts',
  ],
  { cwd: root },
).map((file) => file.replaceAll('\\', '/'));

test('every suite of eager semantics runs in both executions, or says why not', () => {
  assert.ok(suites.length > 20);
  const both = /alsoCompiled\(import\.meta\.url\)|\bexecutions\b|withCompiled\(/;
  const missing = suites.filter((file) => {
    const runs = both.test(readFileSync(path.join(root, file), 'utf8'));
    return runs === file in eagerOnlyFiles;
  });
  assert.deepEqual(missing, [], 'use alsoCompiled, or list the file in eager-only.ts');
  for (const file of [...Object.keys(eagerOnly), ...Object.keys(eagerOnlyFiles)]) {
    assert.ok(suites.includes(file), `eager-only.ts names ${file}, which is no suite`);
  }
});

test('other values, other numbers of reads and failed assertions are found', () => {
  let calls = 0;
  const differs = (): unknown => scope(() => toArray(tensor([calls++])));
  assert.throws(() => runCompiled(differs, 'constants'), /host read 1, compiled and eager/);
  const readsMore = (): void => {
    for (let i = calls++ % 2; i < 2; i++) scope(() => toArray(add(tensor([1]), 1)));
  };
  calls = 1;
  assert.throws(() => runCompiled(readsMore, 'state'), /reads no more than the eager run/);
  calls = 0;
  assert.throws(() => runCompiled(readsMore, 'state'), /reads as often as the eager run/);
  const asserts = (): void => assert.equal(calls++ % 2, 0, 'the body says no');
  calls = 0;
  assert.throws(() => runCompiled(asserts, 'constants'), /the body says no/);
});

test('each read sees the value of its moment', () => {
  const body = (): void =>
    scope(() => {
      const x = tensor([1, 2]);
      const before = toArray(x);
      addInPlace(x, mul(x, 10));
      assert.deepEqual([...before, ...toArray(x)], [1, 2, 11, 22]);
    });
  runCompiled(body, 'constants');
  runCompiled(body, 'state');
});
