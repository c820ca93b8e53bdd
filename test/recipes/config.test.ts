import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ConfigError } from '../../src/core/errors.ts';
import { describeKeys, formatKeys } from '../../src/recipes/config/describe.ts';
import { applyOverrides, formatYaml, parseYaml } from '../../src/recipes/config/load.ts';
import { prepareRun } from '../../src/recipes/prepare.ts';
import { findRecipe, readConfig, recipeOfConfig, recipes } from '../../src/recipes/registry.ts';

const pretrain = findRecipe('pretrain');

/** The ConfigError of byte_llama with these overrides. */
async function failure(...overrides: string[]): Promise<ConfigError> {
  const error = await prepareRun(pretrain, 'pretrain/byte_llama', overrides).then(
    () => undefined,
    (cause: unknown) => cause,
  );
  assert.ok(error instanceof ConfigError, `${overrides.join(' ')} was accepted`);
  return error;
}

describe('the configs that come with Retune', () => {
  for (const recipe of recipes) {
    for (const name of recipe.configs) {
      test(`${name} is valid for ${recipe.name}, and so is what it resolves to`, async () => {
        const { config } = await prepareRun(recipe, name, []);
        const resolved = await parseYaml(await formatYaml(config), 'resolved');
        const again = await recipe.prepare(resolved, 'resolved');
        assert.deepEqual(again.config, config);
        assert.equal(recipeOfConfig(name), recipe);
      });
    }
  }

  test('every key is documented', async () => {
    for (const recipe of recipes) {
      const keys = describeKeys(await recipe.schema());
      assert.ok(keys.length > 30);
      for (const key of keys) {
        assert.ok(key.doc.length > 10, `${recipe.name}: ${key.path} has no text`);
        assert.ok(key.group || key.values.length > 3, `${recipe.name}: ${key.path} has no values`);
      }
      const lines = formatKeys(keys, 80).split('\n');
      assert.ok(lines.every((line) => line.length <= 80));
    }
  });
});

describe('overrides', () => {
  test('set values of every kind, make groups, and remove keys', async () => {
    const changed = await applyOverrides({ a: 1, group: { x: 1, y: 2 }, gone: 3 }, [
      'a=3e-4',
      'group.x=[0.9, 0.95]',
      'made.here=true',
      'text=a=b',
      'empty=',
      '~gone',
      '~group.y',
    ]);
    assert.deepEqual(changed, {
      a: 3e-4,
      group: { x: [0.9, 0.95] },
      made: { here: true },
      text: 'a=b',
      empty: null,
    });
  });

  test('leave the given config as it is', async () => {
    const given = { group: { x: 1 } };
    await applyOverrides(given, ['group.x=2']);
    assert.deepEqual(given, { group: { x: 1 } });
  });

  test('that are no assignments, or go below a value, are errors', async () => {
    await assert.rejects(applyOverrides({}, ['lr']), /'lr' is not of the form key=value/);
    await assert.rejects(applyOverrides({}, ['=3']), /not of the form/);
    await assert.rejects(
      applyOverrides({ lr: 1 }, ['lr.x=2']),
      /goes below lr, which is not a group of keys \(got 1\)/,
    );
  });
});

describe('a wrong config', () => {
  test('names unknown keys with the nearest legal ones', async () => {
    const error = await failure('optimizer.learning_rate=1', 'bach_size=2');
    assert.match(error.message, /unknown key bach_size \(got 2\)\. Did you mean batch_size/);
    assert.match(error.message, /unknown key optimizer\.learning_rate \(got 1\)\. Did you mean/);
    assert.deepEqual(
      new Set(error.details.keys as string[]),
      new Set(['optimizer.learning_rate', 'bach_size']),
    );
    const misplaced = await failure('lr=1');
    assert.match(misplaced.message, /unknown key lr .*Did you mean optimizer\.lr/);
  });

  test('says what a value must be', async () => {
    const cases: [string, RegExp][] = [
      ['batch_size=0', /batch_size must be a whole number of at least 1 \(got 0\)/],
      ['batch_size=two', /batch_size must be a whole number of at least 1 \(got "two"\)/],
      ['optimizer.betas=[0.9]', /optimizer\.betas must be two numbers from 0 to below 1/],
      ['optimizer.type=adam', /optimizer\.type must be one of adamw, sgd \(got "adam"\)/],
      ['dtype=fp8', /dtype must be one of fp32, bf16 \(got "fp8"\)/],
      ['clip_grad_norm=-1', /clip_grad_norm must be a number above 0, or null \(got -1\)/],
      ['compile=yes please', /compile must be true or false/],
      ['~batch_size', /batch_size is missing\. Give a whole number/],
      ['~optimizer', /optimizer is missing/],
    ];
    for (const [override, message] of cases) {
      assert.match((await failure(override)).message, message, override);
    }
  });

  test('names both of two keys that contradict each other', async () => {
    const cases: [string[], string[]][] = [
      [['epochs=1'], ['max_steps: 500', 'epochs: 1']],
      [['optimizer.momentum=0.9'], ['optimizer.type: "adamw"', 'optimizer.momentum: 0.9']],
      [
        ['optimizer.type=sgd', 'optimizer.nesterov=true', '~optimizer.betas'],
        ['optimizer.nesterov: true', 'optimizer.momentum: 0'],
      ],
      [
        ['lr_scheduler.num_warmup_steps=501'],
        ['lr_scheduler.num_warmup_steps: 501', 'max_steps: 500'],
      ],
      [['tokenizer.path=x'], ['tokenizer.type: "byte"', 'tokenizer.path: "x"']],
      [['model.config_file=x'], ['model.config_file: "x"', 'model.architecture: "llama"']],
      [
        ['model.max_position_embeddings=8'],
        ['sequence_length: 256', 'model.max_position_embeddings: 8'],
      ],
      [['model.sliding_window=8'], ['model.architecture: "llama"', 'model.sliding_window: 8']],
      [
        ['enable_activation_checkpointing=true'],
        ['activation_checkpointing.mode: "none"', 'enable_activation_checkpointing: true'],
      ],
      [
        ['activation_checkpointing={ mode: full, offload: { depth: 1 } }'],
        ['compile: true', 'activation_checkpointing.offload: {"depth":1}', 'compile: false'],
      ],
      [
        ['activation_checkpointing.mode=full', 'enable_activation_offloading=true'],
        ['compile: true', 'enable_activation_offloading: true'],
      ],
      [['enable_activation_offloading=true'], ["'enable_activation_offloading'", 'mode none']],
      [
        ['activation_checkpointing={ offload: { min_bytes: lots } }'],
        ['activation_checkpointing.offload.min_bytes', '64KiB'],
      ],
      [
        ['activation_checkpointing={ mode: auto, memory: plenty }'],
        ['activation_checkpointing.memory must be bytes such as 512MiB', '"plenty"'],
      ],
      [
        ['activation_checkpointing={ mode: full, memory: 1GiB }'],
        ['activation_checkpointing.memory: "1GiB"', 'activation_checkpointing.mode: "full"'],
      ],
      [
        ['activation_checkpointing={ mode: none, adapt_batch: true }'],
        ['activation_checkpointing.adapt_batch: true', 'activation_checkpointing.mode: "none"'],
      ],
      [
        ['activation_checkpointing={ mode: auto, adapt_batch: maybe }'],
        ['activation_checkpointing.adapt_batch must be true or false'],
      ],
      [
        ['activation_checkpointing={ memory: 1GiB, every: 2 }'],
        ['activation_checkpointing.mode: "auto"', 'activation_checkpointing.every: 2'],
      ],
      [
        ['activation_checkpointing={ mode: auto, offload: { depth: 1 } }', 'compile=false'],
        ['activation_checkpointing.mode: "auto"', 'activation_checkpointing.offload: {"depth":1}'],
      ],
      [
        ['activation_checkpointing={ mode: auto }', 'ac_mode=full'],
        ['activation_checkpointing.mode: "auto"', 'ac_mode: "full"'],
      ],
      [
        ['overwrite=true', 'resume_from_checkpoint=true'],
        ['overwrite: true', 'resume_from_checkpoint: true'],
      ],
    ];
    for (const [overrides, parts] of cases) {
      const { message } = await failure(...overrides);
      for (const part of parts) assert.ok(message.includes(part), `${part} not in: ${message}`);
    }
    assert.match((await failure('~max_steps')).message, /neither max_steps nor epochs/);
    assert.match(
      (await failure('tokenizer.type=huggingface')).message,
      /tokenizer\.path is missing/,
    );
  });

  test("understands torchtune's checkpointing keys", async () => {
    const accepted = await prepareRun(pretrain, 'pretrain/byte_llama', [
      '~activation_checkpointing',
      'enable_activation_checkpointing=true',
      'ac_mode=selective',
      'ac_option=2',
    ]);
    assert.ok(accepted.config);
    await prepareRun(pretrain, 'pretrain/byte_llama', [
      '~activation_checkpointing',
      'ac_mode=selective',
      'ac_option=op',
    ]);
    const error = await failure(
      '~activation_checkpointing',
      'enable_activation_checkpointing=false',
      'ac_mode=full',
    );
    assert.match(error.message, /enable_activation_checkpointing/);
    assert.match(error.message, /ac_mode/);
  });

  test('says what layers keep', async () => {
    const selective = (words: string): string[] => [
      '~activation_checkpointing',
      `activation_checkpointing={ mode: selective, selective: ${words} }`,
    ];
    await prepareRun(
      pretrain,
      'pretrain/byte_llama',
      selective('{ save: [matmul, "name:x"], compress: { mlp: bf16 }, alternate_matmuls: 2 }'),
    );
    const refused = async (words: string, pattern: RegExp): Promise<void> =>
      assert.match((await failure(...selective(words))).message, pattern);
    await refused('{ saves: matmul }', /saves.*save/);
    await refused('{ alternate_matmuls: 1 }', /alternate_matmuls.*at least 2/);
    await refused('{ compress: { mlp: fp4 } }', /compress.*fp8/);
    await refused('{}', /at least one of save/);
    await refused('{ save: matmul, recompute: matmul }', /told two things/);
  });

  test('that is no YAML object is an error with the line', async () => {
    await assert.rejects(
      parseYaml('a: [1, 2', 'my.yaml'),
      /my\.yaml: it is not valid YAML .*line 1/,
    );
    await assert.rejects(parseYaml('a: 1\na: 2', 'my.yaml'), /my\.yaml: .*unique/);
    await assert.rejects(
      parseYaml('- 1', 'my.yaml'),
      /a config is a list of keys with values \(got \[1\]\)/,
    );
  });

  test('that does not exist is an error with the nearest names', async () => {
    await assert.rejects(readConfig('pretrain/byte_lama'), {
      name: 'FileError',
      message: /there is no config 'pretrain\/byte_lama'.*Did you mean pretrain\/byte_llama/,
    });
    assert.throws(() => findRecipe('pretain'), /no recipe 'pretain'\. Did you mean pretrain/);
  });
});
