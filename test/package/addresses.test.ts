import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { rewriteAddresses, threadModules } from '../../scripts/addresses.ts';
import { inTree } from './tree.ts';

const address = (to: string): string => `new URL(${to}, import.meta.url)`;

const sources = {
  'package.json': '{}',
  'src/a/start.ts': address("'./thread.ts'"),
  'src/a/thread.ts': '',
  'src/b/configs/one.yaml': '',
  'src/b/registry.ts': address(`\`./configs/\${name}.yaml\``),
  'src/b/root.ts': `${address("'..'")} ${address("'../../package.json'")}`,
};

/** The text of dist/<output> after a build that put `inputs` into it, unchanged. */
function rewritten(
  output: string,
  inputs: readonly string[],
  files: Record<string, string> = sources,
): string {
  const code = inputs.map((input) => files[input]).join(' ');
  return inTree({ ...files, [`dist/${output}`]: code }, (root) => {
    const entry = {
      inputs: Object.fromEntries(inputs.map((name) => [name, { bytesInOutput: 1 }])),
    };
    rewriteAddresses(root, { outputs: { [`dist/${output}`]: entry } }, path.join(root, 'dist'));
    return readFileSync(path.join(root, 'dist', output), 'utf8');
  });
}

test('modules that another one names by address stay files of their own', () => {
  const modules = inTree(sources, (root) =>
    threadModules(root, ['src/a/start.ts', 'src/b/root.ts']),
  );
  assert.deepEqual(modules, ['src/a/thread.ts']);
});

test('addresses lead from the place of the output', () => {
  assert.equal(rewritten('chunks/x.js', ['src/a/start.ts']), address("'../a/thread.js'"));
  assert.equal(rewritten('a/index.js', ['src/a/start.ts']), address("'./thread.js'"));
  assert.equal(
    rewritten('index.js', ['src/b/registry.ts']),
    address(`\`./b/configs/\${name}.yaml\``),
  );
  assert.equal(
    rewritten('chunks/x.js', ['src/b/root.ts']),
    `${address("'..'")} ${address("'../../package.json'")}`,
  );
  assert.equal(
    rewritten('index.js', ['src/b/root.ts']),
    `${address("'./'")} ${address("'../package.json'")}`,
  );
});

test('an address that leads nowhere, or to two places, fails the build', () => {
  const lost = { 'src/a/start.ts': address("'./thread.ts'") };
  assert.throws(
    () => rewritten('index.js', ['src/a/start.ts'], lost),
    /src\/a\/start\.ts names src\/a\/thread\.ts, which does not exist/,
  );
  const two = { ...sources, 'src/b/start.ts': address("'./thread.ts'"), 'src/b/thread.ts': '' };
  assert.throws(
    () => rewritten('index.js', ['src/a/start.ts', 'src/b/start.ts'], two),
    /thread\.ts is src\/b\/thread\.ts and src\/a\/thread\.ts in one chunk/,
  );
});
