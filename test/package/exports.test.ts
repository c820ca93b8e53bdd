import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { compareExports, listEntries } from '../../scripts/check-exports.ts';
import { projectRoot } from '../../scripts/project-files.ts';
import { inTree } from './tree.ts';

test('the exports of package.json are the entries of the folders', () => {
  assert.deepEqual(compareExports(projectRoot, listEntries(projectRoot)), []);
});

test('an entry that package.json lacks, adds or points elsewhere is reported', () => {
  const manifest = JSON.parse(readFileSync(path.join(projectRoot, 'package.json'), 'utf8'));
  const { './core': _, ...kept } = manifest.exports;
  const changed = { ...kept, './extra': './dist/extra.js', './nn': './dist/nn.js' };
  const files = { 'package.json': JSON.stringify({ exports: changed }) };
  const problems = inTree(files, (root) => compareExports(root, listEntries(root)));
  const names = problems.map((problem) => /exports\["([^"]+)"\]/.exec(problem)?.[1]);
  assert.deepEqual(names, ['./core', './nn', './extra']);
});

test('an entry is due as soon as its folder holds source', () => {
  const files = {
    'src/core/index.ts': '',
    'src/ops/add.ts': '',
    'src/nn/only.test.ts': '',
  };
  const entries = inTree(files, listEntries);
  const stateOf = (specifier: string) => entries.find((e) => e.specifier === specifier)?.state;
  assert.equal(stateOf('retune/core'), 'present');
  assert.equal(stateOf('retune/ops'), 'missing');
  assert.equal(stateOf('retune/nn'), 'not started');
  assert.equal(stateOf('retune'), 'not started');
});
