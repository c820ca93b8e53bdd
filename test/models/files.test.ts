/** Loading and saving: round trips, shards, dtypes, and what is refused. */

import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ConfigError, FileError } from '../../src/core/errors.ts';
import { byteLlama } from '../../src/models/byte-llama.ts';
import { modelFromConfig, parameterCount, readConfig } from '../../src/models/from-config.ts';
import {
  llama2_7bConfig,
  llama3_1_8bConfig,
  llama3_2_1bConfig,
  llama3_2_3bConfig,
} from '../../src/models/llama/sizes.ts';
import { loadModel } from '../../src/models/load.ts';
import { mistral_7b_v0_3Config, mistral_7bConfig } from '../../src/models/mistral/sizes.ts';
import { parameterShapes } from '../../src/models/decoder/decoder-config.ts';
import {
  qwen2_5_0_5bConfig,
  qwen2_5_1_5bConfig,
  qwen2_5_3bConfig,
  qwen2_5_7bConfig,
} from '../../src/models/qwen2/sizes.ts';
import {
  qwen3_0_6bConfig,
  qwen3_1_7bConfig,
  qwen3_4bConfig,
  qwen3_8bConfig,
} from '../../src/models/qwen3/sizes.ts';
import { saveModel } from '../../src/models/save.ts';
import {
  smollm2_1_7bConfig,
  smollm2_135mConfig,
  smollm2_360mConfig,
} from '../../src/models/smollm2/sizes.ts';
import { liveBytes } from '../../src/tensor/backend.ts';
import { toArray } from '../../src/tensor/factory.ts';
import { Generator } from '../../src/tensor/generator.ts';
import { fixturePath, modelGroups } from '../support/fixtures.ts';

const before = liveBytes();

test.after(() => assert.equal(liveBytes(), before, 'memory was not given back'));

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'retune-models-'));
  try {
    await body(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

test('a saved model loads back bit for bit, in one file and in shards', async () => {
  await inFolder(async (folder) => {
    using model = await loadModel(fixturePath('models/qwen3'));
    for (const maxShardBytes of [1e9, 10_000]) {
      const saved = await saveModel(model, join(folder, 'saved'), { maxShardBytes });
      assert.equal(saved.files.length > 1, maxShardBytes < 1e9);
      using again = await loadModel(join(folder, 'saved'));
      assert.deepEqual(again.config, model.config);
      const other = new Map(again.namedParameters());
      for (const [name, parameter] of model.namedParameters()) {
        const twin = other.get(name);
        assert.ok(twin);
        assert.deepEqual(toArray(twin), toArray(parameter), name);
      }
    }
  });
});

test('config.json keeps every field, with the dtype of the files', async () => {
  await inFolder(async (folder) => {
    const path = join(folder, 'saved');
    const original = JSON.parse(await readFile(fixturePath('models/llama3/config.json'), 'utf8'));
    using model = await loadModel(fixturePath('models/llama3'));
    await saveModel(model, path, { dtype: 'bfloat16' });
    const config = JSON.parse(await readFile(join(path, 'config.json'), 'utf8'));
    assert.deepEqual(config, { ...original, dtype: 'bfloat16' });
    using kept = await loadModel(path);
    assert.equal(kept.dtype, 'bfloat16');
    using wide = await loadModel(path, { dtype: 'float32' });
    assert.equal(wide.dtype, 'float32');
    const values = toArray(wide.lmHead.weight);
    assert.deepEqual(values, toArray(kept.lmHead.weight));
    const exact = toArray(model.lmHead.weight);
    assert.ok(
      values.every((value, i) => Math.abs(value - (exact[i] ?? 0)) <= Math.abs(value) / 256),
    );
  });
});

test('a bfloat16 file keeps its dtype unless told otherwise', async () => {
  using model = await loadModel(fixturePath('models/smollm2'));
  assert.equal(model.dtype, 'bfloat16');
  assert.ok([...model.parameters()].every(({ dtype }) => dtype === 'bfloat16'));
});

test('companion files are copied on request', async () => {
  await inFolder(async (folder) => {
    using model = byteLlama({ hidden: 8, layers: 1 });
    await saveModel(model, join(folder, 'a'));
    await writeFile(join(folder, 'a', 'tokenizer.json'), '{}');
    await writeFile(join(folder, 'a', 'notes.txt'), 'mine');
    await saveModel(model, join(folder, 'b'), { copyFrom: join(folder, 'a') });
    assert.deepEqual((await readdir(join(folder, 'b'))).sort(), [
      'config.json',
      'model.safetensors',
      'tokenizer.json',
    ]);
  });
});

test('a tied model is saved without its second name', async () => {
  await inFolder(async (folder) => {
    using model = byteLlama({ hidden: 8, layers: 1 });
    assert.equal([...model.stateDict().keys()].includes('lm_head.weight'), false);
    await saveModel(model, join(folder, 'tied'));
    using again = await loadModel(join(folder, 'tied'));
    assert.equal(again.lmHead.weight, again.model.embedTokens.weight);
  });
});

test('weights of another configuration are refused with the name and both shapes', async () => {
  await inFolder(async (folder) => {
    using small = byteLlama({ hidden: 8, layers: 1 });
    using large = byteLlama({ hidden: 8, layers: 2, tiedEmbeddings: false });
    const path = join(folder, 'mixed');
    const put = async (source: object): Promise<void> => {
      await saveModel(small, path);
      await writeFile(join(path, 'config.json'), JSON.stringify(source));
    };
    await put(large.source);
    await assert.rejects(
      loadModel(path),
      /10 missing: model\.layers\.1\.self_attn\.q_proj\.weight/,
    );
    await put({ ...small.source, vocab_size: 300 });
    await assert.rejects(
      loadModel(path),
      /'model\.embed_tokens\.weight' has another shape \(expected \[300, 8\], got \[256, 8\]\)/,
    );
    await put({ ...small.source, num_hidden_layers: 0 });
    await assert.rejects(loadModel(path), /'num_hidden_layers' is not supported \(got 0\)/);
    await rm(join(path, 'config.json'));
    await assert.rejects(loadModel(path), FileError);
  });
});

test('what is not supported is named with its value and what is', () => {
  using model = byteLlama({ hidden: 8, layers: 1 });
  const refused = (change: object, pattern: RegExp): void => {
    assert.throws(
      () => readConfig({ ...model.source, ...change }),
      (error: unknown) => error instanceof ConfigError && pattern.test(error.message),
      JSON.stringify(change),
    );
  };
  refused(
    { architectures: ['GPT2LMHeadModel'] },
    /'architectures'.*GPT2LMHeadModel.*LlamaForCausalLM, Mistral/,
  );
  refused({ architectures: undefined, model_type: 'mamba' }, /'model_type'.*mamba.*llama, mistral/);
  refused({ hidden_act: 'gelu' }, /'hidden_act'.*"gelu".*"silu"/);
  refused(
    { rope_scaling: { type: 'dynamic', factor: 2 } },
    /'rope_scaling\.type'.*dynamic.*linear/,
  );
  refused({ rope_scaling: { rope_type: 'yarn', factor: 2 } }, /'rope_scaling\.rope_type'.*yarn/);
  refused(
    { rope_parameters: { rope_type: 'llama3', rope_theta: 1e4 } },
    /'rope_parameters\.factor'.*nothing/,
  );
  refused({ attention_dropout: 0.1 }, /'attention_dropout'/);
  refused({ quantization_config: { bits: 4 } }, /'quantization_config'/);
  refused({ num_key_value_heads: 3, num_attention_heads: 4 }, /'num_key_value_heads'.*divisor/);
  refused({ hidden_size: undefined }, /'hidden_size'.*nothing/);
});

test('named sizes have the published number of parameters', () => {
  const published: [string, number][] = [
    ['smollm2_135m', 134_515_008],
    ['smollm2_360m', 361_821_120],
    ['smollm2_1_7b', 1_711_376_384],
    ['llama2_7b', 6_738_415_616],
    ['llama3_1_8b', 8_030_261_248],
    ['llama3_2_1b', 1_235_814_400],
    ['llama3_2_3b', 3_212_749_824],
    ['mistral_7b', 7_241_732_096],
    ['mistral_7b_v0_3', 7_248_023_552],
    ['qwen2_5_0_5b', 494_032_768],
    ['qwen2_5_1_5b', 1_543_714_304],
    ['qwen2_5_3b', 3_085_938_688],
    ['qwen2_5_7b', 7_615_616_512],
    ['qwen3_0_6b', 596_049_920],
    ['qwen3_1_7b', 1_720_574_976],
    ['qwen3_4b', 4_022_468_096],
    ['qwen3_8b', 8_190_735_360],
  ];
  const configs: Record<string, Parameters<typeof parameterCount>[0]> = {
    smollm2_135m: smollm2_135mConfig,
    smollm2_360m: smollm2_360mConfig,
    smollm2_1_7b: smollm2_1_7bConfig,
    llama2_7b: llama2_7bConfig,
    llama3_1_8b: llama3_1_8bConfig,
    llama3_2_1b: llama3_2_1bConfig,
    llama3_2_3b: llama3_2_3bConfig,
    mistral_7b: mistral_7bConfig,
    mistral_7b_v0_3: mistral_7b_v0_3Config,
    qwen2_5_0_5b: qwen2_5_0_5bConfig,
    qwen2_5_1_5b: qwen2_5_1_5bConfig,
    qwen2_5_3b: qwen2_5_3bConfig,
    qwen2_5_7b: qwen2_5_7bConfig,
    qwen3_0_6b: qwen3_0_6bConfig,
    qwen3_1_7b: qwen3_1_7bConfig,
    qwen3_4b: qwen3_4bConfig,
    qwen3_8b: qwen3_8bConfig,
  };
  for (const [name, count] of published) {
    const config = configs[name];
    assert.ok(config, name);
    assert.equal(parameterCount(config), count, name);
  }
});

test('parameterShapes are the shapes of the built model, in its order', async () => {
  for (const group of modelGroups()) {
    const config = JSON.parse(await readFile(fixturePath(`${group}/config.json`), 'utf8'));
    using model = modelFromConfig(config, { randomWeights: false });
    assert.deepEqual(
      [...parameterShapes(model.config)],
      [...model.namedParameters()].map(([name, { shape }]) => [name, shape]),
    );
  }
});

test('one generator state gives one set of weights', () => {
  using a = byteLlama({ hidden: 16, layers: 1, generator: new Generator(4) });
  using b = byteLlama({ hidden: 16, layers: 1, generator: new Generator(4) });
  using c = byteLlama({ hidden: 16, layers: 1, generator: new Generator(5) });
  assert.deepEqual(toArray(a.lmHead.weight), toArray(b.lmHead.weight));
  assert.notDeepEqual(toArray(a.lmHead.weight), toArray(c.lmHead.weight));
  const values = toArray(a.lmHead.weight);
  const std = Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length);
  assert.ok(Math.abs(std - 0.02) < 0.002, `${std}`);
});
