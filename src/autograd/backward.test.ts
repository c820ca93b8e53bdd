/** Gradients: which leaves get them, higher orders, accumulation, errors, and memory after errors. */

import assert from 'node:assert/strict';
import { alsoCompiled } from '../../test/support/also-compiled.ts';
import { AutogradError } from '../core/errors.ts';
import type { HostTensor } from '../core/host-tensor.ts';
import '../ops/methods.ts';
import { add, mul } from '../ops/arithmetic.ts';
import { expand, reshape, sum } from '../ops/broadcast.ts';
import { addInPlace } from '../ops/in-place.ts';
import { rmsNorm } from '../ops/rms-norm.ts';
import { exp, sin } from '../ops/unary.ts';
import { attachBackward } from '../tensor/apply.ts';
import { liveBytes } from '../tensor/backend.ts';
import { noGrad } from '../tensor/context.ts';
import { fromHost, item, tensor, toArray, toHost } from '../tensor/factory.ts';
import { withSavedTensorHooks } from '../tensor/saved-tensor.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { checkLiveBytes } from '../../test/support/backend.ts';
import { backward, grad } from './backward.ts';

const test = alsoCompiled(import.meta.url);

checkLiveBytes();

function leaf(...values: number[]): Tensor {
  return tensor(values, { requiresGrad: true });
}

function values(x: Tensor | undefined): number[] {
  assert.ok(x);
  return [...toArray(x)];
}

function one(x: Tensor | undefined): number {
  assert.ok(x);
  return item(x);
}

const autogradError =
  (text: RegExp) =>
  (error: unknown): boolean =>
    error instanceof AutogradError && text.test(error.message);

test('the first three derivatives of x^4 and of sin', () => {
  scope(() => {
    const x = leaf(3);
    const [first] = grad(mul(mul(x, x), mul(x, x)), x, { createGraph: true });
    const [second] = grad(first as Tensor, x, { createGraph: true });
    const [third] = grad(second as Tensor, x);
    assert.deepEqual([first, second, third].map(one), [108, 108, 72]);
    const [cos] = grad(sin(x), x, { createGraph: true });
    const [minusSin] = grad(cos as Tensor, x, { createGraph: true });
    const [minusCos] = grad(minusSin as Tensor, x);
    const want = [Math.cos(3), -Math.sin(3), -Math.cos(3)];
    [cos, minusSin, minusCos].forEach((got, i) => {
      assert.ok(Math.abs(one(got) - (want[i] as number)) < 1e-6);
    });
  });
});

test('a closure as backward can itself be differentiated', () => {
  scope(() => {
    const cube = (x: Tensor): Tensor => {
      const y = noGrad(() => mul(mul(x, x), x));
      const backwardOf = (
        [g]: readonly (Tensor | undefined)[],
        [saved]: readonly Tensor[],
      ): Tensor[] => [mul(g as Tensor, mul(mul(saved as Tensor, saved as Tensor), 3))];
      attachBackward({ name: 'cube', backward: backwardOf }, [x], [y], [x]);
      return y;
    };
    const x = leaf(2);
    const [first] = grad(cube(x), x, { createGraph: true });
    const [second] = grad(first as Tensor, x, { createGraph: true });
    const [third] = grad(second as Tensor, x);
    assert.deepEqual([first, second, third].map(one), [12, 12, 6]);
    backward(cube(x), { createGraph: true });
    const penalty = mul(x.grad as Tensor, 1);
    x.grad = undefined;
    backward(penalty);
    assert.equal(one(x.grad), 12);
  });
});

test('a closure may hand back a tensor of its own, which stays alive', () => {
  scope(() => {
    const constant = tensor([5, 6]);
    const x = leaf(1, 1);
    for (const want of [
      [5, 6],
      [10, 12],
    ]) {
      const y = noGrad(() => mul(x, 1));
      attachBackward({ name: 'constant', backward: () => [constant] }, [x], [y], []);
      backward(sum(y));
      assert.deepEqual(values(x.grad), want);
    }
    assert.deepEqual(values(constant), [5, 6]);
  });
});

test('grad and backward with inputs leave other leaves alone', () => {
  scope(() => {
    const a = leaf(2);
    const b = leaf(3);
    const product = mul(a, b);
    const loss = mul(product, b);
    assert.deepEqual(grad(loss, [product, b, product], { retainGraph: true }).map(one), [3, 12, 3]);
    assert.equal(a.grad, undefined);
    backward(loss, { inputs: [b, b], retainGraph: true });
    assert.equal(one(b.grad), 12);
    assert.equal(a.grad, undefined);
    backward(loss, { inputs: [product] });
    assert.equal(one(product.grad), 3);
    assert.equal(one(b.grad), 12);
  });
});

test('several outputs, cotangents, and an output that is a leaf or an input', () => {
  scope(() => {
    const x = leaf(1, 2);
    backward([sum(x), mul(x, x)], { gradient: [undefined, tensor([10, 100])] });
    assert.deepEqual(values(x.grad), [21, 401]);
    x.grad = undefined;
    const cotangent = tensor([3, 4]);
    backward(x, { gradient: cotangent });
    backward(x, { gradient: cotangent });
    assert.deepEqual(values(x.grad), [6, 8]);
    assert.deepEqual(values(cotangent), [3, 4]);
    const y = mul(x, 2);
    assert.deepEqual(grad(y, [y, x], { gradOutputs: cotangent }).map(values), [
      [3, 4],
      [6, 8],
    ]);
  });
});

test('gradients are added into memory of their own', () => {
  scope(() => {
    const x = leaf(1, 2, 3);
    x.grad = expand(tensor([10]), [3]);
    backward(sum(mul(x, x)));
    assert.deepEqual(values(x.grad), [12, 14, 16]);
    // Both leaves get one tensor as their gradient.
    const a = leaf(1, 2);
    const b = leaf(3, 4);
    for (let i = 0; i < 2; i++) backward(sum(add(a, b)));
    assert.notEqual(a.grad?.data.root, b.grad?.data.root);
    backward(sum(mul(a, 5)));
    assert.deepEqual(
      [a.grad, b.grad].map((g) => values(g)),
      [
        [7, 7],
        [2, 2],
      ],
    );
  });
});

test('memory that repeats elements cannot be changed in place', () => {
  scope(() => {
    const x = expand(tensor([1]), [3]);
    assert.throws(() => addInPlace(x, tensor([1, 2, 3])), { code: 'shape' });
    assert.deepEqual(values(x), [1, 1, 1]);
  });
});

test('what backward cannot do is an error', () => {
  scope(() => {
    const x = leaf(1, 2);
    const frozen = tensor([1, 2]);
    const loss = sum(exp(x));
    backward(loss);
    assert.throws(() => backward(loss), autogradError(/already been freed.*retainGraph: true/s));
    assert.throws(() => backward(exp(x)), autogradError(/has 2 elements/));
    assert.throws(() => backward(sum(frozen)), autogradError(/does not require a gradient/));
    assert.throws(() => backward(noGrad(() => sum(x))), autogradError(/has no graph/));
    assert.throws(
      () => backward(exp(x), { gradient: tensor([1]) }),
      autogradError(/cotangent of output 0 has shape/),
    );
    assert.throws(() => grad(sum(x), [frozen]), autogradError(/an input does not require/));
    assert.throws(() => grad(sum(x), [x, leaf(1)]), autogradError(/input 1 .* was not used/));
    const [used, unused] = grad(sum(x), [x, leaf(1)], { allowUnused: true });
    assert.deepEqual(values(used), [1, 1]);
    assert.equal(unused, undefined);
  });
});

test('a saved tensor that was changed in place is named; a leaf is not changed in place', () => {
  scope(() => {
    const x = leaf(1, 2);
    const y = mul(x, 1);
    const z = exp(y);
    noGrad(() => addInPlace(z, 1));
    assert.throws(() => backward(sum(z)), autogradError(/of exp was changed in place/));
    const used = mul(x, y);
    noGrad(() => addInPlace(reshape(y, [2, 1]), 1));
    assert.throws(() => backward(sum(used)), autogradError(/'\w+' of mul was changed in place/));
    assert.throws(() => addInPlace(x, 1), autogradError(/a leaf that requires a gradient/));
  });
});

test('errors in backward free everything, outside scopes too', () => {
  const before = liveBytes();
  const x = leaf(1, 2);
  const held: Tensor[] = [];
  const hold = (made: Tensor): Tensor => {
    held.push(made);
    return made;
  };
  const scalar = hold(sum(hold(exp(x))));
  const vector = hold(exp(x));
  assert.throws(() => backward([scalar, vector]), autogradError(/output 1 has 2 elements/));
  const other = leaf(1);
  assert.throws(() => grad(scalar, [x, other]), autogradError(/was not used/));
  const failing = hold(noGrad(() => mul(x, 2)));
  const fail = (): never => {
    throw new Error('in the closure');
  };
  attachBackward({ name: 'failing', backward: fail }, [x], [failing], [x]);
  const last = hold(sum(hold(add(failing, vector))));
  assert.throws(() => backward(last), /in the closure/);
  for (const made of [...held, x, other]) made.dispose();
  assert.equal(liveBytes(), before);
});

test('with createGraph an op that gets one tensor twice gives it the gradient once', () => {
  scope(() => {
    const x = tensor([0.3, 0.5, 0.1, -0.4], { requiresGrad: true });
    const step = (createGraph: boolean): (Tensor | undefined)[] =>
      grad(sum(mul(rmsNorm(x, x, 1e-5), tensor([1, 2, 3, 4]))), [x], { createGraph });
    const [want] = step(false);
    const [got] = step(true);
    assert.ok(want && got);
    toArray(got).forEach((value, i) => {
      assert.ok(Math.abs(value - (toArray(want)[i] ?? 0)) < 1e-5);
    });
  });
});

test('the second derivative reaches a leaf whose saved value hooks keep elsewhere', () => {
  scope(() => {
    const x = tensor([0.5, 1], { requiresGrad: true });
    const hooks = { pack: toHost, unpack: (host: HostTensor) => fromHost(host), release: () => {} };
    const y = withSavedTensorHooks(hooks, () => mul(mul(x, x), x));
    const [first] = grad(sum(y), [x], { createGraph: true });
    assert.ok(first);
    const [second] = grad(sum(first), [x]);
    assert.ok(second);
    assert.deepEqual([...toArray(second)], [3, 6]);
  });
});
