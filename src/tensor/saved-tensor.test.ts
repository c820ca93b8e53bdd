/** Saved-tensor hooks: what pack sees, who owns what it returns, when release runs, and errors. */

import assert from 'node:assert/strict';
import { alsoCompiled } from '../../test/support/also-compiled.ts';
import { backward } from '../autograd/backward.ts';
import '../ops/methods.ts';
import { mul } from '../ops/arithmetic.ts';
import { sum } from '../ops/broadcast.ts';
import { exp } from '../ops/unary.ts';
import { checkLiveBytes } from '../../test/support/backend.ts';
import { liveBytes } from './backend.ts';
import { fromHost, tensor, toArray, toHost } from './factory.ts';
import { type SaveContext, withSavedTensorHooks } from './saved-tensor.ts';
import type { Tensor } from './tensor.ts';
import { scope } from './with-scope.ts';

const test = alsoCompiled(import.meta.url);

checkLiveBytes();

function values(x: Tensor | undefined): number[] {
  assert.ok(x);
  return [...toArray(x)];
}

const leaf = (...list: number[]): Tensor => tensor(list, { requiresGrad: true });

test('pack sees each saved tensor with its op; unpack and release run once each', () => {
  scope(() => {
    const x = leaf(1, 2);
    const events: string[] = [];
    const hooks = {
      pack: (saved: Tensor, { op, name }: SaveContext) => {
        events.push(`pack ${op}.${name}`);
        return { host: toHost(saved), label: `${op}.${name}` };
      },
      unpack: ({ host, label }: { host: ReturnType<typeof toHost>; label: string }) => {
        events.push(`unpack ${label}`);
        return fromHost(host);
      },
      release: ({ label }: { label: string }) => events.push(`release ${label}`),
    };
    const loss = withSavedTensorHooks({ ...hooks, release: (p) => void hooks.release(p) }, () =>
      sum(mul(exp(x), x)),
    );
    assert.deepEqual(events, ['pack exp.out', 'pack mul.a', 'pack mul.b']);
    backward(loss);
    assert.deepEqual(events.slice(3), [
      'unpack mul.a',
      'unpack mul.b',
      'release mul.a',
      'release mul.b',
      'unpack exp.out',
      'release exp.out',
    ]);
    const want = [1, 2].map((v) => Math.fround(Math.fround(Math.exp(v)) * v + Math.exp(v)));
    values(x.grad).forEach((got, i) => assert.ok(Math.abs(got - (want[i] as number)) < 1e-5));
  });
});

test('pack may return its argument: the caller keeps its tensor', () => {
  scope(() => {
    const x = leaf(3, 4);
    const same = { pack: (saved: Tensor) => saved, unpack: (saved: Tensor) => saved };
    for (const want of [
      [6, 8],
      [12, 16],
    ]) {
      backward(withSavedTensorHooks(same, () => sum(mul(x, x))));
      assert.deepEqual(values(x.grad), want);
    }
    assert.deepEqual(values(x), [3, 4]);
  });
});

test('a tensor that pack makes lives as long as the graph, not as long as the scope', () => {
  const before = liveBytes();
  const x = leaf(3, 4);
  const half = {
    pack: (saved: Tensor) => mul(saved.detach(), 0.5),
    unpack: (packed: Tensor) => mul(packed, 2),
  };
  const loss = scope(() => withSavedTensorHooks(half, () => sum(mul(x, x))));
  backward(loss);
  scope(() => assert.deepEqual(values(x.grad), [6, 8]));
  loss.dispose();
  x.dispose();
  assert.equal(liveBytes(), before);
});

test('the innermost hooks are in force, and none inside withSavedTensorHooks(undefined)', () => {
  scope(() => {
    const x = leaf(1);
    const seen: string[] = [];
    const named = (name: string) => ({
      pack: (saved: Tensor) => {
        seen.push(name);
        return saved;
      },
      unpack: (saved: Tensor) => saved,
    });
    withSavedTensorHooks(named('outer'), () => {
      exp(x);
      withSavedTensorHooks(named('inner'), () => exp(x));
      withSavedTensorHooks(undefined, () => exp(x));
      exp(x);
    });
    exp(x);
    assert.deepEqual(seen, ['outer', 'inner', 'outer']);
  });
});

test('hooks that throw leave no memory behind', () => {
  const before = liveBytes();
  const x = leaf(1, 2);
  let calls = 0;
  const failing = {
    pack: (saved: Tensor) => {
      if (++calls % 2 === 0) throw new Error('in pack');
      return saved;
    },
    unpack: (): never => {
      throw new Error('in unpack');
    },
  };
  const product = (): Tensor => withSavedTensorHooks(failing, () => mul(x, x));
  assert.throws(product, /in pack/);
  calls = 1;
  assert.throws(() => withSavedTensorHooks(failing, () => exp(x)), /in pack/);
  calls = 0;
  const kept = withSavedTensorHooks(failing, () => exp(x));
  const loss = sum(kept);
  assert.throws(() => backward(loss), /in unpack/);
  for (const made of [kept, loss, x]) made.dispose();
  assert.equal(liveBytes(), before);
});
