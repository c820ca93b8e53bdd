/** Generation against transformers: greedy continuations, filters; and that it is repeatable. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { applyActivationCheckpointing } from '../../src/checkpoint/apply.ts';
import { byteLlama } from '../../src/models/byte-llama.ts';
import { generate } from '../../src/models/generate.ts';
import { loadModel } from '../../src/models/load.ts';
import { filteredProbabilities, penalizeRepetition } from '../../src/models/sampling.ts';
import { liveBytes } from '../../src/tensor/backend.ts';
import { Generator } from '../../src/tensor/generator.ts';
import { difference, fixturePath, loadFixture } from '../support/fixtures.ts';

const before = liveBytes();

test.after(() => assert.equal(liveBytes(), before, 'memory was not given back'));

const fixture = loadFixture('generation');

for (const entry of fixture.manifest.cases) {
  test(`${entry.op} ${entry.case} is that of transformers`, async () => {
    switch (entry.op) {
      case 'greedy': {
        using model = await loadModel(fixturePath(`models/${entry.family}`), { dtype: 'float32' });
        const { tokens, reason } = await generate(model, entry.prompt, {
          temperature: 0,
          maxNewTokens: entry.tokens.length,
          eosId: [],
        });
        assert.deepEqual([...tokens], entry.tokens);
        assert.equal(reason, 'length');
        break;
      }
      case 'filter': {
        const { values, shape } = fixture.array(entry.logits);
        const [rows = 0, width = 0] = shape;
        const got = Array.from({ length: rows }, (_, row) => [
          ...filteredProbabilities(values.slice(row * width, (row + 1) * width), entry.params),
        ]).flat();
        const want = fixture.array(entry.probabilities).values;
        assert.equal(difference(got, want, entry.tolerance), null);
        break;
      }
      case 'repetitionPenalty': {
        const { values, shape } = fixture.array(entry.logits);
        const seen = fixture.array(entry.seen);
        const [rows = 0, width = 0] = shape;
        const [, count = 0] = seen.shape;
        const got = Array.from({ length: rows }, (_, row) => [
          ...penalizeRepetition(
            values.slice(row * width, (row + 1) * width),
            seen.values.slice(row * count, (row + 1) * count),
            entry.params.penalty,
          ),
        ]).flat();
        const want = fixture.array(entry.output).values;
        assert.equal(difference(got, want, entry.tolerance), null);
        break;
      }
    }
  });
}

test('one seed gives one text, another seed another', async () => {
  using model = byteLlama({ hidden: 32, layers: 1, generator: new Generator(1) });
  const sample = async (seed: number): Promise<number[]> => {
    const options = { maxNewTokens: 12, generator: new Generator(seed), topK: 50 };
    return [...(await generate(model, [1, 2, 3], options)).tokens];
  };
  assert.deepEqual(await sample(7), await sample(7));
  assert.notDeepEqual(await sample(7), await sample(8));
});

test('generation is the same with checkpointing, and leaves the model in training mode', async () => {
  using model = byteLlama({ hidden: 32, layers: 2, generator: new Generator(2) });
  const options = { temperature: 0, maxNewTokens: 8 };
  const plain = await generate(model, [5, 6], options);
  applyActivationCheckpointing(model, 'full', { logger: () => {} });
  const checkpointed = await generate(model, [5, 6], options);
  assert.deepEqual(checkpointed.tokens, plain.tokens);
  assert.equal(model.training, true);
});

test('it stops at an end token, on request, and where positions end', async () => {
  using model = byteLlama({ hidden: 32, layers: 1, maxPositions: 6, generator: new Generator(3) });
  const all = await generate(model, [1, 2], { temperature: 0, maxNewTokens: 100 });
  assert.equal(all.tokens.length, 4);
  assert.equal(all.reason, 'length');
  const [first = 0, second = 0] = all.tokens;
  const ended = await generate(model, [1, 2], { temperature: 0, eosId: second });
  assert.equal(ended.reason, 'eos');
  assert.ok(!ended.tokens.includes(second));
  const seen: number[] = [];
  const stopped = await generate(model, [1, 2], {
    temperature: 0,
    onToken: (token) => {
      seen.push(token);
      return false;
    },
  });
  assert.deepEqual([stopped.reason, seen], ['stopped', [first]]);
  await assert.rejects(generate(model, []), /prompt is empty/);
  await assert.rejects(generate(model, [256]), /outside the vocabulary/);
  await assert.rejects(generate(model, [1, 2, 3, 4, 5, 6]), /fills all positions/);
  await assert.rejects(generate(model, [1], { topP: 0 }), /topP must be above 0/);
});
