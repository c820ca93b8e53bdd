/** Offload of saved tensors, eager: docs/internals/offload.md O1 and O2. */

import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import {
  ActivationOffload,
  type OffloadOptions,
  type Tensor,
  addInPlace,
  backward,
  checkpoint,
  compile,
  currentBackend,
  dropout,
  exp,
  grad,
  liveBytes,
  Generator,
  matmul,
  mul,
  noGrad,
  offloadActivations,
  reshape,
  rmsNorm,
  scope,
  sin,
  softmax,
  sum,
  tensor,
  toArray,
  transpose,
} from '../src/index.ts';
import {
  ArgumentError,
  AutogradError,
  CompileError,
  FileError,
  InternalError,
  UnsupportedError,
} from '../src/core/errors.ts';
import { createCpuBackend } from '../src/runtime/registry.ts';
import { setBackend } from '../src/tensor/backend.ts';
import { checkLiveBytes, onReference } from './support/backend.ts';

checkLiveBytes();

const dir = mkdtempSync(join(tmpdir(), 'retune-offload-test-'));
after(() => rmSync(dir, { recursive: true, force: true }));

const size = 64;
const tensorBytes = 4 * size * size;

function values(phase: number): Float32Array {
  return Float32Array.from({ length: size * size }, (_, i) => Math.sin(i * 1.7 + phase) / 8);
}

function matrix(phase: number): Tensor {
  return tensor(values(phase), { shape: [size, size], requiresGrad: true });
}

/** A layer with views that share storage, a random draw, and saved inputs and outputs. */
function layer(x: Tensor, w: Tensor, generator: Generator): Tensor {
  const normed = rmsNorm(x, sum(w, 0), 1e-5);
  const heads = transpose(reshape(matmul(normed, w), [size, 4, size / 4]), 0, 1);
  const mixed = softmax(matmul(heads, transpose(heads, 1, 2)), -1);
  const joined = reshape(transpose(matmul(mixed, heads), 0, 1), [size, size]);
  return sin(mul(dropout(joined, 0.1, { generator }), exp(x)));
}

type Wrap = (body: () => Tensor) => Tensor;

/** Each op's handles go as a model's do, so that only what backward needs is live afterwards. */
function layers(x: Tensor, w: Tensor, generator: Generator, region: boolean): Tensor {
  let value = x;
  for (let i = 0; i < 5; i++) {
    const run = (input: Tensor): Tensor => scope(() => layer(input, w, generator));
    const next = region ? checkpoint(run, [value]) : run(value);
    if (value !== x) value.dispose();
    value = next;
  }
  return value;
}

interface Result {
  readonly loss: number[];
  readonly gradients: number[][];
}

function lossAndGradients(wrap: Wrap, region: 'none' | 'layers' | 'nested'): Result {
  return scope(() => {
    const [x, w] = [matrix(0), matrix(1)];
    const generator = new Generator(3);
    const start = scope(() => mul(x, 1));
    const body = (): Tensor => {
      const run = (input: Tensor): Tensor => layers(input, w, generator, region !== 'none');
      return region === 'nested' ? checkpoint(run, [start]) : run(start);
    };
    const loss = scope(() => sum(wrap(body)));
    const gradients = grad(loss, [x, w]);
    return { loss: [...toArray(loss)], gradients: gradients.map((g) => [...toArray(g as Tensor)]) };
  });
}

const plain: Wrap = (body) => body();

for (const region of ['none', 'layers', 'nested'] as const) {
  for (const depth of [0, 1, 2, 50]) {
    test(`O1 regions ${region}, depth ${depth}: the bits of no offload, and an empty store`, () => {
      const offload = new ActivationOffload({ dir, depth, minBytes: 0 });
      const want = lossAndGradients(plain, region);
      for (let step = 0; step < 2; step++) {
        assert.deepEqual(
          lossAndGradients((body) => offload.run(body), region),
          want,
        );
        offload.assertEmpty();
      }
      assert.ok(offload.stats.bytesOut > 0);
    });
  }
}

test('O1 on a backend whose memory is another one, values go to the host', () => {
  onReference(() => {
    const want = lossAndGradients(plain, 'none');
    const offload = new ActivationOffload({ minBytes: 0 });
    assert.deepEqual(offload.settings.place, { to: 'host' });
    assert.deepEqual(
      lossAndGradients((body) => offload.run(body), 'none'),
      want,
    );
    assert.ok(offload.stats.bytesIn > 0);
    offload.assertEmpty();
  });
});

/** A chain that saves one matrix per op: 32 of them. */
function chain(x: Tensor): Tensor {
  let value = x;
  for (let i = 0; i < 32; i++) {
    const next = sin(value);
    if (value !== x) value.dispose();
    value = next;
  }
  return value;
}

/** Live bytes after forward and the peak of backward, both beside the inputs. */
function memoryOf(wrap: Wrap): { forward: number; peak: number } {
  return scope(() => {
    const x = matrix(0);
    const { allocator } = currentBackend();
    const before = liveBytes();
    const loss = scope(() => sum(wrap(() => chain(mul(x, 2)))));
    const forward = liveBytes() - before;
    allocator.resetPeak();
    grad(loss, [x]);
    return { forward, peak: allocator.stats().peak - before };
  });
}

test('O1 memory between forward and backward is bounded by depth, the same in every run', () => {
  const none = memoryOf(plain);
  assert.ok(none.forward >= 32 * tensorBytes, 'without offload every saved matrix is held');
  for (const depth of [1, 2, 4]) {
    const offload = new ActivationOffload({ dir, depth, minBytes: 0 });
    const runs = [1, 2, 3].map(() => memoryOf((body) => offload.run(body)));
    assert.deepEqual(runs[1], runs[0]);
    assert.deepEqual(runs[2], runs[0]);
    // The latest `depth` groups, and small change: the loss and what sum needs.
    assert.ok(runs[0] && runs[0].forward <= (depth + 1) * tensorBytes + 1024);
    // In backward also the value in use, its gradient, and the gradient to come.
    assert.ok(runs[0] && runs[0].peak <= (depth + 4) * tensorBytes + 1024);
    assert.ok(offload.stats.waitMs >= 0);
  }
});

test('O1 parameters, views of them, leaves and small tensors stay', () => {
  const offload = new ActivationOffload({ dir, minBytes: tensorBytes });
  scope(() => {
    const [x, w] = [matrix(0), matrix(1)];
    offload.run(() => {
      // Saves two views of inputs, and of the small product its two factors.
      const small = matmul(reshape(w, [size, size]), transpose(x, 0, 1));
      const part = mul(sum(small, 0), sum(small, 1));
      assert.equal(offload.stats.values, offload.stats.stayed);
      return part;
    });
    assert.equal(offload.stats.bytesOut, 0);
    assert.deepEqual(
      readdirSync(dir).filter((name) => holds(name)),
      [],
    );
  });
  offload.assertEmpty();
});

/** Whether an offload folder's file has bytes in it. */
function holds(name: string): boolean {
  return name.startsWith('retune-offload-') && statSync(join(dir, name, 'values')).size > 0;
}

test('O1 storage that views share moves once', () => {
  const offload = new ActivationOffload({ dir, minBytes: 0, depth: 0 });
  scope(() => {
    const x = matrix(0);
    const loss = offload.run(() =>
      scope(() => {
        const y = mul(x, 2);
        // y whole, transposed, and as rows: three saved tensors, one storage.
        return sum(mul(matmul(y, transpose(y, 0, 1)), sin(reshape(y, [size, size]))));
      }),
    );
    const { bytesOut } = offload.stats;
    // y, the product and the sine.
    assert.equal(bytesOut, 3 * tensorBytes);
    grad(loss, [x]);
  });
  offload.assertEmpty();
});

test('O2 retainGraph: a second backward reads the values again; the last one empties the store', () => {
  const offload = new ActivationOffload({ dir, minBytes: 0, depth: 1 });
  scope(() => {
    const x = matrix(0);
    const loss = scope(() => sum(offload.run(() => chain(mul(x, 2)))));
    const first = scope(() => toArray(grad(loss, [x], { retainGraph: true })[0] as Tensor));
    const resident = offload.stats.residentBytes;
    assert.ok(resident <= 3 * tensorBytes, `what was read is not kept (got ${resident} bytes)`);
    assert.throws(() => offload.assertEmpty(), InternalError);
    const second = scope(() => toArray(grad(loss, [x])[0] as Tensor));
    assert.deepEqual(second, first);
    offload.assertEmpty();
  });
});

test('O2 a graph that is dropped without a backward leaves nothing in memory and nothing in the file', () => {
  const offload = new ActivationOffload({ dir, minBytes: 0, depth: 1 });
  const before = liveBytes();
  scope(() => {
    offload.run(() => chain(mul(matrix(0), 2)));
    assert.ok(offload.stats.storedBytes > 30 * tensorBytes);
  });
  offload.assertEmpty();
  assert.equal(liveBytes(), before);
  // Cutting the file is the last job in the queue; one more value waits for it.
  scope(() => {
    const x = matrix(0);
    const fresh = new ActivationOffload({ dir, minBytes: 0, depth: 0 });
    const loss = fresh.run(() => sum(sin(sin(x))));
    const sizes = readdirSync(dir).map((name) => statSync(join(dir, name, 'values')).size);
    assert.ok(Math.max(...sizes) <= tensorBytes);
    grad(loss, [x]);
  });
});

test('O1 double backward through offloaded values', () => {
  const second = (wrap: Wrap): Float64Array =>
    scope(() => {
      const x = matrix(0);
      const loss = scope(() => sum(wrap(() => sin(mul(exp(x), x)))));
      const [first] = grad(loss, [x], { createGraph: true });
      return toArray(grad(sum(mul(first as Tensor, first as Tensor)), [x])[0] as Tensor);
    });
  const offload = new ActivationOffload({ dir, minBytes: 0, depth: 1 });
  assert.deepEqual(
    second((body) => offload.run(body)),
    second(plain),
  );
  offload.assertEmpty();
});

test('O1 an in-place change after the save is an error, whether the value has moved or not', () => {
  for (const depth of [0, 9]) {
    const offload = new ActivationOffload({ dir, minBytes: 0, depth });
    scope(() => {
      const x = matrix(0);
      const loss = offload.run(() => {
        const y = exp(x);
        const z = sum(sin(y));
        noGrad(() => addInPlace(y, 1));
        return z;
      });
      assert.throws(() => grad(loss, [x]), AutogradError);
    });
    offload.assertEmpty();
  }
});

test('O1 without gradients nothing is moved; a compiled step is refused with the way out', () => {
  const offload = new ActivationOffload({ dir, minBytes: 0 });
  scope(() => {
    const x = matrix(0);
    noGrad(() => offload.run(() => sin(exp(x))));
    assert.equal(offload.stats.bytesOut, 0);
    const step = compile((input: Tensor) => offload.run(() => sin(input)));
    assert.throws(
      () => step(x),
      (error) => {
        return error instanceof CompileError && /compressActivations/.test(error.message);
      },
    );
    step.dispose();
  });
});

test('bad options are errors that name them', () => {
  const bad: [OffloadOptions, RegExp][] = [
    [{ minBytes: '64 parsecs' }, /minBytes.*parsecs/],
    [{ depth: -1 }, /depth.*-1/],
    [{ to: 'tape' } as unknown as OffloadOptions, /to is not legal.*tape/],
    [{ deep: 2 } as unknown as OffloadOptions, /deep is not legal.*depth/],
  ];
  for (const [options, message] of bad) {
    assert.throws(
      () => offloadActivations(options, () => 0),
      (error) => error instanceof ArgumentError && message.test(error.message),
    );
  }
  assert.throws(() => new ActivationOffload({ to: 'host' }), UnsupportedError);
});

/** A step whose parameters must survive any failure. */
function failingStep(offload: ActivationOffload, spoil: () => void): { error: unknown } {
  return scope(() => {
    const [x, w] = [matrix(0), matrix(1)];
    const [beforeX, beforeW] = [toArray(x), toArray(w)];
    let error: unknown;
    try {
      const loss = scope(() =>
        sum(offload.run(() => layers(mul(x, 1), w, new Generator(1), false))),
      );
      spoil();
      backward(loss);
    } catch (caught) {
      error = caught;
    }
    assert.deepEqual(toArray(x), beforeX);
    assert.deepEqual(toArray(w), beforeW);
    return { error };
  });
}

function checkFileError(error: unknown, reason: string): void {
  assert.ok(error instanceof FileError, String(error));
  assert.equal(error.details.reason, reason);
  assert.match(
    error.message,
    /^offloadActivations: .*RETUNE_OFFLOAD_DIR.*Parameters are as before/,
  );
}

test('a folder that is removed under way is a FileError; the next step uses another', () => {
  const own = mkdtempSync(join(dir, 'gone-'));
  const offload = new ActivationOffload({ dir: own, minBytes: 0, depth: 1 });
  const { error } = failingStep(offload, () => rmSync(own, { recursive: true }));
  checkFileError(error, 'missing');
  assert.ok(error instanceof FileError && String(error.details.path).startsWith(own));
  offload.assertEmpty();
  assert.equal(failingStep(offload, () => {}).error, undefined);
  offload.assertEmpty();
});

test('a folder that cannot be made is a FileError before anything is moved', () => {
  const file = join(dir, 'a-file');
  writeFileSync(file, 'x');
  const offload = new ActivationOffload({ dir: join(file, 'below'), minBytes: 0 });
  checkFileError(failingStep(offload, () => {}).error, 'not-a-folder');
  offload.assertEmpty();
});

for (const [code, reason] of [
  ['ENOSPC', 'disk-full'],
  ['EROFS', 'read-only'],
  ['EIO', 'io'],
] as const) {
  for (const kind of ['write', 'read'] as const) {
    test(`a ${kind} that fails with ${code} is a FileError that loses nothing`, () => {
      const before = currentBackend();
      const backend = createCpuBackend({ threads: 1, fileFault: { kind, at: 3, code } });
      setBackend(backend);
      try {
        const own = mkdtempSync(join(dir, 'fault-'));
        const offload = new ActivationOffload({ dir: own, minBytes: 0, depth: 1 });
        checkFileError(failingStep(offload, () => {}).error, reason);
        offload.assertEmpty();
        assert.equal(liveBytes(), 0);
        // Only the fourth job fails: the next step goes through, in a fresh folder.
        assert.equal(failingStep(offload, () => {}).error, undefined);
        offload.assertEmpty();
      } finally {
        setBackend(before);
        backend.dispose();
      }
    });
  }
}
