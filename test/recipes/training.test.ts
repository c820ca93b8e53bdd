import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { ConfigError, RetuneError } from '../../src/core/errors.ts';
import { openSafetensors } from '../../src/data/safetensors/reader.ts';
import { generateText } from '../../src/recipes/generate-text.ts';
import { prepareRun } from '../../src/recipes/prepare.ts';
import { findRecipe } from '../../src/recipes/registry.ts';
import { liveBytes } from '../../src/tensor/backend.ts';
import { pretrain, readLosses, readMetrics, tinyRun, weightsOf, workFolder } from './support.ts';

describe('pretrain', () => {
  test('leaves a run folder and no memory behind', async () => {
    await using work = await workFolder();
    const before = liveBytes();
    const { outcome, lines } = await pretrain(
      tinyRun(work.path, 'run', 'eval_every_n_steps=3', 'save_every_n_steps=2'),
    );
    assert.equal(liveBytes(), before);
    assert.equal(outcome.steps, 6);
    assert.equal(outcome.exitCode, 0);
    const run = join(work.path, 'run');
    assert.deepEqual((await readdir(run)).sort(), [
      'checkpoints',
      'config.yaml',
      'metrics.jsonl',
      'model',
      'tokenizer',
    ]);
    assert.deepEqual((await readdir(join(run, 'checkpoints'))).sort(), [
      'step-000004',
      'step-000006',
    ]);
    assert.deepEqual((await readdir(join(run, 'model'))).sort(), [
      'config.json',
      'model.safetensors',
      'tokenizer.json',
      'tokenizer_config.json',
    ]);
    const metrics = await readMetrics(run);
    const losses = metrics.filter((line) => line.loss !== undefined);
    assert.deepEqual(
      losses.map((line) => line.step),
      [1, 2, 3, 4, 5, 6],
    );
    assert.ok(losses.every((line) => Number(line.step_memory) > 0 && Number(line.grad_norm) > 0));
    assert.ok(Number(losses.at(-1)?.loss) < Number(losses[0]?.loss));
    assert.equal(metrics.filter((line) => line.validation_loss !== undefined).length, 2);
    assert.match(lines.join('\n'), /activation checkpointing: none/);
    assert.match(await readFile(join(run, 'config.yaml'), 'utf8'), /^max_steps: 6$/m);
  });

  test('gives the same bits with activations in a file, and leaves none behind', async () => {
    await using work = await workFolder();
    const eager = ['compile=false', 'gradient_accumulation_steps=2', 'max_steps=3'];
    await pretrain(tinyRun(work.path, 'plain', ...eager));
    const offload = `{ dir: ${work.path}, min_bytes: 0, depth: 1 }`;
    const { lines } = await pretrain(
      tinyRun(
        work.path,
        'moved',
        ...eager,
        `activation_checkpointing={ mode: full, offload: ${offload} }`,
      ),
    );
    const [plain, moved] = ['plain', 'moved'].map((name) => join(work.path, name));
    assert.ok(plain && moved);
    assert.deepEqual(await readLosses(moved), await readLosses(plain));
    assert.equal(await weightsOf(moved), await weightsOf(plain));
    assert.match(lines.join('\n'), /offload: .* moved out and .* back, .*waited/);
  });

  test('keeps a budget of step memory, with accumulated gradients too, and gives the same bits', async () => {
    await using work = await workFolder();
    const peakOf = async (name: string): Promise<number> => {
      const metrics = await readMetrics(join(work.path, name));
      return Math.max(...metrics.map((line) => Number(line.step_memory ?? 0)));
    };
    for (const steps of [1, 2]) {
      const shared = [`gradient_accumulation_steps=${steps}`, 'max_steps=2', 'batch_size=8'];
      const [plain, tight] = [`plain${steps}`, `tight${steps}`];
      await pretrain(tinyRun(work.path, plain, ...shared));
      const budget = Math.floor(0.8 * (await peakOf(plain)));
      const setting = `activation_checkpointing={ mode: budget, budget: ${budget}B }`;
      const { lines } = await pretrain(tinyRun(work.path, tight, ...shared, setting));
      const peak = await peakOf(tight);
      assert.ok(peak <= budget, `${peak} of ${budget} bytes`);
      assert.equal(
        await weightsOf(join(work.path, tight)),
        await weightsOf(join(work.path, plain)),
      );
      assert.match(lines.join('\n'), /budget \d+B: the compiler decides for each value/);
    }
  });

  test('gives the same bits with every way of checkpointing', async () => {
    await using work = await workFolder();
    const settings = {
      none: 'activation_checkpointing.mode=none',
      full: 'activation_checkpointing.mode=full',
      every: 'activation_checkpointing={ mode: every, every: 2 }',
      segments: 'activation_checkpointing={ mode: segments, segments: 1 }',
      selective:
        'activation_checkpointing={ mode: selective, selective: { save: [attention, q_proj], alternate_matmuls: 2 } }',
    };
    for (const execution of ['compile=true', 'compile=false']) {
      const results = new Set<string>();
      for (const [name, setting] of Object.entries(settings)) {
        const run = `${name}-${execution}`;
        await pretrain(tinyRun(work.path, run, setting, execution, 'max_steps=3'));
        const folder = join(work.path, run);
        results.add(JSON.stringify([await readLosses(folder), await weightsOf(folder)]));
      }
      assert.equal(results.size, 1, execution);
    }
  });

  test('accumulated micro-batches give nearly what one batch gives', async () => {
    await using work = await workFolder();
    const whole = tinyRun(work.path, 'whole', 'batch_size=4', 'max_steps=4');
    const parts = (name: string, ...more: string[]) =>
      tinyRun(work.path, name, 'gradient_accumulation_steps=2', 'max_steps=4', ...more);
    await pretrain(whole);
    await pretrain(parts('parts'));
    await pretrain(parts('eager', 'compile=false'));
    const expected = await readLosses(join(work.path, 'whole'));
    for (const name of ['parts', 'eager']) {
      const losses = await readLosses(join(work.path, name));
      assert.equal(losses.length, 4);
      losses.forEach((loss, i) => {
        assert.ok(Math.abs(Number(loss) - Number(expected[i])) < 1e-4, `${name} ${i}: ${loss}`);
      });
    }
  });

  test('trains in bfloat16, with sgd, and for epochs', async () => {
    await using work = await workFolder();
    await pretrain(tinyRun(work.path, 'bf16', 'dtype=bf16', 'max_steps=2'));
    await using file = await openSafetensors(join(work.path, 'bf16', 'model'));
    assert.ok(file.names.every((name) => file.info(name).dtype === 'bfloat16'));
    const sgd = ['optimizer.type=sgd', '~optimizer.betas', 'optimizer.momentum=0.9'];
    const { outcome } = await pretrain(
      tinyRun(work.path, 'sgd', ...sgd, '~max_steps', 'epochs=0.02'),
    );
    assert.ok(outcome.steps >= 1 && outcome.steps < 20);
  });

  test('keeps an earlier run unless told to replace it', async () => {
    await using work = await workFolder();
    const overrides = tinyRun(work.path, 'run', 'max_steps=1');
    await pretrain(overrides);
    await assert.rejects(pretrain(overrides), {
      name: 'ConfigError',
      message: /output_dir holds an earlier run .*resume_from_checkpoint=true.*overwrite=true/,
    });
    await pretrain([...overrides, 'overwrite=true']);
  });
});

describe('resuming', () => {
  for (const execution of ['compile=true', 'compile=false']) {
    test(`continues bit for bit (${execution})`, async () => {
      await using work = await workFolder();
      const common = [execution, 'gradient_accumulation_steps=2'];
      await pretrain(tinyRun(work.path, 'straight', ...common));
      const parts = tinyRun(work.path, 'parts', ...common, 'save_every_n_steps=2');
      await pretrain(parts);
      const checkpoint = join(work.path, 'parts', 'checkpoints', 'step-000004');
      await pretrain([...parts, `resume_from_checkpoint=${checkpoint}`]);
      const [straight, resumed] = ['straight', 'parts'].map((name) => join(work.path, name));
      assert.deepEqual(await readLosses(resumed!), await readLosses(straight!));
      assert.equal(await weightsOf(resumed!), await weightsOf(straight!));
    });
  }

  test('refuses other settings and folders that are no checkpoint', async () => {
    await using work = await workFolder();
    const overrides = tinyRun(work.path, 'run', 'save_every_n_steps=2', 'max_steps=2');
    await pretrain(overrides);
    const resume = [...overrides, 'resume_from_checkpoint=true'];
    await assert.rejects(pretrain([...resume, 'optimizer.lr=1e-4']), (error) => {
      assert.ok(error instanceof ConfigError);
      assert.match(error.message, /resume: optimizer differs from the checkpoint's.*1e-4|0\.0001/);
      return true;
    });
    await assert.rejects(pretrain([...resume, 'batch_size=1']), /resume: batch_size differs/);
    await writeFile(join(work.path, 'corpus.txt'), 'another text. '.repeat(500));
    await assert.rejects(pretrain(resume), /state belongs to other data/);
    await assert.rejects(pretrain([...overrides, `resume_from_checkpoint=${work.path}`]), {
      name: 'FileError',
      message: /is not a checkpoint/,
    });
  });
});

describe('a step that is not finite', () => {
  test('stops the run with the step and the op; the checkpoint before is whole', async () => {
    await using work = await workFolder();
    for (const execution of ['compile=true', 'compile=false']) {
      const name = `nan-${execution}`;
      const overrides = tinyRun(
        work.path,
        name,
        execution,
        'optimizer.lr=1e30',
        'lr_scheduler={ type: constant, num_warmup_steps: 2 }',
        'save_every_n_steps=1',
      );
      await assert.rejects(pretrain(overrides), (error) => {
        assert.ok(error instanceof RetuneError);
        assert.equal(error.code, 'non-finite');
        assert.match(
          error.message,
          /train: step 3 is not finite \(got loss [\w.]+, gradient norm (NaN|Infinity)\)/,
        );
        assert.match(
          error.message,
          /The first op with a bad result is \w+ .*\((forward|backward), float32\[/,
        );
        assert.match(error.message, /last good checkpoint is .*step-000002/);
        return true;
      });
      const run = join(work.path, name);
      assert.deepEqual((await readdir(join(run, 'checkpoints'))).sort(), [
        'step-000001',
        'step-000002',
      ]);
      await using file = await openSafetensors(join(run, 'checkpoints', 'step-000001', 'model'));
      assert.ok(file.names.length > 10);
      assert.ok(!existsSync(join(run, 'model')));
    }
  });
});

describe('full_finetune', () => {
  test('goes on from a saved model, on text and on conversations', async () => {
    await using work = await workFolder();
    await pretrain(tinyRun(work.path, 'base', 'max_steps=2', 'model.max_position_embeddings=64'));
    const common = [
      `model.folder=${join(work.path, 'base', 'model')}`,
      'sequence_length=64',
      'batch_size=2',
      'gradient_accumulation_steps=1',
      'eval_every_n_steps=0',
      'save_every_n_steps=0',
      'epochs=1',
      'optimizer.lr=3e-3',
    ];
    const run = async (config: string, overrides: string[]) => {
      const recipe = findRecipe('full_finetune');
      const prepared = await prepareRun(recipe, config, [...common, ...overrides]);
      return prepared.main({ log: () => {}, progress: false });
    };
    const text = await run('full_finetune/smollm2_135m', [
      `text.files=${join(work.path, 'corpus.txt')}`,
      `output_dir=${join(work.path, 'text')}`,
    ]);
    assert.ok(text.steps > 10 && text.loss < 5, JSON.stringify(text));

    await assert.rejects(
      run('full_finetune/smollm2_135m', [
        `text.files=${join(work.path, 'corpus.txt')}`,
        `output_dir=${join(work.path, 'long')}`,
        'sequence_length=65',
      ]),
      /got sequence_length: 65 and the model's max_position_embeddings: 64/,
    );

    const chats = Array.from({ length: 20 }, (_, i) =>
      JSON.stringify({ prompt: `add ${i} `, completion: `${i + 1}` }),
    );
    await writeFile(join(work.path, 'chats.jsonl'), chats.join('\n'));
    const conversations = await run('full_finetune/qwen2_5_0_5b_instruct', [
      `instructions.file=${join(work.path, 'chats.jsonl')}`,
      'instructions.template=plain',
      'instructions.validation_fraction=0.2',
      `output_dir=${join(work.path, 'chat')}`,
    ]);
    assert.equal(conversations.steps, 8);
    assert.ok(Number.isFinite(conversations.validationLoss));
    const folder = join(work.path, 'chat', 'model');
    const again = async () => generateText(folder, 'add 3 ', { maxNewTokens: 5, seed: 1 });
    assert.equal(await again(), await again());
  });
});
