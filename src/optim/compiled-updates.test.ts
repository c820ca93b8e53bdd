/** Several updates in one compiled step: each has its own counts, rates and bias corrections. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkLiveBytes } from '../../test/support/backend.ts';
import { withCompiled } from '../../test/support/compiled.ts';
import { backward } from '../autograd/backward.ts';
import '../ops/methods.ts';
import { mul } from '../ops/arithmetic.ts';
import { sum } from '../ops/broadcast.ts';
import { tensor, toArray } from '../tensor/factory.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { AdamW } from './adamw.ts';
import { LrScheduler, linearWithWarmup } from './schedule.ts';

checkLiveBytes();

interface Job {
  readonly params: readonly Tensor[];
  readonly optimizer: AdamW;
  readonly scheduler: LrScheduler;
}

/** Runs the step that `make` makes three times, eagerly and compiled: the same weights, counts and rates. */
function agrees(make: (job: Job) => () => Tensor, plans = 1): void {
  const run = (compiled: boolean): unknown[] =>
    scope(() => {
      const params = [
        tensor([1, 2], { requiresGrad: true }),
        tensor([3, -1, 2], { requiresGrad: true }),
      ];
      using optimizer = new AdamW(params, { lr: 0.1 });
      const schedule = linearWithWarmup({ totalSteps: 20 });
      const scheduler = new LrScheduler(optimizer, schedule);
      const step = make({ params, optimizer, scheduler });
      const seen: unknown[] = [];
      const look = (body: () => Tensor): void => {
        for (let i = 0; i < 3; i++) {
          body();
          const { steps } = optimizer.stateDict();
          seen.push(
            params.map((p) => [...toArray(p)]),
            steps,
            optimizer.lr,
            scheduler.lastStep,
          );
        }
      };
      if (!compiled) look(step);
      else {
        withCompiled(step, (made) => {
          made.prepare();
          const untouched = [optimizer.lr, scheduler.lastStep];
          assert.deepEqual(untouched, [0.1, 0], 'a trace leaves the host as it was');
          look(made);
          assert.equal(made.plans.length, plans);
        });
      }
      return seen;
    });
  assert.deepEqual(run(true), run(false));
}

function differentiate(params: readonly Tensor[]): void {
  for (const p of params) backward(sum(mul(mul(p, p), p)));
}

test('two updates', () => {
  agrees(({ params, optimizer }) => () => {
    for (let i = 0; i < 2; i++) {
      differentiate(params);
      optimizer.step();
      optimizer.zeroGrad();
    }
    return tensor(0);
  });
});

test('an update of some parameters, then one of all', () => {
  agrees(({ params, optimizer }) => () => {
    for (const some of [params.slice(1), params]) {
      differentiate(some);
      optimizer.step();
      optimizer.zeroGrad();
    }
    return tensor(0);
  });
});

test('the scheduler steps inside the step, and a rate is set there', () => {
  agrees(({ params, optimizer, scheduler }) => () => {
    for (const rate of [undefined, 0.5]) {
      if (rate !== undefined) optimizer.lr = rate;
      differentiate(params);
      optimizer.step();
      optimizer.zeroGrad();
      scheduler.step();
    }
    return tensor(0);
  });
});
