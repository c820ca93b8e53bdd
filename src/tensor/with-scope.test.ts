/** Scopes: what they dispose, what they hand on, nesting, errors. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backward } from '../autograd/backward.ts';
import { DisposedError } from '../core/errors.ts';
import '../ops/methods.ts';
import { mul } from '../ops/arithmetic.ts';
import { reshape, sum } from '../ops/broadcast.ts';
import { checkLiveBytes } from '../../test/support/backend.ts';
import { liveBytes } from './backend.ts';
import { tensor, toArray } from './factory.ts';
import type { Tensor } from './tensor.ts';
import { asyncScope, scope } from './with-scope.ts';

checkLiveBytes();

test('what is returned moves one scope out; the rest is disposed', () => {
  scope(() => {
    const made: Tensor[] = [];
    const inner = scope(() => {
      const a = tensor([1]);
      const b = tensor([2]);
      const c = tensor([3]);
      made.push(a, b, c, tensor([4]));
      return { a, nested: [new Map([['b', b]]), new Set([c])] };
    });
    assert.deepEqual(
      made.map((t) => t.disposed),
      [false, false, false, true],
    );
    assert.throws(() => made[3]?.data, DisposedError);
    const outer = scope(() => scope(() => scope(() => mul(inner.a, 5))));
    assert.deepEqual([...toArray(outer)], [5]);
  });
});

test('keep() takes a tensor out of every scope', () => {
  const before = liveBytes();
  let own: Tensor | undefined;
  scope(() => {
    scope(() => {
      own = tensor([3]).keep();
    });
  });
  assert.equal(own?.disposed, false);
  own?.dispose();
  own?.dispose();
  assert.equal(liveBytes(), before);
});

test('a view keeps the memory when its base goes; a graph keeps what it saved', () => {
  const before = liveBytes();
  const x = tensor([1, 2], { requiresGrad: true });
  const view = scope(() => reshape(mul(x, 2), [2, 1]));
  scope(() => assert.deepEqual([...toArray(view)], [2, 4]));
  const loss = scope(() => {
    const y = mul(x, 3);
    return sum(mul(y, y));
  });
  backward(loss);
  scope(() => assert.deepEqual([...toArray(x.grad as Tensor)], [18, 36]));
  for (const made of [view, loss, x]) made.dispose();
  assert.equal(liveBytes(), before);
});

test('a gradient belongs to its leaf, not to the scope of the backward', () => {
  scope(() => {
    const x = tensor([1], { requiresGrad: true });
    scope(() => backward(mul(x, 2)));
    scope(() => backward(mul(x, 2)));
    assert.deepEqual([...toArray(x.grad as Tensor)], [4]);
  });
});

test('a throwing body disposes everything, and the scopes around it go on', async () => {
  const before = liveBytes();
  scope(() => {
    const around = tensor([1]);
    assert.throws(
      () =>
        scope(() => {
          tensor([2]);
          scope(() => {
            tensor([3]);
            throw new Error('inside');
          });
        }),
      /inside/,
    );
    assert.equal(around.disposed, false);
    assert.ok(tensor([4]));
  });
  assert.equal(liveBytes(), before);
  await assert.rejects(
    asyncScope(async () => {
      tensor([1]);
      await Promise.resolve();
      tensor([2]);
      throw new Error('later');
    }),
    /later/,
  );
  assert.equal(liveBytes(), before);
  const result = await asyncScope(async () => {
    const a = tensor([1]);
    await Promise.resolve();
    return [mul(a, 2)];
  });
  assert.deepEqual([...toArray(result[0] as Tensor)], [2]);
  result[0]?.dispose();
  assert.equal(liveBytes(), before);
});
