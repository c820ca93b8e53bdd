/** Values of compiled steps that wait outside memory or in fewer bits: docs/internals/offload.md. */

import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { type CheckpointingSpec, resolveSpec } from '../src/checkpoint/apply-spec.ts';
import { ConfigError, FileError, InfeasibleBudgetError } from '../src/core/errors.ts';
import {
  add,
  backward,
  CheckpointPolicy,
  type CompileOptions,
  checkpoint,
  compile,
  currentBackend,
  explain,
  explainPlan,
  formatStepReport,
  grad,
  matmul,
  mul,
  plannedTrace,
  type PolicyFunction,
  type StepPlan,
  scope,
  sin,
  sum,
  type Tensor,
  tanh,
  tensor,
  toArray,
} from '../src/index.ts';
import { AdamW } from '../src/optim/adamw.ts';
import { createCpuBackend } from '../src/runtime/registry.ts';
import { setBackend } from '../src/tensor/backend.ts';
import { checkLiveBytes, onReference } from './support/backend.ts';

checkLiveBytes();

const dir = mkdtempSync(join(tmpdir(), 'retune-compiled-offload-'));
after(() => rmSync(dir, { recursive: true, force: true }));

/** Wide enough that moving a value costs less than the products that make it. */
const rows = 512;
const width = 256;
const layers = 4;

interface Setting extends CompileOptions {
  /** Layers are regions under this policy. */
  readonly policy?: PolicyFunction;
  readonly steps?: number;
}

interface Outcome {
  readonly losses: readonly (readonly number[])[];
  readonly weights: readonly Float64Array[];
  readonly plan: StepPlan;
  readonly measured: number;
}

function fill(count: number, phase: number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => Math.sin(phase + i * 1.3) / 16);
}

/** Steps of AdamW on a chain of residual layers; `spoil` is called before the last one, whose error is thrown. */
function train({ policy, steps = 3, ...options }: Setting, spoil = (): void => {}): Outcome {
  return scope(() => {
    const weights = Array.from({ length: layers }, (_, k) =>
      tensor(fill(width * width, k), { shape: [width, width], requiresGrad: true }),
    );
    const optimizer = new AdamW(weights, { lr: 0.01 });
    const layer = (v: Tensor, w: Tensor): Tensor =>
      add(v, mul(sin(matmul(tanh(matmul(v, w)), w)), 0.5));
    const step = (x: Tensor): Tensor => {
      let h = x;
      for (const w of weights) {
        const run = (v: Tensor): Tensor => layer(v, w);
        h = policy ? checkpoint(run, [h], { policy }) : run(h);
      }
      const loss = sum(mul(h, h));
      backward(loss);
      optimizer.step();
      optimizer.zeroGrad();
      return loss;
    };
    const compiled = compile(step, { verify: true, ...options });
    try {
      const x = tensor(fill(rows * width, 99), { shape: [rows, width] });
      const losses: number[][] = [];
      let measured = 0;
      for (let i = 0; i < steps; i++) {
        compiled.prepare(x);
        const before = weights.map((w) => toArray(w));
        const { allocator } = currentBackend();
        const live = allocator.stats().live;
        allocator.resetPeak();
        try {
          if (i === steps - 1) spoil();
          losses.push(scope(() => [...toArray(compiled(x))]));
        } catch (error) {
          assert.deepEqual(
            weights.map((w) => toArray(w)),
            before,
            'parameters are as before',
          );
          assert.equal(allocator.stats().live, live, 'nothing stays allocated');
          throw error;
        }
        measured = allocator.stats().peak - live;
      }
      const [plan] = compiled.plans;
      assert.ok(plan);
      return { losses, weights: weights.map((w) => toArray(w)), plan, measured };
    } finally {
      compiled.dispose();
      optimizer.dispose();
    }
  });
}

const base = train({});

function stepsOf({ plan }: StepPlan): readonly string[] {
  return plan.placement.steps.map((step) => step.kind);
}

function count(plan: StepPlan, kind: string): number {
  return stepsOf(plan).filter((each) => each === kind).length;
}

const offloadProducts: PolicyFunction = ({ op }) =>
  op === 'matmul' ? CheckpointPolicy.MustOffload : CheckpointPolicy.PreferRecompute;

for (const disable of [[], ['planRegions']]) {
  const how = disable.length === 0 ? 'planned' : 'as written';
  test(`mustOffload in compiled regions, ${how}: bits, the planned peak, and copies beside kernels`, () => {
    const saved = train({ policy: () => true, disable });
    const moved = train({ policy: offloadProducts, disable });
    assert.deepEqual(moved.losses, base.losses);
    assert.deepEqual(moved.weights, base.weights);
    assert.equal(moved.measured, moved.plan.peakBytes);
    assert.ok(moved.measured < saved.measured, `${moved.measured} of ${saved.measured}`);
    // Two products a layer; those of the last may be used before they would be gone.
    assert.ok(count(moved.plan, 'store') >= 2 * layers - 2);
    assert.equal(count(moved.plan, 'stored'), count(moved.plan, 'store'));
    assert.ok(count(moved.plan, 'fetch') >= count(moved.plan, 'store'));
    assert.equal(count(moved.plan, 'fetched'), count(moved.plan, 'fetch'));
    const steps = stepsOf(moved.plan);
    assert.ok(steps.some((kind, i) => kind === 'store' && steps[i + 1] === 'launch'));
  });
}

test('what a policy compresses has the bits of the eager region', () => {
  for (const format of ['bf16', 'fp8', 'int8'] as const) {
    const policy: PolicyFunction = ({ op }) =>
      op === 'matmul' ? CheckpointPolicy.Compress(format) : CheckpointPolicy.PreferRecompute;
    const gradientOf = (run: (step: (x: Tensor) => Tensor[]) => (x: Tensor) => Tensor[]) =>
      scope(() => {
        const w = tensor(fill(width * width, 1), { shape: [width, width], requiresGrad: true });
        const x = tensor(fill(rows * width, 2), { shape: [rows, width], requiresGrad: true });
        const step = run((input) => {
          const body = (v: Tensor): Tensor => mul(sin(matmul(tanh(matmul(v, w)), w)), v);
          const loss = sum(checkpoint(body, [mul(input, 1)], { policy }));
          return [loss, ...(grad(loss, [input, w]) as Tensor[])];
        });
        return step(x).map((result) => toArray(result));
      });
    const eager = gradientOf((step) => step);
    const compiled = gradientOf((step) => (x) => {
      const made = compile(step, { verify: true });
      const results = made(x);
      const values = explain(made).values.filter(({ action }) => action === 'compressed');
      assert.deepEqual(
        values.map(({ op, bytes, reason }) => [op, bytes, reason]),
        new Array(2).fill(['matmul', 4 * rows * width, `policy compress, in ${format}`]),
      );
      made.dispose();
      return results;
    });
    assert.deepEqual(compiled, eager);
  }
});

test('on the reference backend values go to host memory, with the same bits', () => {
  onReference(() => {
    const small = (policy?: PolicyFunction): number[][] =>
      scope(() => {
        const x = tensor(fill(12, 0), { shape: [3, 4], requiresGrad: true });
        const body = (v: Tensor): Tensor => sin(mul(tanh(v), v));
        const compiled = compile(
          (input: Tensor) => {
            const h = mul(input, 2);
            const loss = sum(policy ? checkpoint(body, [h], { policy }) : body(h));
            return [loss, ...(grad(loss, [input]) as Tensor[])];
          },
          { verify: true },
        );
        const results = compiled(x).map((result) => [...toArray(result)]);
        compiled.dispose();
        return results;
      });
    assert.deepEqual(
      small(() => 'mustOffload'),
      small(),
    );
  });
});

for (const [code, reason] of [
  ['ENOSPC', 'disk-full'],
  ['EIO', 'io'],
] as const) {
  for (const kind of ['write', 'read'] as const) {
    test(`a ${kind} that fails with ${code} is a FileError; parameters are as before, nothing is left`, () => {
      const before = currentBackend();
      const moved = train({ policy: offloadProducts, steps: 1 });
      const last = count(moved.plan, kind === 'write' ? 'store' : 'fetch') - 1;
      const backend = createCpuBackend({ threads: 2, fileFault: { kind, at: last, code } });
      setBackend(backend);
      try {
        assert.throws(
          () => train({ policy: offloadProducts, steps: 1 }),
          (error) => error instanceof FileError && error.details.reason === reason,
        );
        assert.deepEqual(train({ policy: offloadProducts }).weights, base.weights);
      } finally {
        setBackend(before);
        backend.dispose();
      }
    });
  }
}

test('a folder that goes away between steps is a FileError; the next step uses another', () => {
  const own = mkdtempSync(join(dir, 'gone-'));
  const setting: Setting = {
    policy: offloadProducts,
    actions: { offload: { dir: own } },
    budget: '100%',
  };
  assert.throws(
    () => train(setting, () => rmSync(own, { recursive: true })),
    (error) => error instanceof FileError && /Parameters are as before/.test(error.message),
  );
  assert.deepEqual(train(setting).losses, base.losses);
  assert.deepEqual(filledFiles(own), []);
});

/** Offload files below `folder` that still have bytes in them: the thread that cuts them gets time for it. */
function filledFiles(folder: string): string[] {
  const folders = readdirSync(folder).filter((name) => name.startsWith('retune-offload-'));
  const filled = (): string[] =>
    folders.filter((name) => statSync(join(folder, name, 'values')).size > 0);
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (let i = 0; i < 200 && filled().length > 0; i++) Atomics.wait(pause, 0, 0, 10);
  return filled();
}

test('a folder that cannot be made is a FileError before anything has run', () => {
  const file = join(dir, 'a-file');
  writeFileSync(file, 'x');
  const actions = { offload: { dir: join(file, 'below') } };
  assert.throws(
    () => train({ policy: offloadProducts, actions, steps: 1 }),
    (error) => error instanceof FileError && error.details.reason === 'not-a-folder',
  );
});

test('disposing the backend leaves no file', () => {
  const before = currentBackend();
  const own = mkdtempSync(join(dir, 'disposed-'));
  const backend = createCpuBackend({ threads: 2 });
  setBackend(backend);
  try {
    train({ policy: offloadProducts, actions: { offload: { dir: own } }, steps: 1 });
    assert.equal(readdirSync(own).length, 1);
  } finally {
    setBackend(before);
    backend.dispose();
  }
  assert.deepEqual(readdirSync(own), []);
});

/** The smallest budget that the error for an infeasible one names. */
function smallestBudget(actions: CompileOptions['actions']): number {
  try {
    train({ budget: 1000, steps: 1, ...(actions && { actions }) });
  } catch (error) {
    if (error instanceof InfeasibleBudgetError) return error.details.smallestBytes as number;
    throw error;
  }
  throw new Error('a budget of 1000 bytes was kept');
}

test('budgets with offload: the bits of none, the planned peak, and never a slower estimate', () => {
  let offloaded = 0;
  for (const percent of [90, 75, 60, 50]) {
    const budget = `${percent}%`;
    const plain = train({ budget });
    const actions = { offload: { dir } };
    const { losses, weights, measured, plan } = train({ budget, actions });
    const { choice } = plan.plan;
    assert.ok(choice && plain.plan.plan.choice);
    assert.deepEqual(losses, base.losses);
    assert.deepEqual(weights, base.weights);
    assert.equal(measured, plan.peakBytes);
    assert.ok(measured <= choice.budgetBytes);
    assert.equal(choice.budgetBytes, plain.plan.plan.choice.budgetBytes);
    assert.ok(choice.estimatedNs <= plain.plan.plan.choice.estimatedNs);
    offloaded += count(plan, 'fetch');
  }
  assert.ok(offloaded > 0, 'offload was of use');
  assert.deepEqual(filledFiles(dir), []);
});

test('a fast place makes moving cheaper than computing, a slow one does not', () => {
  const planFor = (bytesPerSecond: number): StepPlan =>
    train({ budget: '60%', actions: { offload: { dir, bytesPerSecond } }, steps: 1 }).plan;
  assert.ok(count(planFor(1e12), 'fetch') > 0);
  assert.equal(count(planFor(1e6), 'fetch'), 0);
});

test('with compression the loss of the first step is exact, gradients are near, and the budget holds', () => {
  for (const compress of ['bf16', 'int8'] as const) {
    const { losses, measured, plan } = train({ budget: '60%', actions: { compress } });
    const { choice } = plan.plan;
    assert.ok(choice);
    assert.deepEqual(losses[0], base.losses[0]);
    const [last, want] = [losses[2]?.[0] ?? 0, base.losses[2]?.[0] ?? 0];
    assert.ok(Math.abs(last / want - 1) < 5e-3, `${last} and ${want}`);
    assert.equal(measured, plan.peakBytes);
    assert.ok(measured <= choice.budgetBytes);
    const { values } = explainPlan(plan.plan);
    const compressed = values.filter(({ action }) => action === 'compressed');
    assert.ok(compressed.length > 0 && compressed.every(({ costNs }) => costNs > 0));
    assert.ok(compressed.every(({ reason }) => reason === `planner: saves memory, in ${compress}`));
  }
});

test('the smallest budget with offload is smaller, and is kept', () => {
  const smallest = smallestBudget({ offload: { dir } });
  assert.ok(smallest < smallestBudget(undefined));
  const { losses, measured } = train({ budget: smallest, actions: { offload: { dir } } });
  assert.deepEqual(losses, base.losses);
  assert.ok(measured <= smallest);
});

test('a report names what is moved, with bytes, price and place; the trace marks it', () => {
  const { plan } = train({ budget: '50%', actions: { offload: { dir } }, steps: 1 });
  const report = explainPlan(plan.plan);
  const moved = report.values.filter(({ action }) => action === 'offloaded');
  assert.ok(moved.length > 0);
  for (const { bytes, costNs, repeats, reason } of moved) {
    assert.ok(bytes >= 64 * 1024 && costNs > 0 && repeats >= 1);
    assert.equal(reason, 'planner: saves memory, in a file');
  }
  assert.match(formatStepReport(report), /\n\noffloaded: .* values\n +bytes +moving +op/);
  const stores = plan.plan.graph.nodes.filter((node) => node.op?.traits.transfer === 'store');
  assert.equal(moved.length, stores.length);
  const { blocks, events, peak } = plannedTrace(plan.plan, {
    title: '',
    backend: 'cpu',
    before: { parameter: 0, gradient: 0, optimizer: 0, activation: 0, temporary: 0, input: 0 },
  });
  assert.ok(blocks.filter(({ waits }) => waits === 'offloaded').length > moved.length);
  assert.ok(events.some(({ op }) => op === 'fetched'));
  assert.ok(peak.bytes <= plan.peakBytes);
});

test('measured: the place is timed once, and the plan keeps the budget', () => {
  const { losses, plan } = train({
    budget: '60%',
    cost: 'measured',
    actions: { offload: { dir } },
    steps: 1,
  });
  assert.deepEqual(losses[0], base.losses[0]);
  assert.ok(plan.plan.rates.store > 0 && plan.plan.rates.fetch > 0);
  assert.notDeepEqual(plan.plan.rates, base.plan.plan.rates);
});

test('actions that are none are named', () => {
  const refused = (actions: unknown, message: RegExp): void => {
    assert.throws(
      () => train({ budget: '60%', actions: actions as NonNullable<CompileOptions['actions']> }),
      (error) => error instanceof ConfigError && message.test(error.message),
    );
  };
  refused({ offlod: true }, /actions\.offlod.*offload and compress/);
  refused({ compress: 'int4' }, /actions\.compress.*"int4".*bf16, fp8, int8/);
  refused({ offload: { bytesPerSecond: 0 } }, /actions\.offload\.bytesPerSecond/);
  refused({ offload: { depth: 2 } }, /actions\.offload\.depth.*dir and bytesPerSecond/);
  refused({ offload: 'file' }, /actions\.offload is not legal.*"file"/);
});

test('the setting: a budget with offload and compress becomes actions of compile', () => {
  const actionsOf = (spec: CheckpointingSpec): unknown => {
    const resolved = resolveSpec(spec);
    return resolved.mode === 'budget' ? resolved.actions : 'no budget';
  };
  assert.equal(actionsOf({ budget: '50%' }), undefined);
  assert.equal(actionsOf({ budget: '50%', offload: false }), undefined);
  assert.deepEqual(actionsOf({ budget: '50%', offload: true, compress: 'fp8' }), {
    offload: true,
    compress: 'fp8',
  });
  assert.deepEqual(actionsOf({ budget: '50%', offload: { dir, bytes_per_second: 2e9 } }), {
    offload: { dir, bytesPerSecond: 2e9 },
  });
  const refused = (spec: unknown, message: RegExp): void => {
    assert.throws(
      () => resolveSpec(spec as CheckpointingSpec),
      (error) => error instanceof ConfigError && message.test(error.message),
    );
  };
  refused({ budget: '50%', compress: 'int4' }, /'compress' is not legal.*int4.*bf16, fp8, int8/);
  refused({ mode: 'full', compress: 'fp8' }, /'compress' contradicts 'mode'/);
  refused({ budget: '50%', offload: { depth: 2 } }, /'offload.depth' is not legal.*with a budget/);
  refused({ budget: '50%', offload: { bytes_per_second: 0 } }, /'offload.bytes_per_second'/);
  refused({ mode: 'full', offload: true }, /'offload' is not legal/);
});
