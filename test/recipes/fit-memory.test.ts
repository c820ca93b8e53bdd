/** Mode auto on paper: what is chosen for an amount of memory, and what is said when there is too little. */

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type CheckpointingSpec, resolveSpec } from '../../src/checkpoint/apply-spec.ts';
import { ConfigError, InfeasibleBudgetError } from '../../src/core/errors.ts';
import type { Alternative } from '../../src/recipes/memory/alternatives.ts';
import { availableMemory, readMemory } from '../../src/recipes/memory/available.ts';
import type { MemoryChoice } from '../../src/recipes/memory/choice.ts';
import { fitMemory } from '../../src/recipes/memory/fit.ts';
import { prepareRun } from '../../src/recipes/prepare.ts';
import type { StepShape } from '../../src/recipes/recipe.ts';
import { findRecipe } from '../../src/recipes/registry.ts';
import { currentBackend, liveBytes } from '../../src/tensor/backend.ts';
import { defaultGenerator } from '../../src/tensor/generator.ts';

const mebibyte = 2 ** 20;

/** A small Llama with this setting of activation_checkpointing. */
async function shapeOf(setting: string, ...more: string[]): Promise<StepShape> {
  const run = await prepareRun(findRecipe('pretrain'), 'pretrain/byte_llama', [
    'model.hidden_size=32',
    'model.num_hidden_layers=2',
    'model.num_attention_heads=2',
    'model.num_key_value_heads=1',
    'batch_size=4',
    'sequence_length=32',
    `activation_checkpointing=${setting}`,
    ...more,
  ]);
  return run.shape();
}

async function choose(memory: number, setting = '', ...more: string[]): Promise<MemoryChoice> {
  const shape = await shapeOf(`{ mode: auto, memory: ${memory}B${setting} }`, ...more);
  return fitMemory(shape).choice;
}

async function refusalOf(
  memory: number,
  setting = '',
  ...more: string[]
): Promise<InfeasibleBudgetError> {
  const error = await choose(memory, setting, ...more).then(
    () => undefined,
    (cause: unknown) => cause,
  );
  assert.ok(error instanceof InfeasibleBudgetError, String(error));
  return error;
}

/** Memory that is just enough, from the refusal of far too little. */
async function leastOf(setting = '', ...more: string[]): Promise<number> {
  return Number((await refusalOf(1000, setting, ...more)).details.smallestBytes);
}

describe('what there is', () => {
  test('is the smallest reading less a margin', () => {
    const readings = [
      { what: 'the system has free', bytes: 8192 * mebibyte },
      { what: 'the backend can reach', bytes: 4096 * mebibyte },
    ];
    const { bytes, from } = availableMemory(readings);
    assert.equal(bytes, Math.floor(0.9 * 4096 * mebibyte));
    assert.equal(from, 'the backend can reach 4.00 GiB, less a margin of 409.6 MiB');
    const small = availableMemory([{ what: 'x', bytes: 512 * mebibyte }]);
    assert.equal(small.bytes, 384 * mebibyte);
    assert.equal(availableMemory([{ what: 'x', bytes: 100 * mebibyte }]).bytes, 50 * mebibyte);
    assert.equal(availableMemory([{ what: 'x', bytes: -5 }]).bytes, 0);
  });

  test('is read from the system and from the backend, with its limit and what it holds', () => {
    const ceiling = (): number => readMemory().find(({ what }) => /backend/.test(what))?.bytes ?? 0;
    assert.ok(readMemory().every(({ bytes }) => Number.isFinite(bytes)));
    const { allocator } = currentBackend();
    const all = ceiling();
    assert.ok(all > 2 ** 30);
    const block = allocator.alloc(mebibyte, 'temporary');
    assert.equal(ceiling(), all - mebibyte);
    allocator.setLimit(3 * mebibyte);
    assert.equal(ceiling(), 2 * mebibyte);
    allocator.setLimit(undefined);
    allocator.free(block);
  });

  test('is asked for only when the config does not say it, and shares are of it', async () => {
    const available = () => ({ bytes: 64 * mebibyte, from: 'a test' });
    const none = fitMemory(await shapeOf('{ mode: auto }'), { available }).choice;
    assert.equal(none.availableBytes, 64 * mebibyte);
    assert.equal(none.availableFrom, 'a test');
    const half = fitMemory(await shapeOf('{ memory: 50% }'), { available }).choice;
    assert.equal(half.availableBytes, 32 * mebibyte);
    fitMemory(await shapeOf('{ mode: auto, memory: 64MiB }'), { available: () => assert.fail() });
  });
});

describe('a choice', () => {
  for (const execution of ['compile=true', 'compile=false']) {
    for (const adapt of ['', ', adapt_batch: true']) {
      test(`stays within the memory, and more memory is never slower (${execution}${adapt})`, async () => {
        const accumulation = adapt === '' ? 1 : 2;
        const more = [execution, `gradient_accumulation_steps=${accumulation}`];
        const most = (await choose(2 ** 30, adapt, ...more)).totalBytes;
        const eager = execution === 'compile=false';
        const least = eager ? await leastOf(adapt, ...more) : 0.75 * most;
        assert.ok(least < 0.9 * most, `${least} of ${most}`);
        let before = Number.POSITIVE_INFINITY;
        const seen = new Set<string>();
        for (let i = 0; i <= 3; i++) {
          const memory = Math.ceil(least + ((most - least) * i) / 3);
          const choice = await choose(memory, adapt, ...more);
          const { chosen, asked, totalBytes } = choice;
          assert.ok(totalBytes <= memory, `${totalBytes} of ${memory}`);
          const { parameterBytes, optimizerBytes, gradientBytes, stepBytes } = choice;
          assert.equal(parameterBytes + optimizerBytes + gradientBytes + stepBytes, totalBytes);
          assert.equal(gradientBytes > 0, chosen.gradient_accumulation_steps > 1);
          assert.equal(
            chosen.batch_size * chosen.gradient_accumulation_steps,
            asked.batch_size * asked.gradient_accumulation_steps,
          );
          if (adapt === '') assert.equal(chosen.batch_size, 4);
          assert.ok(choice.estimatedNs <= before, `${choice.estimatedNs} after ${before}`);
          before = choice.estimatedNs;
          seen.add(JSON.stringify(chosen));
        }
        assert.ok(seen.size >= 2, [...seen].join());
        const last = await choose(most, adapt, ...more);
        assert.equal(last.chosen.activation_checkpointing.mode, 'none');
        assert.equal(last.extraTime, 0);
      });
    }
  }

  test('changes neither the backend, nor its memory, nor the random numbers', async () => {
    const backend = currentBackend();
    const live = liveBytes();
    defaultGenerator.manualSeed(3);
    await choose(2 ** 30);
    await refusalOf(1000, '', 'compile=false');
    assert.equal(currentBackend(), backend);
    assert.equal(liveBytes(), live);
    assert.deepEqual(defaultGenerator.getState(), { seed: 3, offset: 0 });
  });

  test('is the same each time, and other keys of the group stay', async () => {
    const memory = Math.ceil(0.8 * (await choose(2 ** 30)).totalBytes);
    const setting = `{ mode: auto, memory: ${memory}B, early_stop: false }`;
    const [one, two] = [fitMemory(await shapeOf(setting)), fitMemory(await shapeOf(setting))];
    assert.deepEqual(one, two);
    const group = one.training.activation_checkpointing;
    assert.equal(group?.mode, 'budget');
    assert.deepEqual(Object.keys(group ?? {}).sort(), ['budget', 'early_stop', 'mode']);
    assert.ok(one.choice.extraTime > 0);
  });
});

describe('a wish that cannot be kept', () => {
  for (const [execution, steps] of [
    ['compile=true', 4],
    ['compile=false', 4],
  ] as const) {
    test(`is refused with what it takes and what would fit (${execution}, ${steps})`, async () => {
      const more = [execution, `gradient_accumulation_steps=${steps}`];
      const least = await leastOf('', ...more);
      const memory = Math.floor(0.97 * least);
      const { message, details } = await refusalOf(memory, '', ...more);
      assert.equal(details.budgetBytes, memory);
      assert.equal(details.smallestBytes, least);
      const { totalBytes, ...parts } = details.needs as Record<string, number>;
      assert.ok(Number(totalBytes) <= least);
      assert.equal(
        Object.values(parts).reduce((sum, bytes) => sum + bytes, 0),
        totalBytes,
      );
      assert.match(message, /training does not fit .*as memory says.*in all \(parameters /s);
      assert.ok(message.includes(`memory: ${least}`), message);
      // The memory it names is enough.
      assert.ok((await choose(least, '', ...more)).totalBytes <= least);

      const alternatives = details.alternatives as Alternative[];
      const texts = alternatives.map(({ change }) => change);
      assert.ok(texts.includes('activation_checkpointing.adapt_batch: true'), texts.join());
      assert.ok(
        texts.some((text) => /^sequence_length: \d+$/.test(text)),
        texts.join(),
      );
      assert.ok(
        texts.includes('dtype: bf16') && texts.includes('optimizer.type: sgd without momentum'),
      );
      for (const { change, batch_size, totalBytes: bytes } of alternatives) {
        assert.ok(message.includes(change));
        assert.ok(bytes <= memory);
        const overrides: Record<string, string[]> = {
          'optimizer.type: sgd without momentum': ['optimizer.type=sgd', '~optimizer.betas'],
        };
        const [key = '', value = ''] = change.split(': ');
        const adapts = key.endsWith('adapt_batch');
        const changed = adapts ? [] : (overrides[change] ?? [`${key}=${value}`]);
        const choice = await choose(
          memory,
          adapts ? ', adapt_batch: true' : '',
          ...more,
          ...changed,
        );
        assert.ok(choice.totalBytes <= memory, change);
        assert.equal(choice.chosen.batch_size, batch_size, change);
      }
    });
  }

  test('names several changes together when no single one is enough', async () => {
    const needs = (await refusalOf(1000)).details.needs as { parameterBytes: number };
    const memory = Math.ceil(3.1 * needs.parameterBytes);
    const { message, details } = await refusalOf(memory);
    const [only, ...others] = details.alternatives as Alternative[];
    assert.ok(only && others.length === 0, message);
    assert.match(only.change, /adapt_batch: true, dtype: bf16/);
    assert.match((await refusalOf(1000)).message, /No other batch.*smaller model/);
  });
});

test('a config with another mode is not for fitMemory, and a model alone not for mode auto', async () => {
  const shape = await shapeOf('{ mode: full }');
  assert.throws(() => fitMemory(shape), ConfigError);
  const auto = { mode: 'auto' } as unknown as CheckpointingSpec;
  assert.throws(() => resolveSpec(auto), /whole training run.*fitMemory of retune\/recipes/);
});
