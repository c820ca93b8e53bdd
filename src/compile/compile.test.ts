/** Compiled steps at their edges: what comes in twice, what goes out, what is kept apart, and errors. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backward, grad } from '../autograd/backward.ts';
import { CompileError, DisposedError } from '../core/errors.ts';
import '../ops/methods.ts';
import { add, mul } from '../ops/arithmetic.ts';
import { cast, reshape, sum } from '../ops/broadcast.ts';
import { full } from '../ops/creation.ts';
import { addInPlace } from '../ops/in-place.ts';
import { matmul } from '../ops/matmul/matmul.ts';
import { softmax } from '../ops/softmax.ts';
import { exp } from '../ops/unary.ts';
import { transpose } from '../ops/views.ts';
import { createReferenceBackend } from '../runtime/registry.ts';
import { currentBackend, liveBytes, setBackend } from '../tensor/backend.ts';
import { noGrad } from '../tensor/context.ts';
import { item, tensor } from '../tensor/factory.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { checkLiveBytes } from '../../test/support/backend.ts';
import { values, withCompiled } from '../../test/support/compiled.ts';
import { compile } from './compile.ts';

checkLiveBytes();

test('one tensor passed twice is one input: its gradient is whole', () => {
  const step = (a: Tensor, b: Tensor): (Tensor | undefined)[] => grad(sum(mul(a, b)), [a, b]);
  withCompiled(step, (compiled) => {
    const x = tensor([2, 3], { requiresGrad: true });
    const y = tensor([5, 7], { requiresGrad: true });
    assert.deepEqual(compiled(x, x).map(values), step(x, x).map(values));
    assert.deepEqual(compiled(x, y).map(values), step(x, y).map(values));
    assert.equal(compiled.plans.length, 2);
  });
});

test('a structure passed twice does not shift the tensors after it', () => {
  const step = (a: Tensor[], b: Tensor[], c: Tensor): Tensor =>
    add(add(a[0] as Tensor, b[0] as Tensor), mul(c, 10));
  withCompiled(step, (compiled) => {
    const list = [tensor([1])];
    assert.equal(item(compiled(list, list, tensor([4]))), 42);
  });
});

test('an output returned twice is one handle, and the next output is its own', () => {
  withCompiled(
    (x: Tensor) => {
      const y = mul(x, 2);
      return [y, y, mul(x, 3), { again: y }] as const;
    },
    (compiled) => {
      const [a, b, c, { again }] = compiled(tensor([1, 2]));
      assert.deepEqual([a, c].map(values), [
        [2, 4],
        [3, 6],
      ]);
      assert.ok(a === b && a === again);
    },
  );
});

test('arguments, captured tensors and views as results are copies', () => {
  scope(() => {
    const w = tensor([[1, 2], [3, 4]]); // biome-ignore format: one line
    withCompiled(
      (x: Tensor) => ({ x, w, turned: transpose(w), flat: reshape(mul(w, x), [4]) }),
      (compiled) => {
        const x = tensor([10, 100]);
        const got = compiled(x);
        assert.deepEqual(values(got.x), [10, 100]);
        assert.deepEqual(values(got.w), [1, 2, 3, 4]);
        assert.deepEqual(values(got.turned), [1, 3, 2, 4]);
        assert.deepEqual(values(got.flat), [10, 200, 30, 400]);
        noGrad(() => addInPlace(got.w, 1));
        assert.deepEqual(values(w), [1, 2, 3, 4]);
      },
    );
  });
});

test('a step may return nothing, take nothing, and handle empty tensors', () => {
  scope(() => {
    const w = tensor([1]);
    withCompiled(
      () => {
        noGrad(() => addInPlace(w, 1));
      },
      (compiled) => {
        assert.equal(compiled(), undefined);
        compiled();
        assert.equal(item(w), 3);
      },
    );
    withCompiled(
      (x: Tensor) => [mul(x, 2), sum(x)] as const,
      (compiled) => {
        const [empty, total] = compiled(tensor([], { shape: [0, 3] }));
        assert.deepEqual([empty.shape, values(empty), item(total)], [[0, 3], [], 0]);
      },
    );
    withCompiled(
      () => {},
      (compiled) => assert.equal(compiled(), undefined),
    );
  });
});

test('captured tensors with one label, or the label of an input, are kept apart', () => {
  scope(() => {
    const a = tensor([1]);
    const b = tensor([2]);
    a.label = 'weight';
    b.label = 'weight';
    const c = tensor([4]);
    c.label = 'arg0';
    withCompiled(
      (x: Tensor) => add(add(mul(a, 100), mul(b, 10)), add(x, mul(c, 1000))),
      (compiled) => assert.equal(item(compiled(tensor([3]))), 4123),
    );
  });
});

test('plain arguments that differ have plans of their own', () => {
  const read = (from: unknown): number =>
    from instanceof Map ? (from.get('f') as number) : typeof from === 'number' ? from : 7;
  withCompiled(
    (x: Tensor, from: unknown) => mul(x, read(from)),
    (compiled) => {
      const x = tensor([1]);
      const run = (from: unknown): number => item(compiled(x, from));
      assert.equal(run(new Map([['f', 2]])), 2);
      assert.equal(run(new Map([['f', 3]])), 3);
      assert.equal(run(Number.POSITIVE_INFINITY), Number.POSITIVE_INFINITY);
      assert.equal(run(Number.NEGATIVE_INFINITY), Number.NEGATIVE_INFINITY);
      assert.equal(run(null), 7);
      assert.equal(run(undefined), 7);
      assert.equal(compiled.plans.length, 6);
      run(new Map([['f', 2]]));
      assert.equal(compiled.plans.length, 6);
    },
  );
  withCompiled(
    (x: Tensor, from: { scale: () => number }) => mul(x, from.scale()),
    (compiled) => {
      class Scale {
        readonly #by: number;
        constructor(by: number) {
          this.#by = by;
        }
        scale(): number {
          return this.#by;
        }
      }
      assert.equal(item(compiled(tensor([1]), new Scale(2))), 2);
      assert.equal(item(compiled(tensor([1]), new Scale(3))), 3);
    },
  );
});

test('a run that fails frees its arena and results', () => {
  scope(() => {
    const { allocator } = currentBackend();
    const x = tensor(new Float32Array(4096));
    withCompiled(
      (y: Tensor) => matmul(reshape(exp(y), [64, 64]), reshape(y, [64, 64])),
      (compiled) => {
        compiled.prepare(x);
        const before = liveBytes();
        allocator.setLimit(before + 20_000);
        try {
          assert.throws(() => compiled(x), { code: 'out-of-memory' });
        } finally {
          allocator.setLimit(undefined);
        }
        assert.equal(liveBytes(), before);
        assert.equal(compiled(x).size, 4096);
      },
    );
  });
});

test('outside every scope a plan keeps no memory alive', () => {
  const before = liveBytes();
  const w = tensor([1, 2], { requiresGrad: true });
  const x = tensor([3, 4]);
  const compiled = compile((y: Tensor) => sum(exp(mul(w, y))));
  compiled.profile(x);
  compiled(x).dispose();
  compiled.dispose();
  w.dispose();
  x.dispose();
  assert.equal(liveBytes(), before);
});

test('an error in the step leaves no traced gradient behind', () => {
  scope(() => {
    const w = tensor([1, 2], { requiresGrad: true });
    withCompiled(
      () => {
        backward(sum(mul(w, w)));
        throw new Error('after backward');
      },
      (compiled) => {
        assert.throws(() => compiled(), /after backward/);
        assert.equal(w.grad, undefined);
        backward(sum(w));
        assert.deepEqual(values(w.grad), [1, 1]);
      },
    );
  });
});

test('views made outside, asynchronous steps and steps inside steps are refused', () => {
  scope(() => {
    const view = transpose(tensor([[1, 2, 3], [4, 5, 6]])); // biome-ignore format: one line
    const refuses = (step: () => unknown, text: RegExp): void =>
      withCompiled(step, (compiled) =>
        assert.throws(
          () => compiled(),
          (error) => error instanceof CompileError && text.test(error.message),
        ),
      );
    refuses(() => mul(view, 2), /a view of a tensor made outside it \(got float32\[3, ?2\]/);
    refuses(async () => mul(tensor([1]), 2), /asynchronous/);
    const inner = compile(() => tensor([1]));
    refuses(() => inner(), /inside another one/);
    inner.dispose();
  });
});

test('a captured tensor that was disposed is an error, and memory is as before', () => {
  scope(() => {
    const w = tensor([1]);
    const x = tensor([2]);
    withCompiled(
      (y: Tensor) => mul(w, y),
      (compiled) => {
        compiled(x).dispose();
        w.dispose();
        const before = liveBytes();
        assert.throws(() => compiled(x), DisposedError);
        assert.equal(liveBytes(), before);
      },
    );
  });
});

test('each backend has its own plan; after dispose a step is planned afresh', () => {
  const present = currentBackend();
  const reference = createReferenceBackend();
  withCompiled(
    (x: Tensor) => mul(x, tensor([3])),
    (compiled) => {
      assert.equal(item(compiled(tensor([2]))), 6);
      const first = compiled.plans[0];
      setBackend(reference);
      try {
        scope(() => assert.equal(item(compiled(tensor([5]))), 15));
      } finally {
        setBackend(present);
      }
      assert.equal(item(compiled(tensor([7]))), 21);
      assert.notEqual(compiled.plans[0], first);
      compiled.dispose();
      assert.equal(compiled.plans.length, 0);
      assert.equal(item(compiled(tensor([1]))), 3);
    },
  );
  assert.equal(reference.allocator.stats().live, 0);
  reference.dispose();
});

test('values between fused ops are rounded and wrapped as their dtype is', () => {
  scope(() => {
    const x = tensor([1.001, -2.003, 300.3, -129.7, 65_520, 1e-7]);
    const steps: ((x: Tensor) => Tensor)[] = [
      (y) => cast(cast(y, 'bfloat16'), 'float32'),
      (y) => cast(cast(y, 'float16'), 'float32'),
      (y) => cast(cast(y, 'int8'), 'float32'),
      (y) => cast(mul(add(cast(y, 'bfloat16'), 0.1), 1.7), 'float32'),
      (y) => softmax(mul(cast(y, 'float16'), 0.01), -1),
      (y) => mul(y, cast(full([6], 0.1, { dtype: 'bfloat16' }), 'float32')),
    ];
    for (const step of steps) {
      const want = values(step(x));
      withCompiled(step, (compiled) => {
        assert.deepEqual(values(compiled(x)), want);
        assert.equal(compiled.plans[0]?.launches, 1, 'it is one kernel all the same');
      });
    }
  });
});
