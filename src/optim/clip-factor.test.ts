import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { executions } from '../../test/support/executions.ts';
import { backward } from '../autograd/backward.ts';
import { compile } from '../compile/compile.ts';
import { mul } from '../ops/arithmetic.ts';
import { sum } from '../ops/broadcast.ts';
import { liveBytes } from '../tensor/backend.ts';
import { item, tensor, toArray } from '../tensor/factory.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { AdamW } from './adamw.ts';
import { clipFactor, clipGradNorm } from './clip.ts';
import { Sgd } from './sgd.ts';

const optimizers = {
  AdamW: (params: Tensor[]) => new AdamW(params, { lr: 0.1, weightDecay: 0.1 }),
  'Sgd with momentum': (params: Tensor[]) => new Sgd(params, { lr: 0.1, momentum: 0.9 }),
  Sgd: (params: Tensor[]) => new Sgd(params, { lr: 0.1, weightDecay: 0.1 }),
};

const start = () =>
  [
    tensor([
      [1, -2],
      [3, 4],
    ]),
    tensor([0.5, -1]),
  ].map((parameter) => {
    parameter.requiresGrad = true;
    return parameter;
  });

/** Gradients of 2 x scale x parameter. */
function differentiate(params: readonly Tensor[], scale: Tensor): void {
  for (const parameter of params) backward(sum(mul(mul(parameter, parameter), scale)));
}

describe('clipping inside the update', () => {
  for (const [name, make] of Object.entries(optimizers)) {
    test(`gives ${name} the bits of clipping before it, eager and compiled`, () => {
      scope(() => {
        const results = executions.flatMap(({ prepare }) =>
          [true, false].map((inside) => {
            const params = start();
            using optimizer = make(params);
            const { run, dispose } = prepare(() => {
              differentiate(params, tensor(1));
              if (inside) optimizer.step({ factor: clipFactor(params, 1).factor });
              else {
                clipGradNorm(params, 1);
                optimizer.step();
              }
              optimizer.zeroGrad();
            });
            for (let step = 0; step < 3; step++) run();
            dispose();
            return params.map((parameter) => [...toArray(parameter)]);
          }),
        );
        for (const result of results) assert.deepEqual(result, results[0]);
      });
    });

    for (const execution of ['eager', 'compiled']) {
      test(`changes nothing of ${name} when a gradient is not finite (${execution})`, () => {
        const before = liveBytes();
        scope(() => {
          const params = start();
          using optimizer = make(params);
          const body = (scale: Tensor): Tensor => {
            differentiate(params, scale);
            const { norm, factor } = clipFactor(params, Number.POSITIVE_INFINITY);
            optimizer.step({ factor });
            optimizer.zeroGrad();
            return norm;
          };
          const compiled = execution === 'compiled' ? compile(body) : undefined;
          const step = compiled ?? body;
          const snapshot = () => [
            ...params.map((parameter) => [...toArray(parameter)]),
            ...optimizer
              .stateDict()
              .tensors.values()
              .map((state) => [...toArray(state)]),
          ];
          assert.ok(Number.isFinite(item(step(tensor(1)))));
          const good = snapshot();
          for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, 3e38]) {
            assert.ok(!Number.isFinite(item(step(tensor(bad)))));
            assert.deepEqual(snapshot(), good, `scale ${bad}`);
          }
          step(tensor(1));
          assert.notDeepEqual(snapshot(), good);
          compiled?.dispose();
        });
        assert.equal(liveBytes(), before);
      });
    }
  }

  test('the factor is that of clipGradNorm, or 1', () => {
    scope(() => {
      const params = start();
      differentiate(params, tensor(1));
      const { norm, factor } = clipFactor(params, 0.5);
      const expected = Math.fround(0.5 / (item(norm) + 1e-6));
      assert.ok(Math.abs(item(factor) - expected) < 1e-7);
      assert.equal(item(clipFactor(params, Number.POSITIVE_INFINITY).factor), 1);
      assert.throws(() => clipFactor(params, -1), /clipFactor: maxNorm must be at least 0/);
    });
  });
});
