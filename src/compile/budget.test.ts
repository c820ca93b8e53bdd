/** Budgets in bytes: the real peak keeps them, results keep their bits, and what cannot be is said. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backward } from '../autograd/backward.ts';
import { checkpoint } from '../checkpoint/checkpoint.ts';
import { ConfigError, InfeasibleBudgetError } from '../core/errors.ts';
import '../ops/methods.ts';
import { add, mul } from '../ops/arithmetic.ts';
import { sum } from '../ops/broadcast.ts';
import { matmul } from '../ops/matmul/matmul.ts';
import { sin, tanh } from '../ops/unary.ts';
import { Sgd } from '../optim/sgd.ts';
import { currentBackend } from '../tensor/backend.ts';
import { tensor } from '../tensor/factory.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { checkLiveBytes } from '../../test/support/backend.ts';
import { values } from '../../test/support/compiled.ts';
import { type CompileOptions, type StepPlan, compile } from './compile.ts';

checkLiveBytes();

const layers = 6;
const width = 16;

interface Measured {
  readonly losses: number[];
  readonly measured: number;
}

interface Outcome extends Measured {
  readonly plan: StepPlan;
}

/** Three training steps of a chain of residual layers, compiled. */
function train(options: CompileOptions, regions = false): Outcome {
  return withSteps(regions, (step, run) => {
    const compiled = compile(step, { verify: true, ...options });
    try {
      const outcome = run(compiled);
      const plan = compiled.plans[0];
      assert.ok(plan);
      return { ...outcome, plan };
    } finally {
      compiled.dispose();
    }
  });
}

type TrainingStep = (x: Tensor) => Tensor;

/** A training step, and what runs it three times, measuring the last. */
function withSteps<R>(
  regions: boolean,
  body: (step: TrainingStep, run: (step: TrainingStep) => Measured) => R,
): R {
  return scope(() => {
    const fill = (phase: number): Float32Array =>
      Float32Array.from({ length: width * width }, (_, i) => Math.sin(phase + i * 1.3) / 4);
    const weights = Array.from({ length: layers }, (_, k) =>
      tensor(fill(k), { shape: [width, width], requiresGrad: true }),
    );
    const optimizer = new Sgd(weights, { lr: 0.1 });
    const step = (x: Tensor): Tensor => {
      let h = x;
      for (const w of weights) {
        const layer = (v: Tensor): Tensor => add(v, mul(sin(matmul(tanh(matmul(v, w)), w)), 0.5));
        h = regions ? checkpoint(layer, [h]) : layer(h);
      }
      const loss = sum(mul(h, h));
      backward(loss);
      optimizer.step();
      optimizer.zeroGrad();
      return loss;
    };
    const run = (chosen: TrainingStep): Measured => {
      const x = tensor(fill(99), { shape: [width, width] });
      const losses = [0, 1].flatMap(() => scope(() => values(chosen(x))));
      const { allocator } = currentBackend();
      const live = allocator.stats().live;
      allocator.resetPeak();
      losses.push(...scope(() => values(chosen(x))));
      return { losses, measured: allocator.stats().peak - live };
    };
    try {
      return body(step, run);
    } finally {
      optimizer.dispose();
    }
  });
}

const base = train({});

test('every budget is kept by the measured peak, bit for bit, and more memory is never slower', () => {
  let before = Number.POSITIVE_INFINITY;
  let recomputed = 0;
  for (let percent = 40; percent <= 100; percent += 10) {
    const { losses, plan, measured } = train({ budget: `${percent}%` });
    const { choice } = plan.plan;
    assert.ok(choice);
    assert.deepEqual(losses, base.losses);
    assert.equal(measured, plan.peakBytes);
    assert.ok(measured <= choice.budgetBytes, `${measured} of ${choice.budgetBytes}`);
    assert.equal(choice.budgetBytes, Math.floor((base.plan.peakBytes * percent) / 100));
    assert.ok(choice.planned.extraNs >= choice.planned.lowerBoundNs);
    assert.ok(choice.planned.extraNs <= before);
    before = choice.planned.extraNs;
    if (before > 0) recomputed++;
  }
  assert.equal(before, 0);
  assert.ok(recomputed >= 3);
});

test('a budget that no plan keeps names one that is kept, and what is alive', () => {
  let smallest = 0;
  assert.throws(
    () => train({ budget: 1000 }),
    (error: unknown) => {
      assert.ok(error instanceof InfeasibleBudgetError);
      assert.match(error.message, /budget: no plan keeps .* \(got .* in (forward|backward): .*\)/);
      smallest = Number(error.details.smallestBytes);
      return true;
    },
  );
  assert.ok(smallest > 1000 && smallest < base.plan.peakBytes);
  const { losses, measured } = train({ budget: smallest });
  assert.deepEqual(losses, base.losses);
  assert.ok(measured <= smallest);
});

test('what is no budget, and an unknown cost, are named', () => {
  for (const budget of ['plenty', '-1MiB', 0, Number.NaN, '12 parsecs', '%']) {
    assert.throws(() => train({ budget }), ConfigError, String(budget));
  }
  const cost = 'guess' as 'flops';
  assert.throws(() => train({ budget: '50%', cost }), /unknown cost \(got "guess"\)/);
});

test('regions take no more memory than op by op, and less work than was written', () => {
  const written = train({ disable: ['planRegions'] }, true);
  const planned = train({}, true);
  const eager = withSteps(true, (step, run) => run(step));
  for (const { losses } of [written, planned, eager]) assert.deepEqual(losses, base.losses);
  assert.ok(planned.measured <= eager.measured, `${planned.measured} of ${eager.measured}`);
  assert.ok(eager.measured < base.measured);
  const copies = ({ plan }: Outcome): number =>
    plan.plan.graph.nodes.filter((node) => node.meta.recomputeOf !== undefined).length;
  assert.ok(copies(planned) < copies(written), `${copies(planned)} of ${copies(written)}`);
});

test('measured costs give plans that keep the budget too', () => {
  const { losses, plan, measured } = train({ budget: '60%', cost: 'measured' });
  assert.deepEqual(losses, base.losses);
  assert.ok(measured <= (plan.plan.choice?.budgetBytes ?? 0));
});
