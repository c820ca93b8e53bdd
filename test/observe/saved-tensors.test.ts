/** savedTensors: what a graph holds for its backward is all listed, and nothing twice. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  CompileError,
  type SavedTensorReport,
  type Tensor,
  add,
  backward,
  checkpoint,
  compile,
  exp,
  formatSavedTensors,
  fromHost,
  linear,
  liveBytes,
  matmul,
  mul,
  saveOps,
  savedTensors,
  scope,
  sigmoid,
  sin,
  sum,
  tensor,
  toHost,
  transpose,
  withSavedTensorHooks,
} from '../../src/index.ts';
import { Linear } from '../../src/nn/index.ts';
import { checkLiveBytes } from '../support/backend.ts';

checkLiveBytes();

const bytes = 32 * 32 * 4;

function square(seed: number): Tensor {
  const values = Float32Array.from({ length: 32 * 32 }, (_, i) => Math.sin(i * 0.7 + seed));
  return tensor(values, { shape: [32, 32], requiresGrad: true });
}

const rows = ({ entries }: SavedTensorReport): unknown[] =>
  entries.map((entry) => [`${entry.op}.${entry.name}`, entry.bytes, entry.storage]);

test('memory that several ops save is listed by each and counted once, views too', () => {
  scope(() => {
    const x = square(1);
    const y = exp(x);
    const report = savedTensors(sum(matmul(y, transpose(y))));
    assert.deepEqual(rows(report), [
      ['exp.out', bytes, 0],
      ['matmul.a', 0, 0],
      ['matmul.b', 0, 0],
    ]);
    assert.equal(report.bytes, bytes);
  });
});

test('the bytes are those that a forward leaves behind', () => {
  scope(() => {
    const x = square(1);
    const before = liveBytes();
    const loss = scope(() => sum(sin(mul(sigmoid(x), exp(x)))));
    const held = savedTensors(loss);
    const own = held.entries.filter(({ category }) => category === 'activation');
    assert.equal(
      own.reduce((total, entry) => total + entry.bytes, 0),
      liveBytes() - before - 64,
      'without the loss itself',
    );
    backward(loss);
    assert.deepEqual(savedTensors(loss), savedTensors([]), 'backward frees all of it');
  });
});

test('parameters, inputs and activations are told apart', () => {
  scope(() => {
    const layer = new Linear(32, 32, { bias: false });
    const report = savedTensors(linear(exp(layer.call(square(1))), layer.weight));
    assert.deepEqual(
      report.entries.map(({ op, name, category, module }) => [op, name, category, module]),
      [
        ['linear', 'x', 'input', layer.path],
        ['linear', 'weight', 'parameter', layer.path],
        ['exp', 'out', 'activation', ''],
        ['linear', 'x', 'activation', ''],
        ['linear', 'weight', 'parameter', ''],
      ],
    );
    assert.deepEqual(
      [report.byCategory.parameter, report.byCategory.input, report.byCategory.activation],
      [bytes, bytes, bytes],
    );
    layer.dispose();
  });
});

test('a region holds its inputs, listed under checkpoint, and what its policy keeps', () => {
  scope(() => {
    const region = (v: Tensor): Tensor => sin(exp(matmul(v, v)));
    const full = savedTensors(checkpoint(region, [sin(square(1))]));
    const held = full.entries.filter((entry) => entry.bytes > 0);
    assert.deepEqual(
      held.map(({ op, bytes: own }) => [op, own]),
      [
        ['sin', bytes],
        ['checkpoint', bytes],
      ],
    );
    const kept = savedTensors(checkpoint(region, [sin(square(1))], { policy: saveOps('matmul') }));
    assert.equal(kept.bytes, 3 * bytes, 'and the product');
    const chosen = kept.entries.filter((entry) => entry.bytes > 0 && entry.op === 'matmul');
    assert.deepEqual(
      chosen.map(({ name }) => name),
      ['out'],
    );
  });
});

test('what hooks took elsewhere holds nothing', () => {
  scope(() => {
    const hooks = {
      pack: (x: Tensor) => toHost(x),
      unpack: (host: ReturnType<typeof toHost>) => fromHost(host),
    };
    const loss = withSavedTensorHooks(hooks, () => sum(exp(square(1))));
    const { entries, bytes: total } = savedTensors(loss);
    assert.equal(total, 0);
    assert.deepEqual(
      entries.map(({ op, storage, category }) => [op, storage, category]),
      [['exp', undefined, undefined]],
    );
  });
});

test('several outputs with a common past are one report', () => {
  scope(() => {
    const y = exp(square(1));
    const [a, b] = [sin(y), add(y, sigmoid(y))];
    assert.equal(savedTensors([a, b]).bytes, 2 * bytes);
    assert.equal(savedTensors(a).bytes, bytes);
    assert.equal(savedTensors(square(2)).entries.length, 0, 'a leaf has no graph');
  });
});

test('a compiled step has a plan instead', () => {
  const step = compile((x: Tensor) => {
    savedTensors(sum(exp(x)));
    return x;
  });
  scope(() =>
    assert.throws(
      () => step(square(1)),
      (error) => error instanceof CompileError && /Ask outside/.test(error.message),
    ),
  );
  step.dispose();
});

test('the table has the largest entries first and says what it leaves out', () => {
  scope(() => {
    const x = square(1);
    const small = sum(exp(tensor([1, 2], { requiresGrad: true })));
    const text = formatSavedTensors(savedTensors([sin(exp(x)), small]), 1);
    const lines = text.split('\n');
    assert.match(lines[0] ?? '', /^bytes +saved by +value +memory +module$/);
    assert.match(lines[1] ?? '', /^4\.00 KiB +exp\.out +float32\[32, 32\] +activation$/);
    assert.deepEqual(lines.slice(2), ['and 1 more', '4.06 KiB held for backward']);
  });
});
