import assert from 'node:assert/strict';
import { test } from 'node:test';
import { executions } from '../../test/support/executions.ts';
import { difference, loadFixture } from '../../test/support/fixtures.ts';
import { ArgumentError, ConfigError } from '../core/errors.ts';
import { hostTensor } from '../core/host-tensor.ts';
import { liveBytes } from '../tensor/backend.ts';
import { fromHost, item, tensor, toArray, toHost } from '../tensor/factory.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { AdamW } from './adamw.ts';
import { clipGradNorm, clipGradValue } from './clip.ts';
import type { Optimizer } from './optimizer.ts';
import { decayGroups } from './parameter-groups.ts';
import {
  constantWithWarmup,
  cosineWithWarmup,
  LrScheduler,
  linearWithWarmup,
  type Schedule,
} from './schedule.ts';
import { Sgd } from './sgd.ts';

const before = liveBytes();

test.after(() => assert.equal(liveBytes(), before));

const fixture = loadFixture('optim/optimizers');

function leaf(values: ArrayLike<number>, shape: readonly number[]): Tensor {
  const made = fromHost(hostTensor(Float64Array.from(values), shape, 'float32')).keep();
  made.requiresGrad = true;
  return made;
}

/** Sets gradients as backward would leave them: handles that belong to the parameter. */
function setGrad(parameter: Tensor, values: ArrayLike<number>): void {
  parameter.grad = fromHost(hostTensor(Float64Array.from(values), parameter.shape, 'float32'));
}

/** `body` as a test of its own in each execution; `prepare` makes a step run there. */
function inBoth(name: string, body: (prepare: <R>(step: () => R) => () => R) => void): void {
  for (const execution of executions) {
    test(`${name}, ${execution.name}`, () => {
      const made: { dispose(): void }[] = [];
      body((step) => {
        const prepared = execution.prepare(step);
        made.push(prepared);
        return prepared.run;
      });
      for (const prepared of made) prepared.dispose();
    });
  }
}

for (const entry of fixture.manifest.cases) {
  inBoth(`${entry.op} ${entry.case} follows PyTorch for ${entry.steps} steps`, (prepare) => {
    const parts = Object.entries(entry.parameters).map(([name, keys]) => {
      const start = fixture.array(keys.start);
      return { name, keys, shape: start.shape, parameter: leaf(start.values, start.shape) };
    });
    const named = parts.map(({ name, parameter }) => [name, parameter] as const);
    const settings = entry.params as object;
    using optimizer: Optimizer<any> =
      entry.op === 'adamW' ? new AdamW(named, settings) : new Sgd(named, settings);
    const update = prepare(() => {
      optimizer.step();
      optimizer.zeroGrad();
    });
    for (let step = 0; step < entry.steps; step++) {
      for (const { keys, parameter } of parts) {
        const size = parameter.size;
        setGrad(
          parameter,
          fixture.array(keys.grads).values.subarray(step * size, (step + 1) * size),
        );
      }
      update();
      for (const { name, keys, parameter } of parts) {
        const size = parameter.size;
        const want = fixture.array(keys.ref).values.subarray(step * size, (step + 1) * size);
        const text = difference(toArray(parameter), want, entry.tolerance);
        assert.equal(text, null, `${name} after step ${step + 1}: ${text}`);
      }
    }
    const state = optimizer.stateDict();
    for (const { name, keys } of parts) {
      for (const [slot, key] of [
        ['exp_avg', keys.expAvg],
        ['exp_avg_sq', keys.expAvgSq],
        ['momentum_buffer', keys.momentumBuffer],
      ] as const) {
        const found = state.tensors.get(`${slot}.${name}`);
        assert.equal(found !== undefined, key !== undefined, `${slot}.${name}`);
        if (!found || key === undefined) continue;
        const loose = { rtol: 3e-5, atolScale: 1e-5 };
        assert.equal(difference(toArray(found), fixture.array(key).values, loose), null);
      }
      assert.equal(state.steps[name], entry.steps);
    }
    for (const { parameter } of parts) parameter.dispose();
  });
}

inBoth('a parameter without a gradient is left alone and keeps its own step count', (prepare) => {
  const a = leaf([1, 2], [2]);
  const b = leaf([3], [1]);
  using optimizer = new AdamW(
    [
      ['a', a],
      ['b', b],
    ],
    { lr: 0.1, weightDecay: 0 },
  );
  const update = prepare(() => optimizer.step());
  setGrad(a, [1, 1]);
  update();
  assert.deepEqual([...toArray(b)], [3]);
  setGrad(b, [5]);
  update();
  // The first update of b has the size of lr whatever its gradient.
  assert.ok(Math.abs((toArray(b)[0] ?? 0) - 2.9) < 1e-6);
  assert.deepEqual(optimizer.stateDict().steps, { a: 2, b: 1 });
  a.dispose();
  b.dispose();
});

inBoth('state saved and loaded continues bit for bit', (prepare) => {
  const run = (steps: number, resumeAt: number | undefined): number[] => {
    let parameter = leaf([1, -2, 3], [3]);
    let optimizer = new AdamW([['w', parameter]], { lr: 0.05 });
    const update = prepare(() => optimizer.step());
    for (let step = 0; step < steps; step++) {
      if (step === resumeAt) {
        const { tensors, ...rest } = optimizer.stateDict();
        const plain = JSON.parse(JSON.stringify(rest));
        const copies = new Map([...tensors].map(([name, value]) => [name, toHost(value)]));
        const values = toArray(parameter);
        optimizer.dispose();
        parameter.dispose();
        parameter = leaf(values, [3]);
        optimizer = new AdamW([['w', parameter]], { lr: 123 });
        optimizer.loadStateDict({ ...plain, tensors: copies });
        assert.equal(optimizer.lr, 0.05);
      }
      setGrad(parameter, [Math.sin(step), Math.cos(step), step]);
      update();
    }
    const result = [...toArray(parameter)];
    optimizer.dispose();
    parameter.dispose();
    return result;
  };
  assert.deepEqual(run(7, 3), run(7, undefined));
});

test('loading state of another model is refused', () => {
  const parameter = leaf([1], [1]);
  using optimizer = new AdamW([['w', parameter]]);
  setGrad(parameter, [1]);
  optimizer.step();
  const state = optimizer.stateDict();
  const other = leaf([1, 2], [2]);
  using second = new AdamW([['w', other]]);
  assert.throws(() => second.loadStateDict(state), ConfigError);
  using third = new AdamW([['v', other]]);
  assert.throws(() => third.loadStateDict(state), /other parameter groups/);
  other.dispose();
  parameter.dispose();
});

inBoth('groups have their own settings; norms and biases are split off', (prepare) => {
  const weight = leaf([1, 1, 1, 1], [2, 2]);
  const bias = leaf([1, 1], [2]);
  const named = [
    ['weight', weight],
    ['bias', bias],
  ] as const;
  using optimizer = new Sgd(decayGroups(named, 0.5), { lr: 0.1 });
  setGrad(weight, [0, 0, 0, 0]);
  setGrad(bias, [0, 0]);
  prepare(() => optimizer.step())();
  assert.ok(Math.abs((toArray(weight)[0] ?? 0) - 0.95) < 1e-6);
  assert.deepEqual([...toArray(bias)], [1, 1]);
  weight.dispose();
  bias.dispose();
});

test('settings out of range and repeated parameters are errors', () => {
  const parameter = leaf([1], [1]);
  assert.throws(() => new AdamW([parameter], { lr: -1 }), /'lr' must be a number of at least 0/);
  assert.throws(() => new AdamW([parameter], { betas: [0.9, 1] }), ConfigError);
  assert.throws(() => new Sgd([parameter], { nesterov: true }), ConfigError);
  assert.throws(() => new AdamW([]), ArgumentError);
  assert.throws(
    () =>
      new AdamW([
        ['w', parameter],
        ['w', parameter],
      ]),
    /listed twice/,
  );
  parameter.dispose();
});

const clipping = loadFixture('optim/clipping');
for (const entry of clipping.manifest.cases) {
  inBoth(`clipGradNorm ${entry.case} is PyTorch's`, (prepare) => {
    const parts = Object.entries(entry.grads).map(([name, key]) => {
      const { values, shape } = clipping.array(key);
      const parameter = leaf(new Float64Array(values.length), shape);
      setGrad(parameter, values);
      return { name, parameter };
    });
    const { maxNorm, normType } = entry.params;
    const exponent = normType === 'infinity' ? Number.POSITIVE_INFINITY : normType;
    const clip = prepare(() =>
      // An iterator that can be read once, as model.parameters() is.
      clipGradNorm(parts.map(({ parameter }) => parameter).values(), maxNorm, {
        normType: exponent,
      }),
    );
    scope(() => {
      const norm = clip();
      assert.ok(Math.abs(item(norm) - entry.norm) <= 1e-5 * entry.norm, `${item(norm)}`);
    });
    for (const { name, parameter } of parts) {
      const want = clipping.array(entry.clipped[name] ?? '').values;
      const { grad } = parameter;
      assert.ok(grad);
      assert.equal(difference(toArray(grad), want, entry.tolerance), null, name);
      parameter.dispose();
    }
  });
}

inBoth('clipGradValue limits every element', (prepare) => {
  const parameter = leaf([0, 0, 0], [3]);
  setGrad(parameter, [-5, 0.25, 5]);
  prepare(() => clipGradValue([parameter], 1))();
  assert.ok(parameter.grad);
  assert.deepEqual([...toArray(parameter.grad)], [-1, 0.25, 1]);
  parameter.dispose();
});

for (const entry of loadFixture('optim/schedules').manifest.cases) {
  test(`schedule ${entry.name} ${JSON.stringify(entry.params)} is that of transformers`, () => {
    const { warmupSteps = 0, totalSteps = 0, cycles, minRate } = entry.params;
    const make: Record<typeof entry.name, () => Schedule> = {
      cosine: () => cosineWithWarmup({ warmupSteps, totalSteps, ...(cycles && { cycles }) }),
      cosineWithMin: () => cosineWithWarmup({ warmupSteps, totalSteps, minRate: minRate ?? 0 }),
      linear: () => linearWithWarmup({ warmupSteps, totalSteps }),
      constant: () => constantWithWarmup({ warmupSteps }),
    };
    const schedule = make[entry.name]();
    entry.values.forEach((want, step) => {
      assert.ok(
        Math.abs(schedule(step) - want) < 1e-12,
        `step ${step}: ${schedule(step)}, ${want}`,
      );
    });
  });
}

test('the scheduler scales the rate of each group and resumes', () => {
  const parameter = leaf([1], [1]);
  using optimizer = new Sgd([parameter], { lr: 0.4 });
  const scheduler = new LrScheduler(optimizer, linearWithWarmup({ totalSteps: 4 }));
  const rates = [optimizer.lr];
  for (let i = 0; i < 4; i++) {
    scheduler.step();
    rates.push(optimizer.lr);
  }
  assert.deepEqual(rates, [0.4, 0.4 * 0.75, 0.2, 0.1, 0]);
  scheduler.loadStateDict({ step: 2 });
  assert.equal(optimizer.lr, 0.2);
  parameter.dispose();
});

inBoth('zeroGrad drops gradients, or fills them with zeros', (prepare) => {
  const parameter = leaf([1, 2], [2]);
  using optimizer = new Sgd([parameter]);
  setGrad(parameter, [1, 2]);
  prepare(() => optimizer.zeroGrad({ setToNone: false }))();
  assert.ok(parameter.grad);
  assert.deepEqual([...toArray(parameter.grad)], [0, 0]);
  prepare(() => optimizer.zeroGrad())();
  assert.equal(parameter.grad, undefined);
  parameter.dispose();
});

test('tensors of the state are counted in memory and freed', () => {
  const start = liveBytes();
  const parameter = tensor([1, 2], { requiresGrad: true }).keep();
  const optimizer = new AdamW([parameter]);
  setGrad(parameter, [1, 2]);
  optimizer.step();
  assert.ok(liveBytes() > start);
  optimizer.dispose();
  parameter.dispose();
  assert.equal(liveBytes(), start);
});
