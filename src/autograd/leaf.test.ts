/** Hooks on gradients, hooks after accumulation, and gradients of computed tensors. */

import assert from 'node:assert/strict';
import { alsoCompiled } from '../../test/support/also-compiled.ts';
import { AutogradError, ShapeError } from '../core/errors.ts';
import '../ops/methods.ts';
import { add, mul } from '../ops/arithmetic.ts';
import { sum } from '../ops/broadcast.ts';
import { exp } from '../ops/unary.ts';
import { liveBytes } from '../tensor/backend.ts';
import { tensor, toArray } from '../tensor/factory.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { checkLiveBytes } from '../../test/support/backend.ts';
import { backward, grad } from './backward.ts';
import { registerHook, registerPostAccumulateGradHook, retainGrad } from './leaf.ts';

const test = alsoCompiled(import.meta.url);

checkLiveBytes();

function leaf(...values: number[]): Tensor {
  return tensor(values, { requiresGrad: true });
}

function values(x: Tensor | undefined): number[] {
  assert.ok(x);
  return [...toArray(x)];
}

test('hooks run in the order of registration, each on what the one before returned', () => {
  scope(() => {
    const x = leaf(1, 2);
    const y = mul(x, 2);
    const seen: string[] = [];
    const watch = (name: string, factor?: number) => (g: Tensor) => {
      seen.push(`${name} ${values(g)}`);
      return factor === undefined ? undefined : mul(g, factor);
    };
    registerHook(y, watch('first', 10));
    const remove = registerHook(y, watch('second'));
    registerHook(y, watch('third', 10));
    registerHook(x, watch('leaf', 0.5));
    registerHook(x, watch('leaf again'));
    retainGrad(y);
    backward(sum(y), { retainGraph: true });
    const expected = ['first 1,1', 'second 10,10', 'third 10,10', 'leaf 200,200', 'leaf again 100,100']; // biome-ignore format: one line
    assert.deepEqual(seen, expected);
    assert.deepEqual(values(x.grad), [100, 100]);
    assert.deepEqual(values(y.grad), [100, 100]);
    remove();
    seen.length = 0;
    assert.deepEqual(grad(sum(y), [x]).map(values), [[100, 100]]);
    assert.deepEqual(
      seen,
      expected.filter((text) => !text.startsWith('second')),
    );
  });
});

test('a hook on a leaf sees the sum of all its uses once', () => {
  scope(() => {
    const x = leaf(1, 2);
    const seen: number[][] = [];
    registerHook(x, (g) => {
      seen.push(values(g));
      return undefined;
    });
    backward(sum(add(mul(x, 2), mul(exp(mul(x, 0)), x))));
    assert.deepEqual(seen, [[3, 3]]);
  });
});

test('a tensor that a hook hands back stays its own', () => {
  scope(() => {
    const fixed = tensor([7, 7]);
    const x = leaf(1, 2);
    registerHook(x, () => fixed);
    for (const want of [7, 14, 21]) {
      const y = mul(x, 2);
      registerHook(y, () => fixed);
      backward(sum(y));
      assert.deepEqual(values(x.grad), [want, want]);
    }
    assert.deepEqual(values(fixed), [7, 7]);
  });
});

test('hooks after accumulation see the finished gradient once per backward, and may take it', () => {
  scope(() => {
    const x = leaf(1, 2);
    const y = leaf(5);
    const seen: string[] = [];
    const remove = registerPostAccumulateGradHook(x, (p) => {
      assert.equal(p, x);
      seen.push(`x ${values(p.grad)}`);
    });
    registerPostAccumulateGradHook(y, (p) => {
      seen.push(`y ${values(p.grad)}`);
      p.grad = undefined;
    });
    const loss = sum(mul(add(x, mul(x, 3)), y));
    backward(loss, { retainGraph: true });
    backward(loss, { retainGraph: true });
    assert.deepEqual(seen.toSorted(), ['x 20,20', 'x 40,40', 'y 12', 'y 12']);
    assert.equal(y.grad, undefined);
    grad(loss, [x], { retainGraph: true });
    assert.equal(seen.length, 4, 'grad() accumulates nothing');
    remove();
    backward(loss);
    assert.equal(seen.length, 5);
  });
});

test('retainGrad keeps and adds up the gradient of a computed tensor', () => {
  scope(() => {
    const x = leaf(1, 2);
    const y = mul(x, 3);
    assert.equal(retainGrad(y), y);
    const loss = sum(mul(y, y));
    backward(loss, { retainGraph: true });
    assert.deepEqual(values(y.grad), [6, 12]);
    backward(loss);
    assert.deepEqual(values(y.grad), [12, 24]);
    assert.deepEqual(values(x.grad), [36, 72]);
    backward(sum(retainGrad(x)));
    assert.deepEqual(values(x.grad), [37, 73]);
  });
});

test('hooks where no gradient flows, and gradients of another shape, are errors', () => {
  scope(() => {
    const frozen = tensor([1]);
    const x = leaf(1, 2);
    for (const attach of [
      () => registerHook(frozen, () => undefined),
      () => registerPostAccumulateGradHook(frozen, () => {}),
      () => registerPostAccumulateGradHook(mul(x, 2), () => {}),
      () => retainGrad(frozen),
    ]) {
      assert.throws(attach, AutogradError);
    }
    registerHook(x, (g) => sum(g));
    assert.throws(() => backward(sum(x)), ShapeError);
  });
});

test('a hook that throws leaves no memory behind', () => {
  const before = liveBytes();
  const x = leaf(1, 2);
  const y = exp(x);
  const loss = sum(y);
  registerHook(y, () => {
    throw new Error('from the hook');
  });
  assert.throws(() => backward(loss), /from the hook/);
  for (const made of [loss, y, x]) made.dispose();
  assert.equal(liveBytes(), before);
});
