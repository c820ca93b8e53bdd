/**
 * Policies, contexts, runOnce and isRecomputing beyond the cases of PyTorch's suite, which are in
 * test/conformance/checkpoint.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type CheckpointOptions,
  CheckpointPolicy,
  type PolicyContext,
  type Tensor,
  backward,
  checkpoint,
  checkpointName,
  createSelectiveCheckpointContexts,
  exp,
  grad,
  isRecomputing,
  liveBytes,
  matmul,
  mul,
  runOnce,
  scope,
  sin,
  sort,
  sum,
  tensor,
  toArray,
} from '../../src/index.ts';
import { CheckpointError } from '../../src/core/errors.ts';
import { checkLiveBytes } from '../support/backend.ts';
import { countOps } from '../support/op-counter.ts';

checkLiveBytes();

function gradientOf(f: (x: Tensor) => Tensor): number[] {
  return scope(() => {
    const x = tensor([0.3, -1.2, 2, 0.7], { requiresGrad: true });
    const [gradient] = grad(sum(f(x)), [x]);
    assert.ok(gradient);
    return [...toArray(gradient)];
  });
}

function selective(ops: readonly string[]): CheckpointOptions {
  return { contextFn: () => createSelectiveCheckpointContexts(ops) };
}

test('S6 what the recompute did not consume is freed when it ends', () => {
  scope(() => {
    const x = tensor(new Float32Array(4096).fill(0.5), { requiresGrad: true });
    // The last op saves its input only: early stop ends the recompute before it.
    const y = checkpoint((v: Tensor) => sin(exp(v)), [x], selective(['sin', 'exp']));
    const loss = sum(y);
    const before = liveBytes();
    backward(loss, { retainGraph: true });
    x.grad = undefined;
    assert.equal(before - liveBytes(), 4096 * 4, 'of the two stored values one is y itself');
  });
});

test('S3 an op that forward did not run is an error', () => {
  const region = (x: Tensor): Tensor => sin(isRecomputing() ? exp(mul(x, 1)) : exp(x));
  assert.throws(
    () => gradientOf((x) => checkpoint(region, [x], selective(['exp']))),
    (e) =>
      e instanceof CheckpointError &&
      /mulScalar encountered during backward but not found/.test(e.message),
  );
  const twice = (x: Tensor): Tensor => {
    if (isRecomputing()) exp(x);
    return sin(exp(x));
  };
  assert.throws(
    () => gradientOf((x) => checkpoint(twice, [x], selective([]))),
    (e) => e instanceof CheckpointError && /exp: invocation index 1/.test(e.message),
  );
});

test('C10 contextFn is called anew for each region call, recomputed ones too', () => {
  let made = 0;
  const contextFn: CheckpointOptions['contextFn'] = () => {
    made++;
    return [(inner) => inner, (inner) => inner];
  };
  const plain = gradientOf(exp);
  const twice = (x: Tensor): Tensor =>
    checkpoint((v: Tensor) => checkpoint(exp, [v], { contextFn }), [x]);
  assert.deepEqual(gradientOf(twice), plain);
  assert.equal(made, 2, 'in forward, and when the outer region runs again');
});

test('C8 isRecomputing tells the two runs apart', () => {
  const runs: boolean[] = [];
  gradientOf((x) =>
    checkpoint(
      (v: Tensor) => {
        runs.push(isRecomputing());
        return sin(exp(v));
      },
      [x],
    ),
  );
  assert.deepEqual(runs, [false, true]);
  assert.equal(isRecomputing(), false);
});

test('C8 runOnce runs in forward, and hands its result to every recompute, nested too', () => {
  let runs = 0;
  const handed: number[] = [];
  const inner = (x: Tensor): Tensor => {
    const scale = runOnce(() => {
      runs++;
      return tensor([2, 3, 4, 5]);
    });
    const count = runOnce(() => runs);
    handed.push(count);
    return mul(sin(mul(x, scale)), exp(x));
  };
  const plain = gradientOf(inner);
  runs = 0;
  for (const region of [
    (x: Tensor) => checkpoint(inner, [x]),
    (x: Tensor) => checkpoint((v: Tensor) => checkpoint(inner, [mul(v, 1)]), [x]),
    (x: Tensor) => checkpoint(inner, [x], selective(['mul'])),
  ]) {
    handed.length = 0;
    runs = 0;
    assert.deepEqual(gradientOf(region), plain);
    assert.equal(runs, 1);
    assert.ok(handed.length >= 2 && handed.every((count) => count === 1), String(handed));
  }
});

test('C8 a recompute that asks more often than its forward is an error', () => {
  const region = (x: Tensor): Tensor => {
    if (isRecomputing()) runOnce(() => 1);
    return sin(exp(x));
  };
  assert.throws(() => gradientOf((x) => checkpoint(region, [x])), CheckpointError);
});

test('S1 what a policy may not return, and a policy that throws, name the place', () => {
  const run = (policy: (context: PolicyContext) => unknown): void => {
    gradientOf((x) =>
      checkpoint((v: Tensor) => sin(exp(v)), [x], { policy: policy as () => boolean }),
    );
  };
  for (const answer of [undefined, 'save', 3, {}, { compress: 'fp2' }]) {
    assert.throws(
      () => run(() => answer),
      (e) => e instanceof CheckpointError && /no CheckpointPolicy at exp/.test(e.message),
    );
  }
  const cause = new Error('boom');
  assert.throws(
    () =>
      run(({ op }) => {
        if (op === 'sin') throw cause;
        return true;
      }),
    (e) =>
      e instanceof CheckpointError && /threw at sin.*boom/.test(e.message) && e.cause === cause,
  );
});

test('S1 what a policy sees', () => {
  const seen: PolicyContext[] = [];
  scope(() => {
    const x = tensor([[1, 2]], { requiresGrad: true });
    const w = tensor([[1], [1]]);
    checkpoint((v: Tensor) => exp(matmul(exp(v), w)), [x], {
      policy: (context) => {
        seen.push(context);
        return CheckpointPolicy.PreferRecompute;
      },
    });
  });
  assert.deepEqual(
    seen.map(({ op, index, classIndex, module }) => [op, index, classIndex, module]),
    [
      ['exp', 0, 0, ''],
      ['matmul', 0, 0, ''],
      ['exp', 1, 1, ''],
    ],
  );
  const [, product] = seen;
  assert.ok(product);
  assert.deepEqual(
    product.inputs.map(({ shape }) => shape),
    [
      [1, 2],
      [2, 1],
    ],
  );
  assert.deepEqual([product.output.shape, product.flops, product.bytes], [[1, 1], 4, 4]);
  assert.equal(product.traits.class, 'matmul');
});

test('S8 router indices and host reads are kept by every region, unless ordered otherwise', () => {
  const run = (options: CheckpointOptions): { sorts: number; reads: number[][] } => {
    const reads: number[][] = [];
    const region = (x: Tensor): Tensor => {
      const { values } = sort(x);
      reads.push([...toArray(values)]);
      return sin(mul(values, x));
    };
    const counter = countOps(() => {
      gradientOf((x) => checkpoint(region, [x], options));
    });
    return { sorts: counter.count('sort'), reads };
  };
  for (const options of [{}, { policy: () => false }]) {
    const { sorts, reads } = run(options);
    assert.equal(sorts, 1);
    assert.equal(reads.length, 2);
    assert.deepEqual(reads[1], reads[0]);
  }
  assert.equal(run({ policy: () => CheckpointPolicy.MustRecompute }).sorts, 2);
});

test('S1 a named value is asked about again, under its name; orders must agree', () => {
  const seen: unknown[] = [];
  const region = (x: Tensor): Tensor => sin(checkpointName(exp(x), 'e'));
  const run = (policy: (context: PolicyContext) => CheckpointPolicy): number => {
    const counter = countOps(() => {
      gradientOf((x) => checkpoint(region, [x], { policy }));
    });
    return counter.count('exp');
  };
  const byName = ({ op, name, traits, output }: PolicyContext): CheckpointPolicy => {
    seen.push([op, name, traits.class, output.shape]);
    return name === 'e' ? 'mustSave' : 'preferRecompute';
  };
  assert.equal(run(byName), 1);
  assert.deepEqual(seen.slice(0, 2), [
    ['exp', undefined, 'elementwise', [4]],
    ['exp', 'e', 'elementwise', [4]],
  ]);
  assert.equal(
    run(() => 'preferRecompute'),
    2,
  );
  assert.throws(
    () => run(({ name }) => (name === 'e' ? 'mustRecompute' : 'mustSave')),
    (e) => e instanceof CheckpointError && /contradicts itself at exp.*named 'e'/.test(e.message),
  );
});
