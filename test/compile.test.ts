/** Compiled steps: same results as eager, exact planned memory, in-place state, errors that name the line. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  add,
  addInPlace,
  backward,
  CompileError,
  ConfigError,
  checkpoint,
  compile,
  currentBackend,
  dropout,
  exp,
  Generator,
  grad,
  item,
  matmul,
  mul,
  noGrad,
  reshape,
  scope,
  sin,
  softmax,
  sum,
  type Tensor,
  tanh,
  tensor,
  toArray,
  transpose,
} from '../src/index.ts';
import { checkLiveBytes } from './support/backend.ts';

checkLiveBytes();

const verified = { verify: true };

function matrix(rows: number, columns: number, seed: number, requiresGrad = false): Tensor {
  const values = Float32Array.from({ length: rows * columns }, (_, i) =>
    Math.sin(seed * 17 + i * 0.7),
  );
  return tensor(values, { shape: [rows, columns], requiresGrad });
}

/** A two-layer step with its loss and the gradients of both weights. */
function makeStep(wrap: boolean): {
  step: (x: Tensor) => { loss: Tensor; grads: (Tensor | undefined)[] };
  weights: Tensor[];
} {
  const a = matrix(8, 16, 1, true);
  const b = matrix(16, 8, 2, true);
  const layer = (x: Tensor): Tensor => softmax(matmul(tanh(matmul(x, a)), b), -1);
  const step = (x: Tensor): { loss: Tensor; grads: (Tensor | undefined)[] } => {
    const once = wrap ? checkpoint(layer, [x]) : layer(x);
    const twice = wrap ? checkpoint(layer, [add(once, x)]) : layer(add(once, x));
    const loss = sum(mul(twice, sin(x)));
    return { loss, grads: grad(loss, [a, b]) };
  };
  return { step, weights: [a, b] };
}

for (const wrap of [false, true]) {
  test(`a step equals its eager run bit for bit, ${wrap ? 'with' : 'without'} regions`, () => {
    scope(() => {
      const { step } = makeStep(wrap);
      const x = matrix(4, 8, 3);
      const eager = step(x);
      const compiled = compile(step, verified);
      const { allocator } = currentBackend();
      for (let run = 0; run < 3; run++) {
        const got = compiled(x);
        assert.equal(item(got.loss), item(eager.loss));
        got.grads.forEach((gradient, i) => {
          const want = eager.grads[i];
          assert.ok(gradient && want);
          assert.deepEqual(toArray(gradient), toArray(want));
        });
        const before = allocator.stats().live;
        allocator.resetPeak();
        scope(() => {
          compiled(x);
        });
        const measured = allocator.stats().peak - before;
        assert.equal(measured, compiled.plans[0]?.peakBytes, 'measured peak equals planned peak');
      }
      compiled.dispose();
    });
  });
}

test('regions recompute: fewer bytes, more launches, equal bits', () => {
  scope(() => {
    const x = matrix(64, 8, 3);
    const plans = [false, true].map((wrap) => {
      const compiled = compile(makeStep(wrap).step, verified);
      const plan = compiled.prepare(x);
      const loss = item(compiled(x).loss);
      compiled.dispose();
      return { ...plan, loss };
    });
    const [plain, wrapped] = plans;
    assert.ok(plain && wrapped);
    assert.equal(plain.loss, wrapped.loss);
    assert.ok(wrapped.launches > plain.launches);
    assert.ok(wrapped.peakBytes < plain.peakBytes);
  });
});

test('fusion changes no bit', () => {
  scope(() => {
    const { step } = makeStep(true);
    const x = matrix(5, 8, 4);
    const fused = compile(step, verified);
    const plain = compile(step, { ...verified, disable: ['fuse'] });
    assert.ok((fused.prepare(x).launches ?? 0) < (plain.prepare(x).launches ?? 0));
    assert.equal(item(fused(x).loss), item(plain(x).loss));
    fused.dispose();
    plain.dispose();
  });
});

test('captured tensors are updated in place, and reads follow the updates', () => {
  scope(() => {
    const w = tensor([1, 2, 3]);
    const step = compile(
      (x: Tensor) =>
        noGrad(() => {
          const before = mul(w, 10);
          addInPlace(w, x);
          return { before, after: mul(w, 10) };
        }),
      verified,
    );
    const x = tensor([1, 1, 1]);
    for (let run = 0; run < 3; run++) {
      const { before, after } = step(x);
      assert.deepEqual(
        [...toArray(before)],
        [1, 2, 3].map((v) => (v + run) * 10),
      );
      assert.deepEqual(
        [...toArray(after)],
        [1, 2, 3].map((v) => (v + run + 1) * 10),
      );
    }
    assert.deepEqual([...toArray(w)], [4, 5, 6]);
    step.dispose();
  });
});

test('in-place changes of traced values, and views of them', () => {
  scope(() => {
    const step = (x: Tensor): Tensor[] =>
      noGrad(() => {
        const y = mul(x, 2);
        const view = reshape(y, [2, 2]);
        const kept = exp(y);
        addInPlace(y, x);
        return [transpose(view, 0, 1), kept, y];
      });
    const x = tensor([1, 2, 3, 4]);
    const compiled = compile(step, verified);
    const got = compiled(x).map((t) => [...toArray(t)]);
    const want = step(x).map((t) => [...toArray(t)]);
    assert.deepEqual(got, want);
    compiled.dispose();
  });
});

test('random draws advance from run to run exactly as in eager mode', () => {
  scope(() => {
    const generator = new Generator(5);
    const step = (x: Tensor): Tensor => dropout(dropout(x, 0.3, { generator }), 0.3, { generator });
    const x = matrix(6, 7, 1);
    const eager = [step(x), step(x)].map((t) => [...toArray(t)]);
    generator.manualSeed(5);
    const compiled = compile(step, verified);
    const got = [compiled(x), compiled(x)].map((t) => [...toArray(t)]);
    assert.deepEqual(got, eager);
    assert.equal(generator.offset, 4);
    compiled.dispose();
  });
});

test('gradients that exist before the step are added to in place; new ones are left as without compilation', () => {
  scope(() => {
    const w = tensor([1, 2], { requiresGrad: true });
    const step = compile((x: Tensor) => {
      const loss = sum(mul(w, x));
      backward(loss);
      return loss;
    }, verified);
    step(tensor([3, 4]));
    assert.deepEqual([...toArray(w.grad as Tensor)], [3, 4]);
    step.dispose();
    w.grad = undefined;
    backward(sum(w));
    const again = compile((x: Tensor) => {
      const loss = sum(mul(w, x));
      backward(loss);
      return loss;
    }, verified);
    again(tensor([3, 4]));
    again(tensor([3, 4]));
    assert.ok(w.grad);
    assert.deepEqual([...toArray(w.grad)], [7, 9]);
    again.dispose();
  });
});

test('each combination of shapes and plain arguments has its own plan', () => {
  scope(() => {
    const step = compile((x: Tensor, factor: number) => mul(x, factor));
    assert.deepEqual([...toArray(step(tensor([1, 2]), 3))], [3, 6]);
    assert.deepEqual([...toArray(step(tensor([1, 2]), 4))], [4, 8]);
    assert.deepEqual([...toArray(step(tensor([5]), 4))], [20]);
    assert.deepEqual([...toArray(step(tensor([7, 8]), 3))], [21, 24]);
    assert.equal(step.plans.length, 3);
    step.dispose();
  });
});

test('a host read inside a step is an error that names the line', () => {
  scope(() => {
    const step = compile((x: Tensor) => (item(sum(x)) > 0 ? x : mul(x, 2)));
    assert.throws(
      () => step(tensor([1])),
      (error) => error instanceof CompileError && /compile\.test\.ts:\d+/.test(error.message),
    );
  });
});

test('unknown passes are refused with the nearest names', () => {
  scope(() => {
    const step = compile((x: Tensor) => mul(x, 2), { disable: ['fuze'] });
    assert.throws(
      () => step(tensor([1])),
      (error) => error instanceof ConfigError && /fuse/.test(error.message),
    );
  });
});

test('an error while tracing leaves eager execution as it was', () => {
  scope(() => {
    const step = compile(() => {
      throw new Error('from the step');
    });
    assert.throws(() => step(), /from the step/);
    assert.deepEqual([...toArray(mul(tensor([2]), 2))], [4]);
  });
});
