/**
 * createSelectiveCheckpointContexts and contextFn against the cases of PyTorch's
 * TestSelectiveActivationCheckpoint. Units: a 512 x 512 float32 tensor is 1 MiB, a product of two of them 1.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type CheckpointOptions,
  CheckpointPolicy,
  type PolicyContext,
  type Tensor,
  add,
  addInPlace,
  backward,
  checkpoint,
  checkpointName,
  cos,
  createSelectiveCheckpointContexts,
  exp,
  grad,
  isRecomputing,
  liveBytes,
  matmul,
  mul,
  noGrad,
  reshape,
  runOnce,
  scope,
  sin,
  sort,
  sum,
  tanh,
  tensor,
  toArray,
} from '../../src/index.ts';
import { ArgumentError, CheckpointError } from '../../src/core/errors.ts';
import { PassThroughMode } from '../../src/tensor/pass-through-mode.ts';
import type { Mode } from '../../src/tensor/mode.ts';
import { checkLiveBytes } from '../support/backend.ts';
import { countOps } from '../support/op-counter.ts';

checkLiveBytes();

const MiB = 2 ** 20;
const unit = 2 * 512 ** 3;

function square(seed: number, size = 512): Tensor {
  const values = Float32Array.from(
    { length: size * size },
    (_, i) => Math.sin(i * 0.7 + seed) / 16,
  );
  return tensor(values, { shape: [size, size], requiresGrad: true });
}

/** Bytes held between forward and backward, and backward's matrix products in units. */
function measure(options: CheckpointOptions | undefined): { mem: number; flops: number } {
  return scope(() => {
    const [x, y] = [square(1), square(2)];
    const fn = (a: Tensor, b: Tensor): Tensor => sin(matmul(cos(a), b));
    const start = liveBytes();
    const out = scope(() => sum(options ? checkpoint(fn, [x, y], options) : fn(x, y)));
    const mem = (liveBytes() - start - 64) / MiB;
    const counter = countOps(() => backward(out));
    const products = counter.count('matmul');
    assert.ok(counter.flops >= products * unit);
    return { mem, flops: products };
  });
}

test('S3 bytes and FLOPs [test_flops_and_mem]', () => {
  assert.deepEqual(measure(undefined), { mem: 2, flops: 2 });
  assert.deepEqual(measure({}), { mem: 0, flops: 3 });
  const byList = () => createSelectiveCheckpointContexts(['matmul']);
  assert.deepEqual(measure({ contextFn: byList }), { mem: 1, flops: 2 });
  const byPolicy = () =>
    createSelectiveCheckpointContexts(({ op }) =>
      op === 'matmul' ? CheckpointPolicy.MustSave : CheckpointPolicy.PreferRecompute,
    );
  assert.deepEqual(measure({ contextFn: byPolicy }), { mem: 1, flops: 2 });
  const byBoolean = () => createSelectiveCheckpointContexts(({ op }) => op === 'matmul');
  assert.deepEqual(measure({ contextFn: byBoolean }), { mem: 1, flops: 2 });
});

function gradientOf(f: (x: Tensor) => Tensor): number[] {
  return scope(() => {
    const x = tensor([0.3, -1.2, 2, 0.7], { requiresGrad: true });
    const [gradient] = grad(sum(f(x)), [x]);
    assert.ok(gradient);
    return [...toArray(gradient)];
  });
}

function selective(ops: readonly string[], allowCacheEntryMutation = false): CheckpointOptions {
  return { contextFn: () => createSelectiveCheckpointContexts(ops, { allowCacheEntryMutation }) };
}

test('S3 stored views of integers [test_output_already_has_autograd_meta]', () => {
  const region = (x: Tensor, indices: Tensor): Tensor => {
    reshape(indices, [2, 1]);
    return sin(exp(x));
  };
  scope(() => {
    const x = tensor([1, 2], { requiresGrad: true });
    const indices = tensor([3, 4], { dtype: 'int32' });
    const y = checkpoint(region, [x, indices], selective(['reshape', 'exp']));
    backward(sum(y));
    assert.ok(x.grad);
  });
});

test('S3 bad arguments [test_bad_inputs]', () => {
  const bad = (value: unknown): unknown => createSelectiveCheckpointContexts(value as string[]);
  assert.throws(
    () => bad(['matmull']),
    (e) => e instanceof ArgumentError && /expected an op in the list.*matmul/i.test(e.message),
  );
  assert.throws(() => bad([7]), ArgumentError);
  assert.throws(
    () => bad(2),
    (e) => e instanceof ArgumentError && /either a function or a list of ops/.test(e.message),
  );
});

test('S2 a policy with state is asked in forward only [test_policy_with_state]', () => {
  const calls: number[] = [];
  const contextFn = () => {
    let count = 0;
    return createSelectiveCheckpointContexts(({ op }) => {
      calls.push(++count);
      return op === 'exp';
    });
  };
  const region = (x: Tensor): Tensor => sin(mul(exp(x), x));
  const plain = gradientOf(region);
  assert.deepEqual(
    gradientOf((x) => checkpoint(region, [x], { contextFn })),
    plain,
  );
  assert.deepEqual(calls, [1, 2, 3]);
});

test('S6 stored values live as long as the graph, and go when they are consumed [test_storage_lifetime]', () => {
  scope(() => {
    const x = tensor(new Float32Array(4096).fill(0.5), { requiresGrad: true });
    const region = (v: Tensor): Tensor => tanh(add(exp(v), v));
    const before = liveBytes();
    const dropped = checkpoint(region, [x], selective(['exp']));
    assert.equal(liveBytes() - before, 2 * 4096 * 4, 'the output and the stored value');
    dropped.dispose();
    assert.equal(liveBytes(), before, 'without a backward they go with the graph');
    const kept = checkpoint(region, [x], selective(['exp']));
    backward(sum(kept), { retainGraph: true });
    x.grad = undefined;
    scope(() => assert.ok(liveBytes() - before < 2 * 4096 * 4, 'consumed though the graph lives'));
    kept.dispose();
  });
});

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

test('S3 a stored value that is changed in place is an error [test_version_counter]', () => {
  const region = (x: Tensor): Tensor => {
    const y = sin(x);
    noGrad(() => addInPlace(y, 1));
    return mul(y, x);
  };
  assert.throws(
    () => gradientOf((x) => checkpoint(region, [x], selective(['sin']))),
    (e) => e instanceof CheckpointError && /has been mutated/.test(e.message),
  );
  gradientOf((x) => checkpoint(region, [x], selective(['sin'], true)));
});

test('S3 all outputs of an op are stored [test_function_with_more_than_one_output]', () => {
  const region = (x: Tensor): Tensor => {
    const { values, indices } = sort(x);
    assert.equal(indices.dtype, 'int32');
    return sin(mul(values, x));
  };
  const plain = gradientOf(region);
  let runs = 0;
  const counted = countOps(() => {
    assert.deepEqual(
      gradientOf((x) => checkpoint(region, [x], selective(['sort']))),
      plain,
    );
  });
  runs = counted.count('sort');
  assert.equal(runs, 1);
});

test('S3 a region can be recomputed once only [test_can_only_trigger_recompute_once]', () => {
  scope(() => {
    const x = tensor([1, 2], { requiresGrad: true });
    const region = (v: Tensor): Tensor => sin(exp(v));
    const y = sum(checkpoint(region, [x], selective(['exp'])));
    backward(y, { retainGraph: true });
    assert.throws(
      () => backward(y),
      (e) => e instanceof CheckpointError && /Trying to backward an extra time/.test(e.message),
    );
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

class Seen extends PassThroughMode {
  readonly ops: string[];
  constructor(inner: Mode, ops: string[]) {
    super(inner);
    this.ops = ops;
  }
  override run(...args: Parameters<Mode['run']>): ReturnType<Mode['run']> {
    this.ops.push(args[0].name);
    return super.run(...args);
  }
}

test('C10 modes around the two runs [test_checkpointing_without_reentrant_with_context_fn]', () => {
  const forward: string[] = [];
  const again: string[] = [];
  let made = 0;
  const contextFn: CheckpointOptions['contextFn'] = () => {
    made++;
    return [(inner) => new Seen(inner, forward), (inner) => new Seen(inner, again)];
  };
  const region = (x: Tensor): Tensor => exp(x);
  const plain = gradientOf(region);
  assert.deepEqual(
    gradientOf((x) => checkpoint(region, [x], { contextFn })),
    plain,
  );
  assert.deepEqual(forward, ['exp']);
  assert.deepEqual(again, ['exp']);
  gradientOf((x) => checkpoint((v: Tensor) => checkpoint(region, [v], { contextFn }), [x]));
  assert.ok(made >= 3, 'once per region call');
  assert.throws(
    () =>
      scope(() =>
        checkpoint(region, [tensor([1], { requiresGrad: true })], {
          contextFn,
          useReentrant: true,
        }),
      ),
    /useReentrant/,
  );
});

test('C10 a contextFn that makes no pair is an error [test_compile_selective_checkpoint_invalid_context]', () => {
  for (const pair of [[], [() => {}], undefined, [1, 2]]) {
    const contextFn = (() => pair) as unknown as NonNullable<CheckpointOptions['contextFn']>;
    assert.throws(
      () => gradientOf((x) => checkpoint(sin, [x], { contextFn })),
      (e) => e instanceof ArgumentError && /must generate a tuple of two/.test(e.message),
    );
  }
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
