import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkSize } from '../../scripts/check-size.ts';
import { checkSource } from '../../scripts/check-source.ts';
import { inTree } from './tree.ts';

const problemsOf = (files: Record<string, string>) =>
  inTree(files, (root) => checkSource(root).problems);

test('src throws the error classes of core', () => {
  const code = "export function f(): void {\n  throw new RangeError('x');\n}";
  assert.match(problemsOf({ 'src/ops/a.ts': code })[0] ?? '', /a\.ts:2: no-plain-error/);
  assert.deepEqual(problemsOf({ 'src/core/a.ts': code, 'src/ops/a.test.ts': code }), []);
});

const ops = {
  'src/ops/a.ts': "const mm = defineOp({ name: 'matmul' }); const add = pointwise('add', 1);",
  'src/ir/expr.ts': "export type BinaryOp = 'add' | 'mul';",
};

test('src/compile does not name ops', () => {
  const compare = "export const f = (n: { op: { name: string } }) => n.op.name === 'matmul';";
  const problems = problemsOf({ ...ops, 'src/compile/a.ts': compare });
  assert.deepEqual(problems, [
    "src/compile/a.ts:1: no-op-name: 'matmul' is the name of an op; ask its traits instead",
  ]);
  assert.deepEqual(problemsOf({ ...ops, 'src/models/a.ts': compare }), []);
});

test('a list or a switch of op names in src/compile is reported', () => {
  const list = "export const heavy = new Set(['matmul']);";
  assert.equal(problemsOf({ ...ops, 'src/compile/a.ts': list }).length, 1);
  const branch = "function f(op: Op) { switch (op.name) { case 'add': return 1; } }";
  assert.equal(problemsOf({ ...ops, 'src/compile/a.ts': branch }).length, 1);
});

test('a word of the scalar IR is an op name only where it is compared with a name', () => {
  const scalar = "export const f = (e: { op: string }) => e.op === 'add';";
  assert.deepEqual(problemsOf({ ...ops, 'src/compile/a.ts': scalar }), []);
  const byName = "export const f = (op: { name: string }) => op?.name !== 'add';";
  assert.equal(problemsOf({ ...ops, 'src/compile/a.ts': byName }).length, 1);
});

test('only src/core/env.ts reads the environment', () => {
  const read = "export const threads = globalThis.process?.env['THREADS'];";
  assert.match(problemsOf({ 'src/runtime/a.ts': read })[0] ?? '', /env-in-one-place/);
  assert.match(problemsOf({ 'src/cli/a.ts': 'f(process.env);' })[0] ?? '', /env-in-one-place/);
  assert.deepEqual(problemsOf({ 'src/core/env.ts': read }), []);
});

test('code is ASCII', () => {
  const problems = problemsOf({ 'src/cli/a.ts': "export const bar = '\u2588';" });
  assert.match(problems[0] ?? '', /a\.ts:1: ascii: character U\+2588/);
});

test('names say what a thing is', () => {
  const code = 'export class TensorManager {}\nexport const temperature = 1;\nlet newShape = 2;';
  const problems = problemsOf({ 'src/cli/shape-helper.ts': code });
  assert.deepEqual(
    problems.map((problem) => /'(\w[\w-]*)' contains '(\w+)'/.exec(problem)?.slice(1)),
    [
      ['shape-helper', 'helper'],
      ['TensorManager', 'manager'],
      ['newShape', 'new'],
    ],
  );
});

test('files above 400 lines are warned about, files above 600 fail', () => {
  const lines = (count: number) => 'x;\n'.repeat(count);
  const files = { 'src/a.ts': lines(400), 'src/b.ts': lines(401), 'src/c.ts': lines(601) };
  const { problems, warnings, median } = inTree(files, checkSize);
  assert.deepEqual(problems, ['src/c.ts: 601 lines, above 600']);
  assert.deepEqual(warnings, ['src/b.ts: 401 lines, above 400']);
  assert.equal(median, 401);
});
