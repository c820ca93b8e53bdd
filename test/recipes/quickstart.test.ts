import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { prepareRun } from '../../src/recipes/prepare.ts';
import { findRecipe } from '../../src/recipes/registry.ts';
import {
  type ComparedSetting,
  formatComparison,
  unequalLosses,
} from '../../src/recipes/run/compare-checkpointing.ts';
import { liveBytes } from '../../src/tensor/backend.ts';
import { workFolder } from './support.ts';

test('quickstart trains, writes, and compares ways of checkpointing', async () => {
  await using work = await workFolder();
  const before = liveBytes();
  const lines: string[] = [];
  const prepared = await prepareRun(findRecipe('quickstart'), 'quickstart', [
    `dataset.files=${join(work.path, 'corpus.txt')}`,
    'dataset.validation_fraction=0.1',
    `output_dir=${join(work.path, 'run')}`,
    'model={ hidden_size: 32, num_hidden_layers: 4, num_attention_heads: 2 }',
    'batch_size=2',
    'sequence_length=32',
    'max_steps=4',
    'lr_scheduler.num_warmup_steps=1',
    'sample.max_new_tokens=10',
    'comparison={ batch_size: 2, steps: 3 }',
  ]);
  const outcome = await prepared.main({ log: (line) => lines.push(line), progress: false });
  assert.equal(liveBytes(), before);
  assert.equal(outcome.exitCode, 0, lines.join('\n'));
  const text = lines.join('\n');
  assert.match(text, /The model writes \(after 'interface '\)/);
  assert.match(text, /validation loss of this model +\d\.\d{3} nats\/byte/);
  assert.match(text, /validation loss of byte triples +\d\.\d{3} nats\/byte/);
  assert.match(text, /Losses are bitwise equal across the rows of each execution/);
  const rows = text.split('\n').filter((line) => /^(eager|compiled) /.test(line));
  assert.equal(rows.length, 6);
  for (const execution of ['eager', 'compiled']) {
    const own = rows.filter((row) => row.startsWith(execution)).map((row) => row.split(/ {2,}/));
    const peaks = own.map((row) => Number.parseFloat(row[2] ?? ''));
    assert.ok(peaks[0]! > peaks[1]! && peaks[1]! > peaks[2]!, `${execution}: ${peaks}`);
    assert.equal(new Set(own.map((row) => row.at(-1))).size, 1);
    if (execution === 'compiled') for (const row of own) assert.equal(row[2], row[3]);
  }
  assert.ok((await readdir(join(work.path, 'run'))).includes('model'));
});

test('the table says when losses differ', () => {
  const row = (execution: ComparedSetting['execution'], loss: number): ComparedSetting => ({
    execution,
    setting: 'none',
    measuredPeak: 2 ** 20,
    plannedPeak: execution === 'compiled' ? 2 ** 20 : undefined,
    tokensPerSecond: 1000,
    timeFactor: 1.234,
    loss,
  });
  assert.deepEqual(unequalLosses([row('eager', 1), row('eager', 1), row('compiled', 2)]), []);
  assert.deepEqual(unequalLosses([row('eager', 1), row('eager', 1 + 2e-16), row('compiled', 2)]), [
    'eager',
  ]);
  const [header, rule, line] = formatComparison([row('compiled', 2)]).split('\n');
  assert.match(
    header ?? '',
    /^execution +checkpointing +measured peak +planned peak +tokens\/s +extra time +loss$/,
  );
  assert.match(rule ?? '', /^-+( +-+)+$/);
  assert.match(line ?? '', /^compiled +none +1\.00 MiB +1\.00 MiB +1,000 +\+23% +2\.000000$/);
});
