import assert from 'node:assert/strict';
import { after } from 'node:test';
import { alsoCompiled } from '../../test/support/also-compiled.ts';
import { backward } from '../autograd/backward.ts';
import { ArgumentError } from '../core/errors.ts';
import { hostTensor } from '../core/host-tensor.ts';
import { add } from '../ops/arithmetic.ts';
import { sum } from '../ops/broadcast.ts';
import { ones } from '../ops/creation.ts';
import { normal } from '../ops/random.ts';
import { liveBytes } from '../tensor/backend.ts';
import { noGrad } from '../tensor/context.ts';
import { fromHost, tensor, toArray } from '../tensor/factory.ts';
import { Generator } from '../tensor/generator.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { Attention } from './attention.ts';
import { Dropout } from './dropout.ts';
import { normalInit } from './init.ts';
import { KvCache } from './kv-cache.ts';
import { LayerStack } from './layer-stack.ts';
import { Embedding, Linear } from './linear.ts';
import { Mlp } from './mlp.ts';
import { Module } from './module.ts';
import { LayerNorm } from './norm.ts';
import { inverseFrequencies, RotaryEmbedding } from './rotary.ts';

const test = alsoCompiled(import.meta.url);

const before = liveBytes();

after(() => assert.equal(liveBytes(), before));

function near(got: ArrayLike<number>, want: ArrayLike<number>, bound = 1e-5): void {
  assert.equal(got.length, want.length);
  for (let i = 0; i < want.length; i++) {
    const off = Math.abs((got[i] ?? Number.NaN) - (want[i] ?? Number.NaN));
    assert.ok(off <= bound, `element ${i}: ${got[i]}, expected ${want[i]}`);
  }
}

test('Linear is x W^T + b and starts as in PyTorch', () => {
  using layer = new Linear(3, 2);
  scope(() => {
    const [w = new Float64Array(), b = new Float64Array()] = [...layer.parameters()].map(toArray);
    assert.ok([...w, ...b].every((value) => Math.abs(value) <= 1 / Math.sqrt(3)));
    const dot = (row: number): number =>
      [1, 2, 3].reduce((total, x, i) => total + x * (w[3 * row + i] ?? 0), b[row] ?? 0);
    near(toArray(layer.call(tensor([[1, 2, 3]]))), [dot(0), dot(1)]);
  });
});

test('Embedding looks rows up and gathers gradients of repeated ones', () => {
  using layer = new Embedding(4, 2);
  scope(() => {
    const indices = fromHost(hostTensor([1, 3, 1], [3], 'int32'));
    const rows = toArray(layer.weight);
    const out = layer.call(indices);
    near(toArray(out), [...rows.slice(2, 4), ...rows.slice(6, 8), ...rows.slice(2, 4)]);
    backward(sum(out));
    assert.ok(layer.weight.grad);
    near(toArray(layer.weight.grad), [0, 0, 2, 2, 0, 0, 1, 1]);
  });
});

test('LayerNorm gives rows of mean 0 and variance 1', () => {
  using layer = new LayerNorm(4);
  scope(() => {
    const values = toArray(layer.call(tensor([[1, 2, 3, 4]])));
    const deviation = Math.sqrt(1.25 + 1e-5);
    near(
      values,
      [-1.5, -0.5, 0.5, 1.5].map((value) => value / deviation),
    );
  });
});

test('Dropout drops in training only, by its own generator', () => {
  using layer = new Dropout(0.5, { generator: new Generator(9) });
  scope(() => {
    const x = ones([64, 64]);
    const first = toArray(layer.call(x));
    const kept = first.filter((value) => value !== 0);
    assert.ok(kept.every((value) => value === 2));
    assert.ok(Math.abs(kept.length / first.length - 0.5) < 0.05);
    assert.notDeepEqual(toArray(layer.call(x)), first);
    layer.generator.manualSeed(9);
    assert.deepEqual(toArray(layer.call(x)), first);
    layer.eval();
    assert.equal(layer.generator.offset, 1);
    assert.ok(toArray(layer.call(x)).every((value) => value === 1));
  });
  assert.throws(() => new Dropout(1), ArgumentError);
});

test('Mlp applies its activation between its projections', () => {
  const identity = (): Linear =>
    new Linear(2, 2, {
      bias: false,
      init: () => fromHost(hostTensor([1, 0, 0, 1], [2, 2], 'float32')),
    });
  using layer = new Mlp({ upProj: identity(), downProj: identity(), activation: 'gelu' });
  scope(() => {
    const erf1 = 0.8427007929497149;
    near(toArray(layer.call(tensor([[Math.SQRT2, -Math.SQRT2]]))), [
      (Math.SQRT2 * (1 + erf1)) / 2,
      (-Math.SQRT2 * (1 - erf1)) / 2,
    ]);
  });
});

class Shift extends Module<[x: Tensor, by: number], Tensor> {
  readonly weight = new Linear(1, 1, { bias: false, init: (shape) => ones(shape) });
  forward(x: Tensor, by: number): Tensor {
    return add(this.weight.call(x), by);
  }
}

test('LayerStack runs layers in order with their extra arguments', () => {
  using stack = new LayerStack<[by: number]>([new Shift(), new Shift(), new Shift()]);
  assert.deepEqual(
    [...stack.namedParameters()].map(([name]) => name),
    ['0.weight.weight', '1.weight.weight', '2.weight.weight'],
  );
  scope(() => {
    const x = tensor([[1]]);
    near(toArray(stack.call(x, 2)), [7]);
    assert.equal(x.disposed, false);
  });
});

test('rotary frequencies: plain, linear and the three ranges of llama3', () => {
  const plain = inverseFrequencies(4, 10_000);
  near(plain, [1, 0.01]);
  near(inverseFrequencies(4, 10_000, { kind: 'linear', factor: 4 }), [0.25, 0.0025]);
  const scaling = {
    kind: 'llama3',
    factor: 8,
    lowFreqFactor: 1,
    highFreqFactor: 4,
    originalMaxPositions: 64,
  } as const;
  // Wavelengths 2 pi / f: below 16 kept, above 64 divided by 8, between blended.
  const [fast = 0, middle = 0, slow = 0] = [0.5, 0.2, 0.05].map((frequency) => {
    const base = frequency ** -2;
    return inverseFrequencies(4, base, scaling)[1];
  });
  near([fast, slow], [0.5, 0.05 / 8], 1e-6);
  const smooth = ((64 * 0.2) / (2 * Math.PI) - 1) / 3;
  near([middle], [((1 - smooth) * 0.2) / 8 + smooth * 0.2], 1e-6);
});

test('rotary tables by range and by position agree; positions end', () => {
  using rotary = new RotaryEmbedding({ headDim: 6, theta: 100, maxPositions: 10 });
  scope(() => {
    const range = rotary.call(4, 3);
    assert.deepEqual(range.cos.shape, [4, 3]);
    near([toArray(range.sin)[0] ?? 0], [Math.sin(3)]);
    const given = rotary.at(fromHost(hostTensor([3, 4, 5, 6], [1, 4], 'int32')));
    assert.deepEqual(given.cos.shape, [1, 4, 3]);
    assert.deepEqual(toArray(given.cos), toArray(range.cos));
    assert.throws(() => rotary.call(4, 7), /position 10 is beyond the model's 10 positions/);
  });
  assert.throws(
    () => new RotaryEmbedding({ headDim: 5, theta: 1, maxPositions: 1 }),
    ArgumentError,
  );
});

function attentionLayer(generator: Generator, window?: number): Attention {
  const project = (outputs: number, inputs = 8): Linear =>
    new Linear(inputs, outputs, { bias: false, init: normalInit({ std: 0.5, generator }) });
  return new Attention({
    numHeads: 4,
    numKvHeads: 2,
    headDim: 4,
    window,
    qProj: project(16),
    kProj: project(8),
    vProj: project(8),
    oProj: project(8, 16),
  });
}

for (const window of [undefined, 3]) {
  test(`attention over a cache, piece by piece, equals attention at once (window ${window})`, () => {
    const generator = new Generator(5);
    using layer = attentionLayer(generator, window);
    using cache = new KvCache({ layers: 1, batch: 2, maxLength: 9, numKvHeads: 2, headDim: 4 });
    scope(() =>
      noGrad(() => {
        const x = normal([2, 7, 8], { generator });
        const values = toArray(x);
        const whole = toArray(layer.call(x));
        let start = 0;
        for (const length of [3, 1, 1, 2]) {
          const rows = [0, 1].flatMap((b) => [
            ...values.slice((b * 7 + start) * 8, (b * 7 + start + length) * 8),
          ]);
          cache.append(length);
          const out = layer.call(fromHost(hostTensor(rows, [2, length, 8], 'float32')), { cache });
          const want = [0, 1].flatMap((b) => [
            ...whole.slice((b * 7 + start) * 8, (b * 7 + start + length) * 8),
          ]);
          near(toArray(out), want, 1e-4);
          start += length;
        }
        assert.equal(cache.length, 7);
      }),
    );
    assert.throws(() => cache.append(3), /3 more tokens do not fit \(got 7 of 9 used\)/);
    cache.reset();
    cache.append(9);
    assert.equal(cache.start, 0);
  });
}

test('attention is causal: later tokens do not change earlier results', () => {
  const generator = new Generator(5);
  using layer = attentionLayer(generator);
  scope(() => {
    const values = toArray(normal([1, 5, 8], { generator }));
    const changed = values.map((value, i) => (i >= 3 * 8 ? value + 1 : value));
    const run = (data: Float64Array): Float64Array =>
      toArray(layer.call(fromHost(hostTensor(data, [1, 5, 8], 'float32'))));
    const a = run(values);
    const b = run(changed);
    near(a.slice(0, 24), b.slice(0, 24), 0);
    assert.ok(a.slice(24).some((value, i) => Math.abs(value - (b[24 + i] ?? 0)) > 1e-3));
  });
});
