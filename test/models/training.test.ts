/** Whole training steps: schedules in compiled steps, packed documents, bfloat16, two models at once. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backward } from '../../src/autograd/backward.ts';
import { hostTensor } from '../../src/core/host-tensor.ts';
import { byteLlama } from '../../src/models/byte-llama.ts';
import { AdamW } from '../../src/optim/adamw.ts';
import { clipGradNorm } from '../../src/optim/clip.ts';
import { LrScheduler, linearWithWarmup } from '../../src/optim/schedule.ts';
import { mulInPlace } from '../../src/ops/in-place.ts';
import { sub } from '../../src/ops/arithmetic.ts';
import { square } from '../../src/ops/unary.ts';
import { liveBytes } from '../../src/tensor/backend.ts';
import { noGrad } from '../../src/tensor/context.ts';
import { fromHost, item, toArray } from '../../src/tensor/factory.ts';
import { Generator } from '../../src/tensor/generator.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { scope } from '../../src/tensor/with-scope.ts';
import { executions } from '../support/executions.ts';

const before = liveBytes();

test.after(() => assert.equal(liveBytes(), before, 'memory was not given back'));

function int32(values: readonly number[], shape: readonly number[]): Tensor {
  return fromHost(hostTensor(values, shape, 'int32'));
}

const ids = Array.from({ length: 32 }, (_, i) => (i * i * 7 + 3 * i) % 256);

for (const execution of executions) {
  test(`${execution.name}: rate, step number and clipping follow the run`, () => {
    using model = byteLlama({ hidden: 16, layers: 2, generator: new Generator(1) });
    using optimizer = new AdamW(model.namedParameters(), { lr: 0.01 });
    const scheduler = new LrScheduler(
      optimizer,
      linearWithWarmup({ warmupSteps: 2, totalSteps: 6 }),
    );
    const { run, dispose } = execution.prepare((tokens: Tensor, targets: Tensor) => {
      const loss = model.call(tokens, { targets });
      backward(loss);
      const norm = clipGradNorm(model.parameters(), 0.5);
      optimizer.step();
      optimizer.zeroGrad();
      return { loss, norm };
    });
    const losses: number[] = [];
    const weights: number[] = [];
    scope(() => {
      const tokens = int32(ids, [2, 16]);
      const targets = int32([...ids.slice(1), -100], [2, 16]);
      for (let step = 0; step < 6; step++) {
        scope(() => {
          const { loss, norm } = run(tokens, targets);
          losses.push(item(loss));
          assert.ok(item(norm) > 0);
        });
        scheduler.step();
        weights.push(toArray(model.lmHead.weight)[5] ?? 0);
      }
    });
    // The first step of the warm-up has rate 0, the last of the decay too: nothing moves.
    assert.equal(losses[0], losses[1]);
    assert.ok((losses[5] ?? 9) < (losses[0] ?? 0));
    assert.deepEqual(optimizer.stateDict().steps['lm_head.weight'], undefined);
    assert.equal(optimizer.stateDict().steps['model.embed_tokens.weight'], 6);
    assert.equal(new Set(weights).size, 6);
    results.set(execution.name, losses);
    dispose();
  });

  test(`${execution.name}: documents packed with positions are as if they were alone`, () => {
    using model = byteLlama({ hidden: 16, layers: 1, heads: 2, generator: new Generator(2) });
    // Weights of the usual start hardly attend: make positions matter.
    for (const weight of model.parameters()) {
      if (weight.rank === 2) noGrad(() => mulInPlace(weight, 20));
    }
    const { run, dispose } = execution.prepare((tokens: Tensor, positions: Tensor) =>
      noGrad(() => model.call(tokens, { positions })),
    );
    scope(() => {
      const shifted = Array.from({ length: 8 }, (_, i) => i + 5);
      const plain = Array.from({ length: 8 }, (_, i) => i);
      const tokens = int32(ids.slice(0, 16), [2, 8]);
      const given = toArray(run(tokens, int32([...plain, ...plain], [2, 8])));
      const byDefault = toArray(noGrad(() => model.call(tokens)));
      given.forEach((value, i) => assert.ok(Math.abs(value - (byDefault[i] ?? 0)) < 1e-4));
      // Attention sees distances only: moving a whole row changes nothing.
      const moved = toArray(run(tokens, int32([...shifted, ...plain], [2, 8])));
      moved.forEach((value, i) => assert.ok(Math.abs(value - (given[i] ?? 0)) < 1e-3));
      const uneven = toArray(run(tokens, int32([0, 1, 2, 3, 0, 1, 2, 3, ...plain], [2, 8])));
      assert.ok(
        uneven
          .slice(4 * 256, 8 * 256)
          .some((value, i) => Math.abs(value - (given[4 * 256 + i] ?? 0)) > 0.1),
      );
    });
    dispose();
  });

  test(`${execution.name}: a bfloat16 model trains`, () => {
    using model = byteLlama({
      hidden: 16,
      layers: 1,
      dtype: 'bfloat16',
      generator: new Generator(3),
    });
    using optimizer = new AdamW(model.namedParameters(), { lr: 0.01 });
    const { run, dispose } = execution.prepare((tokens: Tensor, targets: Tensor) => {
      const loss = model.call(tokens, { targets });
      backward(loss);
      optimizer.step();
      optimizer.zeroGrad();
      return loss;
    });
    scope(() => {
      const tokens = int32(ids, [2, 16]);
      const losses = Array.from({ length: 8 }, () => scope(() => item(run(tokens, tokens))));
      assert.ok(losses.every(Number.isFinite));
      assert.ok((losses[7] ?? 9) < 0.9 * (losses[0] ?? 0), losses.join());
    });
    assert.ok([...model.parameters()].every(({ dtype }) => dtype === 'bfloat16'));
    dispose();
  });

  test(`${execution.name}: a frozen reference of the same names beside the policy`, () => {
    using policy = byteLlama({ hidden: 16, layers: 1, generator: new Generator(4) });
    using reference = byteLlama({ hidden: 16, layers: 1, generator: new Generator(5) });
    reference.requiresGrad_(false);
    using optimizer = new AdamW(policy.namedParameters(), { lr: 0.01, weightDecay: 0 });
    const { run, dispose } = execution.prepare((tokens: Tensor) => {
      const mine = policy.call(tokens, { targets: tokens });
      const other = noGrad(() => reference.call(tokens, { targets: tokens }));
      const loss = square(sub(mine, other));
      backward(loss);
      optimizer.step();
      optimizer.zeroGrad();
      return { mine, other };
    });
    scope(() => {
      const tokens = int32(ids, [2, 16]);
      const weights = toArray(reference.lmHead.weight);
      const expected = noGrad(() => item(reference.call(tokens, { targets: tokens })));
      for (let step = 0; step < 3; step++) {
        scope(() => {
          const { other } = run(tokens);
          assert.ok(Math.abs(item(other) - expected) < 1e-5);
        });
      }
      assert.deepEqual(toArray(reference.lmHead.weight), weights);
    });
    dispose();
  });
}

const results = new Map<string, readonly number[]>();

test('eager and compiled runs have the same losses', () => {
  const eager = results.get('eager') ?? [];
  const compiled = results.get('compiled') ?? [];
  assert.equal(eager.length, 6);
  eager.forEach((loss, i) => assert.ok(Math.abs(loss - (compiled[i] ?? 0)) < 1e-5 * loss));
});
