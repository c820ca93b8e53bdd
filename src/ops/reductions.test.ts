import assert from 'node:assert/strict';
import { describe } from 'node:test';
import { alsoCompiled } from '../../test/support/also-compiled.ts';
import { checkLiveBytes } from '../../test/support/backend.ts';
import { backward } from '../autograd/backward.ts';
import { DTypeError, ShapeError } from '../core/errors.ts';
import { createCpuBackend } from '../runtime/registry.ts';
import { currentBackend, setBackend } from '../tensor/backend.ts';
import { tensor, toArray } from '../tensor/factory.ts';
import { Generator } from '../tensor/generator.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { argmax } from './argmax.ts';
import { cast, expand, sum } from './broadcast.ts';
import { full, zeros } from './creation.ts';
import { prod } from './prod.ts';
import { normal } from './random.ts';
import { all, amax, any, logsumexp, mean, std, sumSquares, variance } from './reductions.ts';
import { softmax } from './softmax.ts';

const it = alsoCompiled(import.meta.url);

checkLiveBytes();

const list = (x: Tensor): number[] => [...toArray(x)];
const close = (got: number, want: number, rtol = 1e-5): void =>
  assert.ok(Math.abs(got - want) <= rtol * Math.max(1, Math.abs(want)), `${got} is not ${want}`);

describe('reductions over everything', () => {
  it('are right when they go in two stages', () => {
    scope(() => {
      const x = normal([257, 1024], { generator: new Generator(1) });
      const values = toArray(x);
      const total = values.reduce((a, b) => a + b, 0);
      close(list(sum(x))[0]!, total, 1e-4);
      close(list(mean(x))[0]!, total / values.length);
      close(
        list(sumSquares(x))[0]!,
        values.reduce((a, b) => a + b * b, 0),
      );
      assert.equal(
        list(amax(x))[0],
        values.reduce((a, b) => Math.max(a, b)),
      );
      assert.deepEqual(sum(x, undefined, { keepDims: true }).shape, [1, 1]);
      assert.deepEqual(amax(x, [0, 1], { keepDims: true }).shape, [1, 1]);
    });
  });

  it('give the same bits on any number of threads', () => {
    const before = currentBackend();
    const run = (threads: number): number[] => {
      const backend = createCpuBackend({ threads });
      setBackend(backend);
      try {
        return scope(() => list(sum(normal([1 << 18], { generator: new Generator(3) }))));
      } finally {
        setBackend(before);
        backend.dispose();
      }
    };
    const alone = run(1);
    assert.deepEqual(run(2), alone);
    assert.deepEqual(run(3), alone);
  });

  it('add 16-bit floats in float32', () => {
    scope(() => {
      assert.deepEqual(list(sum(full([1 << 17], 1, { dtype: 'bfloat16' }))), [1 << 17]);
      assert.deepEqual(
        list(sum(full([300], 1, { dtype: 'bfloat16' }), 0, { dtype: 'float32' })),
        [300],
      );
    });
  });

  it('have gradients in two stages', () => {
    scope(() => {
      const x = full([256, 512], 1, { requiresGrad: true });
      backward(mean(x));
      assert.ok(list(x.grad!).every((value) => value === 2 ** -17));
    });
  });
});

describe('reductions', () => {
  it('take negative axes, lists and keepDims', () => {
    scope(() => {
      const x = tensor([
        [1, 2, 3],
        [4, 5, 6],
      ]);
      assert.deepEqual(list(sum(x, -1)), [6, 15]);
      assert.deepEqual(list(prod(x, 0)), [4, 10, 18]);
      assert.deepEqual(mean(x, [0], { keepDims: true }).shape, [1, 3]);
      assert.deepEqual(list(sum(x, [])), [1, 2, 3, 4, 5, 6]);
      assert.deepEqual(list(argmax(x)), [5]);
      assert.throws(() => sum(x, 2), /sum: axis 2 is out of range for a tensor of 2 axes/);
      assert.throws(() => sum(x, [0, -2]), /an axis is named twice/);
    });
  });

  it('share the gradient between equal extremes', () => {
    scope(() => {
      const x = tensor([[3, 1, 3]], { requiresGrad: true });
      backward(sum(amax(x, 1)));
      assert.deepEqual(list(x.grad!), [0.5, 0, 0.5]);
    });
  });

  it('give the gradient of a product with a zero', () => {
    scope(() => {
      const x = tensor([2, 0, 3], { requiresGrad: true });
      backward(prod(x));
      assert.deepEqual(list(x.grad!), [0, 6, 0]);
    });
  });

  it('keep logsumexp and softmax finite', () => {
    scope(() => {
      const x = tensor([
        [1000, 1000],
        [-Infinity, -Infinity],
        [-1e30, 5],
      ]);
      const [a, b, c] = list(logsumexp(x, 1));
      close(a!, 1000 + Math.log(2));
      assert.equal(b, -Infinity);
      assert.equal(c, 5);
      assert.deepEqual(list(softmax(x)).slice(0, 2), [0.5, 0.5]);
    });
  });

  it('count and compare', () => {
    scope(() => {
      const x = tensor([
        [0, 2],
        [0, 0],
      ]);
      assert.deepEqual(list(any(x, 1)), [1, 0]);
      assert.deepEqual(list(all(x, 0)), [0, 0]);
      assert.equal(any(x).dtype, 'bool');
      assert.equal(sum(cast(x, 'bool')).dtype, 'int32');
    });
  });

  it('have the variance of torch', () => {
    scope(() => {
      const x = tensor([1, 2, 3, 4]);
      close(list(variance(x))[0]!, 5 / 3);
      close(list(variance(x, 0, { correction: 0 }))[0]!, 1.25);
      close(list(std(x))[0]!, Math.sqrt(5 / 3));
    });
  });

  it('say what they cannot take', () => {
    scope(() => {
      assert.throws(() => mean(zeros([3], { dtype: 'int32' })), DTypeError);
      assert.throws(() => amax(zeros([0, 3]), 0), ShapeError);
      assert.throws(() => argmax(zeros([2, 0]), 1), /argmax: axis 1 is empty/);
      assert.deepEqual(list(sum(zeros([0, 2]), 0)), [0, 0]);
    });
  });

  it('read expanded views without copying them', () => {
    scope(() => {
      assert.deepEqual(list(sum(expand(tensor([[1], [2]]), [2, 5]), 1)), [5, 10]);
    });
  });
});
