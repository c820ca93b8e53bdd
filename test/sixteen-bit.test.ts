/** What backward reads widened is kept in 16 bits: products, attention and losses of bfloat16 and float16. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  AutogradError,
  type DType,
  type Tensor,
  add,
  addInPlace,
  backward,
  cast,
  checkpoint,
  compile,
  createNullBackend,
  currentBackend,
  exp,
  gelu,
  grad,
  linear,
  liveBytes,
  matmul,
  mul,
  narrow,
  noGrad,
  savedTensors,
  scaledDotProductAttention,
  scope,
  setBackend,
  sin,
  sum,
  tensor,
  toHost,
  transpose,
} from '../src/index.ts';
import { checkLiveBytes } from './support/backend.ts';
import { type Execution, executions } from './support/executions.ts';
import { listsOf, matrix, valuesOf } from './conformance/checkpoint/measure.ts';

checkLiveBytes();

const bytes = 32 * 32 * 2;

function narrowMatrix(seed: number, dtype: DType = 'bfloat16', requiresGrad = true): Tensor {
  const x = scope(() => cast(matrix(32, 32, seed, false), dtype));
  x.requiresGrad = requiresGrad;
  return x;
}

/** Float32 values that are kept as they are: what a cast gives, through an op that makes them anew. */
const wide = (x: Tensor): Tensor => mul(cast(x, 'float32'), 1);

const activations = (outputs: Tensor): number => savedTensors(outputs).byCategory.activation;

test('a product of 16-bit matrices keeps them, and no wide copy', () => {
  scope(() => {
    for (const dtype of ['bfloat16', 'float16'] as const) {
      const w = narrowMatrix(2, dtype);
      const run = (product: (x: Tensor) => Tensor): number => {
        const x = gelu(narrowMatrix(1, dtype));
        const held = liveBytes();
        const y = scope(() => product(x));
        const own = liveBytes() - held - bytes;
        y.dispose();
        return own;
      };
      assert.equal(
        run((x) => linear(x, w)),
        0,
        'linear',
      );
      assert.equal(
        run((x) => matmul(x, w)),
        0,
        'matmul',
      );
      assert.equal(
        run((x) => matmul(transpose(x), w)),
        0,
        'matmul of a view',
      );
      assert.equal(
        run((x) => cast(matmul(wide(x), wide(w)), dtype)),
        4 * bytes,
        'what it is compared with',
      );
    }
  });
});

test('frozen weights are kept in 16 bits as well', () => {
  scope(() => {
    const w = narrowMatrix(2, 'bfloat16', false);
    const x = narrowMatrix(1);
    const held = liveBytes();
    const y = scope(() => linear(x, w));
    assert.equal(liveBytes() - held, bytes, 'the product');
    y.dispose();
  });
});

test('several layers that read one activation keep it once', () => {
  scope(() => {
    const x = scope(() => gelu(narrowMatrix(1)));
    const parts = [2, 3, 4].map((seed) => linear(x, narrowMatrix(seed)));
    assert.equal(activations(parts.reduce((a, b) => add(a, b))), 2 * bytes + 3 * bytes);
  });
});

test('attention keeps its inputs in 16 bits', () => {
  scope(() => {
    const heads = (seed: number): Tensor => narrowMatrix(seed).reshape([1, 2, 16, 32]);
    const y = scaledDotProductAttention(heads(1), heads(2), heads(3));
    const entries = savedTensors(y).entries.filter((entry) => entry.op.startsWith('attention'));
    const wideOnes = entries.filter((entry) => entry.dtype === 'float32' && entry.bytes > 0);
    assert.deepEqual(
      wideOnes.map(({ name }) => name),
      ['out', 'out1'],
    );
  });
});

/** A layer of products, activations and views; `product` multiplies two 16-bit matrices. */
function layer(product: (a: Tensor, b: Tensor) => Tensor, x: Tensor, w: Tensor): Tensor {
  const y = product(gelu(product(x, w)), transpose(w));
  const part = narrow(y, 1, 0, 16);
  return add(y, product(part, narrow(w, 0, 16, 16)));
}

const kept = (a: Tensor, b: Tensor): Tensor => matmul(a, b);
const wideKept = (a: Tensor, b: Tensor): Tensor => cast(matmul(wide(a), wide(b)), a.dtype);

function gradients(execution: Execution, run: (x: Tensor, w: Tensor) => Tensor): number[][] {
  return scope(() => {
    const step = (x: Tensor, w: Tensor): unknown => {
      const y = run(x, w);
      const first = grad(sum(cast(y, 'float32')), [x, w]);
      return [y, ...first];
    };
    return valuesOf(execution, step, narrowMatrix(1), narrowMatrix(2));
  });
}

for (const execution of executions) {
  test(`${execution.name}: gradients have the same bits as with wide copies, in regions too`, () => {
    const want = gradients(execution, (x, w) => layer(wideKept, x, w));
    assert.deepEqual(
      gradients(execution, (x, w) => layer(kept, x, w)),
      want,
    );
    const twice = (x: Tensor, w: Tensor): Tensor => layer(wideKept, layer(wideKept, x, w), w);
    for (const options of [{}, { discardOutput: true }]) {
      const region = (x: Tensor, w: Tensor): Tensor => {
        const once = checkpoint((a: Tensor) => layer(kept, a, w), [x], options);
        return checkpoint((a: Tensor) => layer(kept, a, w), [once], options);
      };
      assert.deepEqual(gradients(execution, region), gradients(execution, twice));
    }
  });
}

test('a compiled step keeps them too, with the same bits', () => {
  const step = (product: (a: Tensor, b: Tensor) => Tensor) => (x: Tensor, w: Tensor) => {
    let y = x;
    for (let i = 0; i < 6; i++) y = gelu(product(y, w));
    return grad(sum(cast(y, 'float32')), w);
  };
  const planned = (product: (a: Tensor, b: Tensor) => Tensor): { peak: number; values: unknown } =>
    scope(() => {
      const compiled = compile(step(product));
      const values = listsOf(compiled(narrowMatrix(1), narrowMatrix(2)));
      const peak = compiled.plans[0]?.peakBytes ?? 0;
      compiled.dispose();
      return { peak, values };
    });
  const [all, none] = [planned(kept), planned(wideKept)];
  assert.ok(none.peak - all.peak >= 6 * bytes, `${all.peak} of ${none.peak}`);
  const eager = scope(() => listsOf(step(kept)(narrowMatrix(1), narrowMatrix(2))));
  assert.deepEqual([all.values, none.values], [eager, eager]);
});

test('a fused kernel rounds 16-bit values between ops as memory would', () => {
  const hard = [
    0,
    -0,
    1 + 2 ** -9,
    1 + 2 ** -8,
    1 + 3 * 2 ** -9,
    65519.99,
    65520,
    3.4e38,
    1e-7,
    6e-8,
    2 ** -140,
  ];
  const values = [
    ...hard,
    ...hard.map((x) => -x * 1.0009765),
    Number.POSITIVE_INFINITY,
    Number.NaN,
  ];
  for (const dtype of ['bfloat16', 'float16'] as const) {
    scope(() => {
      const x = tensor(values);
      const step = (v: Tensor): Tensor => mul(cast(cast(mul(v, 1.0003), dtype), 'float32'), 3);
      const compiled = compile(step);
      assert.deepEqual([...toHost(compiled(x)).data], [...toHost(step(x)).data], dtype);
      assert.equal(compiled.plans[0]?.plan.graph.nodes.filter(({ op }) => op).length, 4);
      compiled.dispose();
    });
  }
});

test('second derivatives go through what was kept narrow', () => {
  scope(() => {
    const second = (product: (a: Tensor, b: Tensor) => Tensor): unknown => {
      const [x, w] = [narrowMatrix(1), narrowMatrix(2)];
      const y = sum(cast(exp(product(x, w)), 'float32'));
      const [first] = grad(y, x, { createGraph: true });
      return grad(sum(sin(cast(first as Tensor, 'float32'))), w)[0];
    };
    const execution = executions[0] as Execution;
    assert.deepEqual(
      valuesOf(execution, () => second(kept)),
      valuesOf(execution, () => second(wideKept)),
    );
  });
});

test('a 16-bit weight that is changed in place before backward is an error that names the op', () => {
  scope(() => {
    const [x, w] = [narrowMatrix(1), narrowMatrix(2)];
    const y = sum(cast(linear(x, w), 'float32'));
    noGrad(() => addInPlace(w, 1));
    assert.throws(
      () => backward(y),
      (error) =>
        error instanceof AutogradError && /'weight' of linear was changed/.test(error.message),
    );
  });
});

test('without a graph nothing is held on to', () => {
  const before = currentBackend();
  const backend = createNullBackend();
  setBackend(backend);
  try {
    scope(() => {
      const x = narrowMatrix(1);
      const y = noGrad(() => cast(x, 'float32'));
      x.dispose();
      assert.equal(liveBytes(), 2 * bytes);
      y.dispose();
    });
  } finally {
    setBackend(before);
    backend.dispose();
  }
});
