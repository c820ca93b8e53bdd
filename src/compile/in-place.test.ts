/** In-place changes in compiled steps: of arguments, of captured state, through and beside views. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backward, grad } from '../autograd/backward.ts';
import { CompileError, ShapeError } from '../core/errors.ts';
import '../ops/methods.ts';
import { add, mul } from '../ops/arithmetic.ts';
import { expand, reshape, sum } from '../ops/broadcast.ts';
import { addInPlace } from '../ops/in-place.ts';
import { matmul } from '../ops/matmul/matmul.ts';
import { narrow } from '../ops/slice.ts';
import { exp } from '../ops/unary.ts';
import { transpose } from '../ops/views.ts';
import { liveBytes } from '../tensor/backend.ts';
import { noGrad, withPhase } from '../tensor/context.ts';
import { tensor } from '../tensor/factory.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { checkLiveBytes } from '../../test/support/backend.ts';
import { values, withCompiled } from '../../test/support/compiled.ts';

checkLiveBytes();

test('an argument that the step changes in place is changed', () => {
  const step = (x: Tensor, y: Tensor): Tensor =>
    noGrad(() => {
      const before = mul(x, 10);
      addInPlace(x, y);
      return before;
    });
  withCompiled(step, (compiled) => {
    const x = tensor([1, 2]);
    const version = x.version;
    assert.deepEqual(values(compiled(x, tensor([5, 6]))), [10, 20]);
    assert.deepEqual(values(x), [6, 8]);
    assert.deepEqual(values(compiled(x, tensor([1, 1]))), [60, 80]);
    assert.deepEqual(values(x), [7, 9]);
    assert.equal(x.version, version + 2);
    const turned = transpose(tensor([[1, 2], [3, 4]])); // biome-ignore format: one line
    compiled(turned, tensor([[1, 1], [1, 1]])); // biome-ignore format: one line
    assert.deepEqual(values(turned), [2, 4, 3, 5]);
  });
});

test('memory that changes must not be passed under two names', () => {
  scope(() => {
    const w = tensor([1, 2]);
    const refused = (error: unknown): boolean =>
      error instanceof CompileError && /under two names/.test(error.message);
    withCompiled(
      (x: Tensor) => noGrad(() => addInPlace(w, x)),
      (compiled) => {
        const before = liveBytes();
        assert.throws(() => compiled(w), refused);
        assert.throws(() => compiled(w.detach()), refused);
        assert.deepEqual(values(w), [1, 2]);
        assert.ok(liveBytes() <= before);
      },
    );
    withCompiled(
      (x: Tensor, y: Tensor) => noGrad(() => addInPlace(x, y)),
      (compiled) => assert.throws(() => compiled(w, w.detach()), refused),
    );
  });
});

test('views of captured tensors follow in-place changes, and captured tensors those of their views', () => {
  scope(() => {
    const make =
      (w: Tensor) =>
      (x: Tensor): Tensor =>
        noGrad(() => {
          const view = transpose(w);
          const before = mul(view, 1);
          addInPlace(w, x);
          return add(before, mul(view, 100));
        });
    const start = [[1, 2], [3, 4]]; // biome-ignore format: one line
    const x = tensor([[1, 1], [2, 2]]); // biome-ignore format: one line
    const want = values(make(tensor(start))(x));
    const w = tensor(start);
    withCompiled(make(w), (compiled) => assert.deepEqual(values(compiled(x)), want));
    withCompiled(
      () => noGrad(() => addInPlace(narrow(reshape(w, [4]), 0, 1, 2), 1)),
      (compiled) => {
        const before = values(w);
        compiled();
        compiled();
        assert.deepEqual(
          values(w),
          before.map((v, i) => (i === 1 || i === 2 ? v + 2 : v)),
        );
      },
    );
    withCompiled(
      () => noGrad(() => addInPlace(expand(reshape(w, [1, 4]), [2, 4]), 1)),
      (compiled) => assert.throws(() => compiled(), ShapeError),
    );
  });
});

test('an in-place op that reads its target through a view reads the old values', () => {
  scope(() => {
    const start = [[1, 2], [3, 4]]; // biome-ignore format: one line
    const steps: ((w: Tensor) => void)[] = [
      (w) => addInPlace(w, transpose(w)),
      (w) => addInPlace(w, mul(transpose(w), 10)),
      (w) => addInPlace(w, exp(mul(transpose(w), 0))),
    ];
    const want = [
      [2, 5, 5, 8],
      [11, 32, 23, 44],
      [2, 3, 4, 5],
    ];
    steps.forEach((change, i) => {
      const eager = tensor(start);
      noGrad(() => change(eager));
      assert.deepEqual(values(eager), want[i]);
      const w = tensor(start);
      withCompiled(
        () => noGrad(() => change(w)),
        (compiled) => compiled(),
      );
      assert.deepEqual(values(w), want[i]);
    });
  });
});

test('an update that is scheduled early waits for those who read its target through views', () => {
  scope(() => {
    const make =
      (w: Tensor) =>
      (x: Tensor): Tensor => {
        const [g] = grad(sum(matmul(x, transpose(w))), [w]);
        const late = noGrad(() => matmul(x, transpose(exp(transpose(transpose(w))))));
        const later = noGrad(() => matmul(late, reshape(w, [2, 2])));
        withPhase('optimizer', () => noGrad(() => addInPlace(w, g as Tensor)));
        return later;
      };
    const start = { shape: [2, 2], requiresGrad: true };
    const eager = tensor(Float32Array.of(1, 2, 3, 4), start);
    const w = tensor(Float32Array.of(1, 2, 3, 4), start);
    const x = tensor([[1, 0], [2, 1]]); // biome-ignore format: one line
    const want = values(make(eager)(x));
    withCompiled(make(w), (compiled) => {
      assert.deepEqual(values(compiled(x)), want);
      assert.deepEqual(values(w), values(eager));
    });
  });
});

test('only what the step changes counts as changed', () => {
  scope(() => {
    const w = tensor([2], { requiresGrad: true });
    const total = tensor([0]);
    withCompiled(
      () => noGrad(() => addInPlace(total, w)),
      (compiled) => {
        compiled();
        const loss = sum(mul(w, w));
        compiled();
        backward(loss);
        assert.deepEqual(values(w.grad), [4]);
        const broken = sum(mul(total, w));
        compiled();
        assert.throws(() => backward(broken), /changed in place/);
      },
    );
  });
});

test('what an in-place op of a kernel writes is not given to another output of that kernel', () => {
  scope(() => {
    const x = tensor([[1, 2], [3, 4]]); // biome-ignore format: one line
    const step = (input: Tensor): Tensor[] =>
      noGrad(() => {
        const target = mul(input, 0.5);
        const product = matmul(input, input);
        const added = exp(product);
        return [addInPlace(target, added), add(matmul(added, input), product)];
      });
    const want = step(x).map(values);
    withCompiled(step, (compiled) => assert.deepEqual(compiled(x).map(values), want));
  });
});

test('a captured tensor that the step computes into carries gradients there, and no history afterwards', () => {
  scope(() => {
    const w = tensor([1, 2], { requiresGrad: true });
    const make = (buffer: Tensor, view: Tensor) => (): (Tensor | undefined)[] => {
      addInPlace(buffer, w);
      return grad(sum(add(mul(buffer, buffer), mul(view, 3))), [w]);
    };
    const captured = (): { buffer: Tensor; view: Tensor } => {
      const buffer = tensor([0, 0]);
      return { buffer, view: narrow(buffer, 0, 0, 2) };
    };
    const eager = captured();
    const want = make(eager.buffer, eager.view)().map(values);
    assert.deepEqual(want, [[5, 7]]);
    const { buffer, view } = captured();
    withCompiled(make(buffer, view), (compiled) => {
      assert.deepEqual(compiled().map(values), want);
      assert.deepEqual([buffer, view].map(values), [[1, 2], [1, 2]]); // biome-ignore format: one line
      for (const handle of [buffer, view]) assert.ok(handle.isLeaf && !handle.requiresGrad);
      // Each run starts without history.
      assert.deepEqual(compiled().map(values), [[7, 11]]);
      assert.equal(compiled.plans.length, 1);
    });
  });
});
