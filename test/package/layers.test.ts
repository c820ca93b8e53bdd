import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkLayers } from '../../scripts/check-layers.ts';
import { inTree } from './tree.ts';

/** Problems of a small tree that holds the given files; `kept` is its one declared package. */
function problemsOf(files: Record<string, string>): string[] {
  const manifest = JSON.stringify({ dependencies: { kept: '1' } });
  return inTree({ 'package.json': manifest, ...files }, (root) => checkLayers(root).problems);
}

const shape = { 'src/core/shape.ts': 'export const rank = 1;' };
const add = { 'src/ops/add.ts': 'export const add = 1; export type Add = 1;' };

test('an import from a higher layer is reported with file and line', () => {
  const problems = problemsOf({
    ...add,
    'src/core/a.ts': "\nimport { add } from '../ops/add.ts';",
  });
  assert.deepEqual(problems, [
    'src/core/a.ts:2: core may not import ops (src/ops/add.ts): ops is the higher layer',
  ]);
});

test('an import from a lower layer is fine', () => {
  assert.deepEqual(
    problemsOf({ ...shape, 'src/ops/a.ts': "import { rank } from '../core/shape.ts';" }),
    [],
  );
});

for (const [form, text] of [
  ['a type-only import', "import type { Add } from '../ops/add.ts';"],
  ['a re-export', "export * from '../ops/add.ts';"],
  ['a dynamic import', "const { add } = await import('../ops/add.ts');"],
  ['an import inside a type', "export type T = import('../ops/add.ts').Add;"],
] as const) {
  test(`${form} from a higher layer is reported`, () => {
    const problems = problemsOf({ ...add, 'src/ir/a.ts': text });
    assert.equal(problems.length, 1);
    assert.match(problems[0] ?? '', /^src\/ir\/a\.ts:1: ir may not import ops/);
  });
}

test('folders of one layer do not import each other', () => {
  const problems = problemsOf({
    'src/nn/linear.ts': 'export const linear = 1;',
    'src/optim/sgd.ts': "import { linear } from '../nn/linear.ts';",
  });
  assert.match(problems[0] ?? '', /optim may not import nn .* they are of one layer/);
});

test('a cycle inside a folder is reported once, types included', () => {
  const problems = problemsOf({
    'src/ir/a.ts': "import type { B } from './b.ts'; export type A = B;",
    'src/ir/b.ts': "import type { C } from './c.ts'; export type B = C;",
    'src/ir/c.ts': "import type { A } from './a.ts'; export type C = A;",
  });
  assert.deepEqual(problems, [
    'src/ir/a.ts:1: import cycle: src/ir/a.ts -> src/ir/b.ts -> src/ir/c.ts -> src/ir/a.ts',
  ]);
});

test('nothing inside src imports a public entry', () => {
  const problems = problemsOf({
    'src/core/index.ts': "export { rank } from './shape.ts';",
    'src/ops/a.ts': "import { rank } from '../core/index.ts';",
    ...shape,
  });
  assert.match(problems[0] ?? '', /src\/ops\/a\.ts:1: imports the public entry/);
});

test('src does not import what is not shipped: tests, files outside, undeclared packages', () => {
  const problems = problemsOf({
    'src/ops/add.test.ts': 'export const sample = 1;',
    'bench/main.ts': 'export const bench = 1;',
    'src/cli/a.ts': [
      "import { sample } from '../ops/add.test.ts';",
      "import { bench } from '../../bench/main.ts';",
      "import { y } from 'not-declared/deep';",
      "import { x } from 'kept/deep';",
    ].join('\n'),
  });
  assert.equal(problems.length, 3);
  assert.match(problems[0] ?? '', /a\.ts:1: imports the test file/);
  assert.match(problems[1] ?? '', /a\.ts:2: src may not import bench\/main\.ts/);
  assert.match(problems[2] ?? '', /a\.ts:3: not-declared is not among/);
});

test('a browser-safe folder may not import node: statically', () => {
  const problems = problemsOf({ 'src/ops/a.ts': "import { readFileSync } from 'node:fs';" });
  assert.match(problems[0] ?? '', /ops runs in browsers and may not import node:fs/);
  assert.deepEqual(problemsOf({ 'src/data/a.ts': "import { readFileSync } from 'node:fs';" }), []);
});

test('the viewer and every folder may import the event types, which import nothing', () => {
  const schema = { 'src/observe/schema.ts': 'export interface Event { readonly bytes: number }' };
  const use = "import type { Event } from '../observe/schema.ts'; export type E = Event;";
  assert.deepEqual(problemsOf({ ...schema, 'src/core/a.ts': use }), []);
  const view = "import type { Event } from '../src/observe/schema.ts';";
  assert.deepEqual(problemsOf({ ...schema, 'viewer/a.ts': view }), []);
  const problems = problemsOf({ ...shape, 'viewer/a.ts': "import '../src/core/shape.ts';" });
  assert.match(problems[0] ?? '', /the viewer may import src\/observe\/schema\.ts only/);
});

test('a folder without a place in the order is reported', () => {
  const problems = problemsOf({ 'src/extras/a.ts': 'export const a = 1;' });
  assert.match(problems[0] ?? '', /src\/extras has no place/);
});
