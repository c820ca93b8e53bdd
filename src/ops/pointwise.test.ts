import assert from 'node:assert/strict';
import { describe } from 'node:test';
import { alsoCompiled } from '../../test/support/also-compiled.ts';
import { checkLiveBytes } from '../../test/support/backend.ts';
import { countOps } from '../../test/support/op-counter.ts';
import { backward, grad } from '../autograd/backward.ts';
import { ArgumentError, DTypeError, ShapeError } from '../core/errors.ts';
import { currentBackend } from '../tensor/backend.ts';
import { tensor, toArray } from '../tensor/factory.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { clamp, silu, swiglu } from './activations.ts';
import { add, div, maximum, mul, pow, sub } from './arithmetic.ts';
import { cast, sum } from './broadcast.ts';
import { eq, gt, where } from './comparison.ts';
import { full, ones } from './creation.ts';
import { exp, neg, sqrt, tanh } from './unary.ts';

const it = alsoCompiled(import.meta.url);

checkLiveBytes();

const list = (x: Tensor | undefined): number[] => (x ? [...toArray(x)] : []);
const leaf = (values: number[]): Tensor => tensor(values, { requiresGrad: true });
const saved = (x: Tensor): string[] => [...(x.node?.saved.keys() ?? [])];

describe('what elementwise ops save', () => {
  it('is only what the wanted gradients read', () => {
    scope(() => {
      const [x, w, frozen] = [leaf([1, 2]), leaf([3, 4]), tensor([5, 6])];
      assert.deepEqual(saved(add(x, w)), []);
      assert.deepEqual(saved(mul(x, w)), ['a', 'b']);
      assert.deepEqual(saved(mul(x, frozen)), ['b']);
      assert.deepEqual(saved(mul(frozen, x)), ['a']);
      assert.deepEqual(saved(mul(x, 2)), []);
      assert.deepEqual(saved(div(frozen, x)), ['a', 'b']);
      assert.deepEqual(saved(where(gt(frozen, 0), x, w)), ['condition']);
    });
  });

  it('is the output where that is enough', () => {
    scope(() => {
      const x = leaf([1, 2]);
      for (const y of [exp(x), tanh(x), sqrt(x)]) assert.deepEqual(saved(y), ['out']);
      assert.deepEqual(saved(silu(x)), ['x']);
    });
  });
});

describe('the backward of elementwise ops', () => {
  it('is one kernel for all inputs', () => {
    scope(() => {
      const [gate, up] = [leaf([1, -2]), leaf([3, 4])];
      const y = swiglu(gate, up);
      const g = ones([2]);
      const counter = countOps(() => backward(y, { gradient: g }));
      assert.equal(counter.count('swigluBackward'), 1);
      const computed = [...counter.counts.keys()].filter((name) => name !== 'clone');
      assert.deepEqual(computed, ['swigluBackward']);
    });
  });

  it('needs no kernel where the gradient is the cotangent', () => {
    scope(() => {
      const [x, y] = [leaf([1, 2]), leaf([3, 4])];
      const z = add(x, y);
      const g = ones([2]);
      const counter = countOps(() => grad(z, [x, y], { gradOutputs: g }));
      assert.deepEqual([...counter.counts.keys()], []);
    });
  });

  it('goes on to third derivatives', () => {
    scope(() => {
      const x = leaf([0.7]);
      let y: Tensor = pow(x, 5);
      for (let order = 0; order < 3; order++) y = grad(sum(y), x, { createGraph: true })[0]!;
      assert.ok(Math.abs(list(y)[0]! - 60 * 0.7 ** 2) < 1e-4);
    });
  });

  it('sums over broadcast axes and keeps the dtype of the input', () => {
    scope(() => {
      const x = full([2, 3], 2, { requiresGrad: true });
      const w = full([3, 1, 1], 1.5, { dtype: 'bfloat16', requiresGrad: true });
      backward(sum(mul(x, w)));
      assert.deepEqual(list(x.grad), new Array(6).fill(4.5));
      assert.equal(w.grad?.dtype, 'bfloat16');
      assert.deepEqual(w.grad?.shape, [3, 1, 1]);
      assert.deepEqual(list(w.grad), [12, 12, 12]);
    });
  });

  it('has the conventions of PyTorch at kinks', () => {
    scope(() => {
      const slope = (f: (x: Tensor) => Tensor, at: number): number => {
        const x = leaf([at]);
        return list(grad(sum(f(x)), x)[0])[0]!;
      };
      assert.equal(
        slope((x) => maximum(x, 0), 0),
        0.5,
      );
      assert.equal(
        slope((x) => pow(x, 0), 0),
        0,
      );
      assert.equal(
        slope((x) => clamp(x, { min: 0 }), 0),
        1,
      );
      assert.equal(
        slope((x) => clamp(x, { max: 1 }), 2),
        0,
      );
    });
  });
});

describe('dtypes of elementwise ops', () => {
  const int = (values: number[]): Tensor => tensor(values, { dtype: 'int32' });

  it('promote as in PyTorch', () => {
    scope(() => {
      const half = full([2], 1, { dtype: 'float16' });
      const brain = full([2], 1, { dtype: 'bfloat16' });
      assert.equal(add(int([1, 2]), half).dtype, 'float16');
      assert.equal(add(half, brain).dtype, 'float32');
      assert.equal(div(int([1, 2]), int([2, 2])).dtype, 'float32');
      assert.equal(exp(int([1, 2])).dtype, 'float32');
      assert.equal(eq(half, brain).dtype, 'bool');
      assert.equal(mul(brain, 2.5).dtype, 'bfloat16');
      assert.equal(add(int([1, 2]), 2).dtype, 'int32');
      assert.equal(add(int([1, 2]), 2.5).dtype, 'float32');
      assert.equal(add(eq(half, brain), 1).dtype, 'int32');
    });
  });

  it('treat bools as torch does', () => {
    scope(() => {
      const [t, f] = [tensor([true]), tensor([false])];
      assert.deepEqual(
        [add(t, t), mul(t, f), maximum(t, f)].map((x) => list(x)[0]),
        [1, 0, 1],
      );
      assert.throws(() => sub(t, f), DTypeError);
      assert.throws(() => neg(t), /bools are not numbers \(got x bool\[1\]\)/);
      assert.throws(() => where(int([1]), t, f), /the condition must be bool \(got int32\[1\]\)/);
    });
  });

  it('wrap integers and truncate casts', () => {
    scope(() => {
      assert.deepEqual(list(add(int([2 ** 31 - 1]), 1)), [-(2 ** 31)]);
      assert.deepEqual(list(cast(tensor([1.9, -1.9, 0.2]), 'int32')), [1, -1, 0]);
      assert.deepEqual(list(cast(tensor([0.2, 0, -3]), 'bool')), [1, 0, 1]);
    });
  });
});

describe('numbers as operands', () => {
  it('stand on either side', () => {
    scope(() => {
      const x = tensor([1, 2, 4]);
      assert.deepEqual(list(sub(10, x)), [9, 8, 6]);
      assert.deepEqual(list(sub(x, 10)), [-9, -8, -6]);
      assert.deepEqual(list(div(8, x)), [8, 4, 2]);
      assert.deepEqual(list(pow(2, x)), [2, 4, 16]);
      assert.throws(() => add(1, 2), ArgumentError);
    });
  });

  it('keep infinities and the sign of zero apart', () => {
    scope(() => {
      const x = tensor([1]);
      const results = [Infinity, -Infinity, 0, -0].map((value) => list(div(x, mul(x, value)))[0]);
      assert.deepEqual(results, [0, -0, Infinity, -Infinity]);
    });
  });

  it('are run-time values: no kernel is made for a second number', () => {
    scope(() => {
      const x = tensor([1, 2, 3, 4, 5]);
      const backend = currentBackend();
      const { prepare } = backend;
      const keys = new Set<string>();
      backend.prepare = (lowered) => {
        const made = prepare.call(backend, lowered);
        keys.add(made.key);
        return made;
      };
      try {
        for (const value of [0.1, 0.2, 0.3]) mul(x, value);
      } finally {
        backend.prepare = prepare;
      }
      assert.equal(keys.size, 1);
    });
  });
});

describe('errors of elementwise ops', () => {
  it('name both shapes and the axis', () => {
    scope(() => {
      assert.throws(
        () => mul(ones([2, 3]), ones([4, 1, 2])),
        (error: ShapeError) =>
          error instanceof ShapeError &&
          error.message.startsWith('mul: shapes [2, 3] and [4, 1, 2] do not broadcast: axis -1 '),
      );
    });
  });
});
