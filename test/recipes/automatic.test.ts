/** Mode auto in whole runs: the memory is kept, results do not depend on the choice, and a resumed run keeps to it. */

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { InfeasibleBudgetError } from '../../src/core/errors.ts';
import type { MemoryChoice } from '../../src/recipes/memory/choice.ts';
import { fitMemory } from '../../src/recipes/memory/fit.ts';
import { prepareRun } from '../../src/recipes/prepare.ts';
import { findRecipe } from '../../src/recipes/registry.ts';
import { readCheckpoint } from '../../src/recipes/run/training-state.ts';
import { currentBackend, liveBytes } from '../../src/tensor/backend.ts';
import { pretrain, readLosses, readMetrics, tinyRun, weightsOf, workFolder } from './support.ts';

const batch = [
  'model.num_hidden_layers=1',
  'batch_size=4',
  'gradient_accumulation_steps=2',
  'sequence_length=32',
  'max_steps=4',
];

/** So much of the memory that a run with these overrides takes when nothing is scarce. */
async function memoryOf(overrides: readonly string[], share: number): Promise<number> {
  const run = await prepareRun(findRecipe('pretrain'), 'pretrain/byte_llama', [
    ...overrides,
    'activation_checkpointing.memory=1GiB',
  ]);
  return Math.ceil(share * fitMemory(await run.shape()).choice.totalBytes);
}

/** What `body` gives, and the most memory of all categories together that was live meanwhile. */
async function watched<T>(body: () => Promise<T>): Promise<{ result: T; peak: number }> {
  const before = liveBytes();
  let peak = before;
  const stop = currentBackend().allocator.observe(({ live }) => {
    peak = Math.max(peak, live);
  });
  try {
    return { result: await body(), peak: peak - before };
  } finally {
    stop();
  }
}

async function choiceOf(outputDir: string): Promise<MemoryChoice> {
  const [first] = await readMetrics(outputDir);
  assert.ok(first?.memory, 'no choice in metrics.jsonl');
  return first.memory;
}

for (const [execution, layers] of [
  ['compile=true', 1],
  ['compile=false', 3],
] as const) {
  test(`all that a run holds stays within the memory, as planned (${execution})`, async () => {
    await using work = await workFolder();
    for (const [name, adapt, share] of [
      ['tight', true, 0.6],
      ['some', false, 0.9],
      ['plenty', true, 1],
    ] as const) {
      const run = tinyRun(
        work.path,
        name,
        ...[execution, ...batch, `model.num_hidden_layers=${layers}`, 'max_steps=3'],
        ...['eval_every_n_steps=2', 'save_every_n_steps=2'],
        `activation_checkpointing={ mode: auto, adapt_batch: ${adapt} }`,
      );
      const memory = await memoryOf(run, share);
      const { peak, result } = await watched(() =>
        pretrain([...run, `activation_checkpointing.memory=${memory}B`]),
      );
      const text = result.lines.join('\n');
      const choice = await choiceOf(join(work.path, name));
      assert.ok(peak <= memory, `${peak} of ${memory} bytes`);
      assert.equal(peak, choice.totalBytes);
      assert.match(text, /memory for training: .* \(as memory says\)/);
      assert.match(text, /automatic: batch_size \d+.* in all \(parameters /);
      const noted = await readFile(join(work.path, name, 'config.yaml'), 'utf8');
      assert.match(noted, /mode: auto[\s\S]*\n# automatic: batch_size \d+/);
    }
  });
}

test('however a batch is divided, losses are those of the batch that was asked for', async () => {
  await using work = await workFolder();
  const shared = [...batch, 'max_steps=6', 'eval_every_n_steps=3'];
  const run = (name: string, setting: string): string[] =>
    tinyRun(work.path, name, ...shared, `activation_checkpointing=${setting}`);
  const results: { losses: (number | undefined)[]; validation: (number | undefined)[] }[] = [];
  const splits = new Set<number>();
  for (const [name, share] of [
    ['tight', 0.6],
    ['plenty', 1],
  ] as const) {
    const wish = run(name, '{ mode: auto, adapt_batch: true }');
    const memory = await memoryOf(wish, share);
    await pretrain([...wish, `activation_checkpointing.memory=${memory}B`]);
    const folder = join(work.path, name);
    splits.add((await choiceOf(folder)).chosen.batch_size);
    const validation = (await readMetrics(folder)).flatMap((line) => line.validation_loss ?? []);
    results.push({ losses: await readLosses(folder), validation });
  }
  assert.equal(splits.size, 2, [...splits].join());
  const plain = run('plain', '{ mode: none }');
  await pretrain(plain);
  const folder = join(work.path, 'plain');
  const validation = (await readMetrics(folder)).flatMap((line) => line.validation_loss ?? []);
  results.push({ losses: await readLosses(folder), validation });
  const [first, ...others] = results;
  for (const other of others) {
    for (const key of ['losses', 'validation'] as const) {
      assert.equal(other[key].length, first?.[key].length);
      other[key].forEach((loss, i) => {
        const expected = Number(first?.[key][i]);
        assert.ok(Math.abs(Number(loss) - expected) < 1e-4, `${key} ${i}: ${loss}, ${expected}`);
      });
    }
  }
});

for (const execution of ['compile=true', 'compile=false']) {
  test(`a resumed run keeps to what was chosen, bit for bit (${execution})`, async () => {
    await using work = await workFolder();
    const run = (name: string, ...more: string[]): string[] =>
      tinyRun(
        work.path,
        name,
        ...[execution, ...batch, 'save_every_n_steps=2'],
        'activation_checkpointing={ mode: auto, adapt_batch: true }',
        ...more,
      );
    const most = await memoryOf(run('straight'), 1);
    const scarce = { availableMemory: () => ({ bytes: Math.ceil(0.6 * most), from: 'a test' }) };
    const plenty = { availableMemory: () => ({ bytes: most, from: 'a test' }) };
    await pretrain(run('straight'), scarce);
    await pretrain(run('parts', 'max_steps=4'), scarce);
    const parts = join(work.path, 'parts');
    const checkpoint = join(parts, 'checkpoints', 'step-000002');
    const { state } = await readCheckpoint(checkpoint);
    assert.deepEqual(state.memory, await choiceOf(parts));

    const resume = run('parts', `resume_from_checkpoint=${checkpoint}`);
    const { lines } = await pretrain(resume, plenty);
    assert.match(lines.join('\n'), /automatic: as when the run began: batch_size \d+/);
    const straight = join(work.path, 'straight');
    assert.deepEqual(await readLosses(parts), await readLosses(straight));
    assert.equal(await weightsOf(parts), await weightsOf(straight));
    // Afresh it would be another choice, with other rounding.
    await pretrain(run('fresh'), plenty);
    assert.notDeepEqual((await choiceOf(join(work.path, 'fresh'))).chosen, state.memory?.chosen);

    const total = Number(state.memory?.totalBytes);
    const less = { availableMemory: () => ({ bytes: total - 1, from: 'a test' }) };
    const again = await pretrain(resume, less);
    assert.match(again.lines.join('\n'), /warning: that is more than there is now/);
    await assert.rejects(
      pretrain([...resume, `activation_checkpointing.memory=${total - 1}B`]),
      (error) => {
        assert.ok(error instanceof InfeasibleBudgetError);
        assert.match(error.message, /no longer fits .*Give at least memory: \d+/);
        assert.equal(error.details.smallestBytes, total);
        return true;
      },
    );
    await assert.rejects(pretrain([...resume, 'batch_size=8']), /resume: batch_size differs/);
    // Another mode with the same batches has the same rows and the same bits.
    const { batch_size, gradient_accumulation_steps } = state.memory?.chosen ?? assert.fail();
    await pretrain([
      ...resume,
      'activation_checkpointing={ mode: none }',
      ...[`batch_size=${batch_size}`, `gradient_accumulation_steps=${gradient_accumulation_steps}`],
    ]);
    assert.equal(await weightsOf(parts), await weightsOf(straight));
  });
}

test('a run of another mode that is resumed with auto keeps its batches', async () => {
  await using work = await workFolder();
  const run = (name: string): string[] =>
    tinyRun(work.path, name, ...batch, 'save_every_n_steps=2');
  await pretrain(run('straight'));
  await pretrain(run('parts'));
  const parts = join(work.path, 'parts');
  const checkpoint = join(parts, 'checkpoints', 'step-000002');
  await pretrain([
    ...run('parts'),
    `resume_from_checkpoint=${checkpoint}`,
    'activation_checkpointing={ mode: auto, adapt_batch: true, memory: 1GiB }',
  ]);
  const straight = join(work.path, 'straight');
  assert.deepEqual(await readLosses(parts), await readLosses(straight));
  assert.equal(await weightsOf(parts), await weightsOf(straight));
});

test('a run that does not fit is refused before it reads data or makes weights', async () => {
  await using work = await workFolder();
  const run = tinyRun(work.path, 'run', ...batch, 'dataset.files=nowhere');
  const before = liveBytes();
  const setting = 'activation_checkpointing={ mode: auto, memory: 10KiB }';
  const { peak } = await watched(() =>
    assert.rejects(pretrain([...run, setting]), InfeasibleBudgetError),
  );
  assert.equal(peak, 0);
  assert.equal(liveBytes(), before);
});
