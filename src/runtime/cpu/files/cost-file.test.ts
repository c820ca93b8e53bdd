import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { CostFile } from './cost-file.ts';

let folder = '';
const before = process.env.RETUNE_CACHE_DIR;

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'retune-cost-file-'));
  process.env.RETUNE_CACHE_DIR = path.join(folder, 'cache');
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
  if (before === undefined) delete process.env.RETUNE_CACHE_DIR;
  else process.env.RETUNE_CACHE_DIR = before;
});

const files = (): string[] => readdirSync(path.join(folder, 'cache'));
const saved = (): Promise<void> => Promise.resolve();

test('what one process measured the next one knows, on the same device', async () => {
  const first = new CostFile(() => 'processor a');
  assert.equal(first.get('work'), undefined);
  first.set('work', 1200);
  first.set('more work', 30);
  assert.equal(first.get('work'), 1200);
  await saved();
  assert.equal(new CostFile(() => 'processor a').get('work'), 1200);
  assert.equal(new CostFile(() => 'processor a').get('more work'), 30);
  assert.equal(new CostFile(() => 'processor b').get('work'), undefined);
  assert.equal(files().length, 1);
});

test('processes that write the same file keep what the others found', async () => {
  const [a, b] = [new CostFile(() => 'device'), new CostFile(() => 'device')];
  assert.equal(a.get('x') ?? b.get('x'), undefined);
  a.set('x', 1);
  await saved();
  b.set('y', 2);
  await saved();
  const next = new CostFile(() => 'device');
  assert.deepEqual([next.get('x'), next.get('y')], [1, 2]);
});

test('a spoilt file counts as none and is replaced', async () => {
  new CostFile(() => 'device').set('x', 1);
  await saved();
  const file = path.join(folder, 'cache', files()[0] as string);
  for (const spoilt of ['{"a', '[]', 'null', '{"x":"fast","y":-1}', '']) {
    writeFileSync(file, spoilt);
    const costs = new CostFile(() => 'device');
    assert.equal(costs.get('x'), undefined, spoilt);
    costs.set('x', 7);
    await saved();
    assert.equal(Object.values(JSON.parse(readFileSync(file, 'utf8'))).join(), '7', spoilt);
  }
});

test('a folder that cannot be made costs nothing but the file', async () => {
  writeFileSync(path.join(folder, 'cache'), 'a file in the way');
  const costs = new CostFile(() => 'device');
  costs.set('x', 1);
  await saved();
  assert.equal(costs.get('x'), 1);
  assert.deepEqual(readdirSync(folder), ['cache']);
});
