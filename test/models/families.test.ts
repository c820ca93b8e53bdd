/**
 * Every family against transformers: logits, loss, the gradient of every parameter and ten AdamW steps,
 * eager and compiled.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backward } from '../../src/autograd/backward.ts';
import { hostTensor } from '../../src/core/host-tensor.ts';
import { loadModel } from '../../src/models/load.ts';
import { modelFromConfig } from '../../src/models/from-config.ts';
import { AdamW } from '../../src/optim/adamw.ts';
import { liveBytes } from '../../src/tensor/backend.ts';
import { noGrad } from '../../src/tensor/context.ts';
import { fromHost, item, toArray } from '../../src/tensor/factory.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { scope } from '../../src/tensor/with-scope.ts';
import { executions } from '../support/executions.ts';
import {
  difference,
  fixturePath,
  loadFixture,
  modelGroups,
  sampleIndices,
} from '../support/fixtures.ts';
import { readFileSync } from 'node:fs';

const before = liveBytes();

test.after(() => assert.equal(liveBytes(), before, 'memory was not given back'));

type Group = ReturnType<typeof modelGroups>[number];

function inputs(group: Group): { tokens: Tensor; targets: Tensor } {
  const fixture = loadFixture(group);
  const read = (key: string): Tensor => {
    const { values, shape } = fixture.array(key);
    return fromHost(hostTensor(values, shape, 'int32'));
  };
  return { tokens: read('inputIds'), targets: read('targets') };
}

/** Within a few times what PyTorch's float32 is off from float64, relative to the largest value. */
const tolerance = { rtol: 1e-4, atolScale: 1e-5 };

for (const group of modelGroups()) {
  const fixture = loadFixture(group);
  const { manifest } = fixture;

  test(`${manifest.family}: names, shapes and logits are those of transformers`, async () => {
    using model = await loadModel(fixturePath(group), { dtype: 'float32' });
    assert.deepEqual(
      Object.fromEntries([...model.namedParameters()].map(([name, x]) => [name, [...x.shape]])),
      manifest.parameters,
    );
    scope(() => {
      const { tokens } = inputs(group);
      const logits = noGrad(() => model.call(tokens));
      assert.equal(difference(toArray(logits), fixture.array('logits').values, tolerance), null);
    });
  });

  test(`${manifest.family}: the older spelling of its config gives the same model`, async () => {
    const read = (file: string) =>
      JSON.parse(readFileSync(fixturePath(`${group}/${file}`), 'utf8'));
    using current = modelFromConfig(read('config.json'), { randomWeights: false });
    using older = modelFromConfig(read('config.older.json'), { randomWeights: false });
    assert.deepEqual(current.config, older.config);
  });

  for (const execution of executions) {
    test(`${manifest.family}, ${execution.name}: loss and gradients are PyTorch's`, async () => {
      using model = await loadModel(fixturePath(group), { dtype: 'float32' });
      const names = [...model.namedParameters()];
      const { run, dispose } = execution.prepare((tokens: Tensor, targets: Tensor) => {
        model.zeroGrad();
        const loss = model.call(tokens, { targets });
        backward(loss);
        const gradients = names.map(([name, parameter]) => {
          assert.ok(parameter.grad, `${name} has no gradient`);
          return parameter.grad;
        });
        return { loss, gradients };
      });
      scope(() => {
        const { tokens, targets } = inputs(group);
        const { loss, gradients } = run(tokens, targets);
        assert.ok(Math.abs(item(loss) - manifest.loss64) < 1e-4 * manifest.loss64, `${item(loss)}`);
        names.forEach(([name], i) => {
          const got = gradients[i];
          assert.ok(got);
          const text = difference(toArray(got), fixture.array(`grad.${name}`).values, tolerance);
          assert.equal(text, null, `gradient of ${name}: ${text}`);
        });
      });
      model.zeroGrad();
      dispose();
    });

    test(`${manifest.family}, ${execution.name}: ten AdamW steps are PyTorch's`, async () => {
      using model = await loadModel(fixturePath(group), { dtype: 'float32' });
      const { lr, betas, eps, weightDecay, steps, losses64 } = manifest.adamW;
      using optimizer = new AdamW(model.namedParameters(), { lr, betas, eps, weightDecay });
      const { run, dispose } = execution.prepare((tokens: Tensor, targets: Tensor) => {
        const loss = model.call(tokens, { targets });
        backward(loss);
        optimizer.step();
        optimizer.zeroGrad();
        return loss;
      });
      scope(() => {
        const { tokens, targets } = inputs(group);
        for (let step = 0; step < steps; step++) {
          const loss = scope(() => item(run(tokens, targets)));
          const want = losses64[step] ?? Number.NaN;
          assert.ok(
            Math.abs(loss - want) <= 1e-4 * want,
            `step ${step}: ${loss}, expected ${want}`,
          );
        }
      });
      const byName = new Map(model.namedParameters());
      for (const { name, samples, absSum } of manifest.finalWeights) {
        const parameter = byName.get(name);
        assert.ok(parameter, name);
        const values = toArray(parameter);
        const got = sampleIndices(values.length).map((i) => values[i] ?? Number.NaN);
        // Where a gradient is nearly zero, AdamW divides rounding by rounding, in PyTorch too.
        const off = 3 * manifest.float32Error.finalWeights + 0.01 * lr;
        samples.forEach((want, i) => {
          const value = got[i] ?? Number.NaN;
          const bound = 1e-4 * Math.abs(want) + off;
          assert.ok(Math.abs(value - want) <= bound, `${name}[${i}]: ${value}, expected ${want}`);
        });
        const sum = values.reduce((a, b) => a + Math.abs(b), 0);
        assert.ok(Math.abs(sum - absSum) < 1e-4 * absSum, name);
      }
      dispose();
    });
  }
}
