/** Compression of saved tensors, eager and compiled: docs/internals/offload.md O3. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  ActivationCompression,
  ActivationOffload,
  type CompressionFormat,
  type CompressionOptions,
  Generator,
  type Tensor,
  addInPlace,
  attention,
  backward,
  cast,
  checkpoint,
  compile,
  compressActivations,
  currentBackend,
  dequantize,
  dropout,
  exp,
  grad,
  liveBytes,
  matmul,
  mul,
  noGrad,
  quantize,
  reshape,
  scope,
  sin,
  sum,
  tensor,
  toArray,
  transpose,
} from '../src/index.ts';
import { ArgumentError, AutogradError, CompileError } from '../src/core/errors.ts';
import { checkLiveBytes } from './support/backend.ts';
import { executions } from './support/executions.ts';

checkLiveBytes();

const formats: readonly CompressionFormat[] = ['bf16', 'fp8', 'int8'];
const size = 64;

function matrix(phase: number): Tensor {
  const values = Float32Array.from(
    { length: size * size },
    (_, i) => Math.sin(i * 1.7 + phase) / 8,
  );
  return tensor(values, { shape: [size, size], requiresGrad: true });
}

type Wrap = (body: () => Tensor) => Tensor;
const plain: Wrap = (body) => body();

/** Some layers; each op's handles go, so that only what backward needs is live. */
function layers(x: Tensor, w: Tensor, generator: Generator): Tensor {
  let value = x;
  for (let i = 0; i < 8; i++) {
    const next = scope(() => {
      const mixed = matmul(value, transpose(w, 0, 1));
      return sin(mul(dropout(mixed, 0.1, { generator }), exp(value)));
    });
    if (value !== x) value.dispose();
    value = next;
  }
  return value;
}

/** A step from x and w (a parameter of the step) to the loss and both gradients. */
function makeStep(w: Tensor, wrap: Wrap): (x: Tensor) => Tensor[] {
  const generator = new Generator(3);
  return (x) => {
    generator.setState({ seed: 3, offset: 0 });
    const loss = scope(() => {
      const start = scope(() => mul(x, 1));
      return sum(wrap(() => layers(start, w, generator)));
    });
    return [loss, ...(grad(loss, [x, w]) as Tensor[])];
  };
}

function eagerResults(wrap: Wrap): Float64Array[] {
  return scope(() => makeStep(matrix(1), wrap)(matrix(0)).map((result) => toArray(result)));
}

function distance(got: Float64Array | undefined, want: Float64Array | undefined): number {
  assert.ok(got && want);
  const norm = (values: Float64Array): number => Math.hypot(...values);
  return norm(got.map((value, i) => value - (want[i] ?? 0))) / norm(want);
}

/** Bytes held between forward and backward. */
function heldBytes(wrap: Wrap): number {
  return scope(() => {
    const [x, w] = [matrix(0), matrix(1)];
    const before = liveBytes();
    const loss = scope(() =>
      sum(
        wrap(() =>
          layers(
            scope(() => mul(x, 1)),
            w,
            new Generator(3),
          ),
        ),
      ),
    );
    const held = liveBytes() - before;
    grad(loss, [x]);
    return held;
  });
}

/** Bytes a value takes in each format, beside 4. */
const shares: Readonly<Record<CompressionFormat, number>> = { bf16: 2, fp8: 1.0625, int8: 1.0625 };
/** How far gradients may be off after these eight layers. */
const tolerances: Readonly<Record<CompressionFormat, number>> = {
  bf16: 0.05,
  fp8: 0.25,
  int8: 0.08,
};

for (const format of formats) {
  test(`O3 ${format}: the loss is exact, gradients are near, memory is that of the format`, () => {
    const options: CompressionOptions = { format, minBytes: 0 };
    const want = eagerResults(plain);
    const compression = new ActivationCompression(options);
    const got = eagerResults((body) => compression.run(body));
    assert.deepEqual(got[0], want[0]);
    for (const k of [1, 2]) {
      const error = distance(got[k], want[k]);
      assert.ok(error > 0 && error < tolerances[format], `gradient ${k} is off by ${error}`);
    }
    const { values, bytesBefore, bytesAfter } = compression.stats;
    assert.equal(values, 0, 'nothing is left in the store');
    assert.equal(bytesAfter / bytesBefore, shares[format] / 4);
    const [small, whole] = [
      heldBytes((body) => compressActivations(options, body)),
      heldBytes(plain),
    ];
    assert.ok(small <= (shares[format] / 4) * whole + 4096, `${small} of ${whole}`);
  });

  test(`O3 ${format}: the report states the errors introduced`, () => {
    const compression = new ActivationCompression({ format, minBytes: 0, measure: true });
    const x = Float32Array.from({ length: 640 }, (_, i) => Math.sin(i * 0.7) * Math.exp(i % 9));
    scope(() => {
      const leaf = tensor(x, { requiresGrad: true });
      compression.run(() => exp(mul(sin(mul(leaf, 1)), 2)));
      const { error } = compression.stats;
      // sin saves its input, exp its output.
      const saved = [x, x.map((v) => Math.exp(2 * Math.sin(v)))].map((v) => Float32Array.from(v));
      const restored = saved.map((values) => widened(values, format));
      const worst = saved.map((values, k) => {
        const errors = values.map((value, i) => Math.abs(value - (restored[k]?.[i] ?? 0)));
        return Math.max(...errors) / Math.max(...values.map(Math.abs));
      });
      const squares = (f: (k: number, i: number) => number): number =>
        saved.reduce((total, values, k) => values.reduce((t, _, i) => t + f(k, i) ** 2, total), 0);
      const rms = Math.sqrt(
        squares((k, i) => (saved[k]?.[i] ?? 0) - (restored[k]?.[i] ?? 0)) /
          squares((k, i) => saved[k]?.[i] ?? 0),
      );
      assert.equal(error?.tensors, 2);
      assert.ok(Math.abs(error.maxRelative / Math.max(...worst) - 1) < 1e-3);
      assert.ok(Math.abs(error.rmsRelative / rms - 1) < 1e-3);
      const bound = { bf16: 2 ** -8, fp8: 2 ** -4, int8: 1 / 250 }[format];
      assert.ok(error.maxRelative > 0 && error.maxRelative <= bound);
    });
  });
}

function widened(values: Float32Array, format: CompressionFormat): Float64Array {
  return scope(() => {
    const x = tensor(values);
    if (format === 'bf16') return toArray(cast(cast(x, 'bfloat16'), 'float32'));
    const { codes, scales } = quantize(reshape(x, [values.length / 64, 64]), format);
    return toArray(dequantize(codes, scales, format));
  });
}

for (const format of formats) {
  test(`O3 ${format}, compiled: eager's bits, a smaller plan, and the peak that was planned`, () => {
    const options: CompressionOptions = { format, minBytes: 0 };
    const wrap: Wrap = (body) => compressActivations(options, body);
    const want = eagerResults(wrap);
    const { results, planned, measured } = compiledRun(wrap);
    assert.deepEqual(results, want);
    assert.equal(measured, planned);
    const whole = compiledRun(plain).planned;
    assert.ok(planned < 0.75 * whole, `${planned} of ${whole} bytes`);
  });
}

function compiledRun(wrap: Wrap): { results: Float64Array[]; planned: number; measured: number } {
  return scope(() => {
    const [x, w] = [matrix(0), matrix(1)];
    const step = compile(makeStep(w, wrap), { verify: true });
    const results = scope(() => step(x).map((result) => toArray(result)));
    const { allocator } = currentBackend();
    const before = allocator.stats().live;
    allocator.resetPeak();
    scope(() => {
      step(x);
    });
    const measured = allocator.stats().peak - before;
    const planned = step.plans[0]?.peakBytes ?? 0;
    step.dispose();
    return { results, planned, measured };
  });
}

for (const { name, prepare } of executions) {
  test(`O3 ${name}: inside a region, what is stored belongs to the region`, () => {
    const run = (wrap: Wrap): Float64Array[] =>
      scope(() => {
        const w = matrix(1);
        const inner = (x: Tensor): Tensor => wrap(() => layers(x, w, new Generator(3)));
        const { run: step, dispose } = prepare((x: Tensor) => {
          const loss = scope(() => sum(checkpoint(inner, [scope(() => mul(x, 1))])));
          return [loss, ...(grad(loss, [x, w]) as Tensor[])];
        });
        const results = step(matrix(0)).map((result) => toArray(result));
        dispose();
        return results;
      });
    const options: CompressionOptions = { format: 'int8', minBytes: 0 };
    const outside = scope(() => {
      const [x, w] = [matrix(0), matrix(1)];
      const wrapped = compressActivations(options, () => layers(mul(x, 1), w, new Generator(3)));
      const loss = sum(wrapped);
      return [loss, ...(grad(loss, [x, w]) as Tensor[])].map((result) => toArray(result));
    });
    assert.deepEqual(
      run((body) => compressActivations(options, body)),
      outside,
    );
  });
}

test('O3 around regions their inputs are compressed, and the recompute starts from them', () => {
  scope(() => {
    const [x, w] = [matrix(0), matrix(1)];
    const compression = new ActivationCompression({ format: 'int8', minBytes: 0 });
    const region = (value: Tensor): Tensor => scope(() => sin(matmul(value, w)));
    const loss = scope(() =>
      sum(
        compression.run(() => {
          const first = checkpoint(region, [mul(x, 1)]);
          return checkpoint(region, [first]);
        }),
      ),
    );
    // The two inputs, w being a leaf.
    assert.equal(compression.stats.bytesBefore, 2 * 4 * size * size);
    backward(loss);
    assert.ok(x.grad && w.grad);
    assert.equal(compression.stats.values, 0);
  });
});

test('O3 a region in a compiled step cannot have its inputs compressed, and says so', () => {
  scope(() => {
    const step = compile((x: Tensor) => {
      const y = compressActivations('int8', () =>
        checkpoint((v: Tensor) => sin(exp(v)), [mul(x, 2)]),
      );
      return grad(sum(y), [x])[0];
    });
    assert.throws(
      () => step(matrix(0)),
      (error) => error instanceof CompileError && /compressActivations int8/.test(error.message),
    );
    step.dispose();
  });
});

test('O3 with offload around, the small form is what moves', () => {
  const offload = new ActivationOffload({ minBytes: 0, depth: 1 });
  const compression = new ActivationCompression({ format: 'int8', minBytes: 0 });
  const got = eagerResults((body) => offload.run(() => compression.run(body)));
  assert.deepEqual(
    got,
    eagerResults((body) => compressActivations({ format: 'int8', minBytes: 0 }, body)),
  );
  const { bytesAfter } = compression.stats;
  // And the states that dropout draws its masks from again.
  assert.equal(offload.stats.bytesOut, bytesAfter + 8 * 64);
  offload.assertEmpty();
});

test('O3 a tensor that several ops save is stored once, reshaped or not', () => {
  scope(() => {
    const x = matrix(0);
    const compression = new ActivationCompression({ format: 'bf16', minBytes: 0 });
    const loss = compression.run(() => {
      const y = mul(x, 2);
      return sum(mul(sin(y), reshape(exp(reshape(y, [size * size])), [size, size])));
    });
    // y, exp(y) and sin(y).
    assert.equal(compression.stats.bytesBefore, 3 * 4 * size * size);
    grad(loss, [x]);
    assert.equal(compression.stats.values, 0);
  });
});

test('O3 small tensors, integers, parameters and what an op declares exact stay', () => {
  scope(() => {
    const heads = (phase: number): Tensor => mul(reshape(matrix(phase), [1, size, 4, size / 4]), 1);
    const compression = new ActivationCompression({ format: 'int8', minBytes: 1024 });
    const [q, k, v] = [heads(0), heads(1), heads(2)];
    const out = compression.run(() => attention(q, k, v, { causal: true }));
    // Of query, key, value, result and the log of the denominators, the last is exact.
    assert.equal(compression.stats.stayed, 1);
    assert.equal(compression.stats.bytesBefore, 4 * 4 * size * size);
    out.dispose();
    const before = compression.stats.bytesBefore;
    const x = matrix(0);
    compression.run(() => mul(transpose(x, 0, 1), reshape(matrix(1), [size, size])));
    compression.run(() => sin(sum(x, 0)));
    assert.equal(compression.stats.bytesBefore, before);
  });
});

test('O3 retainGraph, double backward and in-place changes', () => {
  scope(() => {
    const x = matrix(0);
    const options: CompressionOptions = { format: 'bf16', minBytes: 0 };
    const loss = compressActivations(options, () => sum(sin(mul(exp(x), x))));
    const first = toArray(grad(loss, [x], { retainGraph: true })[0] as Tensor);
    const [again] = grad(loss, [x], { createGraph: true });
    assert.deepEqual(toArray(again as Tensor), first);
    const [second] = grad(sum(again as Tensor), [x]);
    const exact = grad(
      sum(grad(sum(sin(mul(exp(x), x))), [x], { createGraph: true })[0] as Tensor),
      [x],
    );
    assert.ok(distance(toArray(second as Tensor), toArray(exact[0] as Tensor)) < 0.02);
    const changed = compressActivations(options, () => {
      const y = exp(x);
      const z = sum(sin(y));
      noGrad(() => addInPlace(y, 1));
      return z;
    });
    assert.throws(() => grad(changed, [x]), AutogradError);
  });
});

test('bad options are errors that name them', () => {
  const run = (options: unknown) => () =>
    compressActivations(options as CompressionOptions, () => 0);
  assert.throws(
    run('int4'),
    (e) => e instanceof ArgumentError && /int4.*bf16, fp8, int8/.test(e.message),
  );
  assert.throws(
    run({ format: 'fp8', min: 3 }),
    (e) => e instanceof ArgumentError && /unknown option 'min'/.test(e.message),
  );
  assert.throws(
    run({ format: 'fp8', minBytes: 'x' }),
    (e) => e instanceof ArgumentError && /minBytes/.test(e.message),
  );
  scope(() => {
    const measured = new ActivationCompression({ format: 'fp8', minBytes: 0, measure: true });
    const step = compile((x: Tensor) => grad(sum(measured.run(() => sin(mul(x, 2)))), [x])[0]);
    assert.throws(() => step(matrix(0)), CompileError);
    step.dispose();
  });
});
