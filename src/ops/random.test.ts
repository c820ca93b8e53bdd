import assert from 'node:assert/strict';
import { describe } from 'node:test';
import { alsoCompiled } from '../../test/support/also-compiled.ts';
import { checkLiveBytes, onReference } from '../../test/support/backend.ts';
import { philox, unitFloat } from '../core/random.ts';
import { backward } from '../autograd/backward.ts';
import { toArray } from '../tensor/factory.ts';
import { Generator } from '../tensor/generator.ts';
import { scope } from '../tensor/with-scope.ts';
import { full, ones } from './creation.ts';
import { bernoulli, dropout, normal, randint, uniform } from './random.ts';

const it = alsoCompiled(import.meta.url);

checkLiveBytes();

const average = (values: Float64Array): number => values.reduce((a, b) => a + b, 0) / values.length;

describe('uniform', () => {
  it('is word i mod 4 of the counter i div 4, as core/random.ts says', () => {
    scope(() => {
      const generator = new Generator(0x1234_5678_9);
      uniform([3], { generator });
      const values = toArray(uniform([2, 5], { generator }));
      const words = new Uint32Array(4);
      values.forEach((value, i) => {
        philox(i >> 2, 0, 1, 0, 0x23456789, 0x1, words);
        assert.equal(value, unitFloat(words[i % 4]!));
      });
    });
  });

  it('does not depend on the number of threads, and fills its interval', () => {
    scope(() => {
      const draw = () =>
        toArray(uniform([100, 999], { generator: new Generator(7), low: -2, high: 3 }));
      const values = draw();
      assert.deepEqual(values, draw());
      assert.ok(values.every((value) => value >= -2 && value < 3));
      assert.ok(Math.abs(average(values) - 0.5) < 0.02);
    });
  });

  it('follows from the state of the generator', () => {
    scope(() => {
      const generator = new Generator(3);
      const state = generator.getState();
      const first = toArray(uniform([9], { generator }));
      const second = toArray(uniform([9], { generator }));
      assert.notDeepEqual(first, second);
      generator.setState(state);
      assert.deepEqual(toArray(uniform([9], { generator })), first);
    });
  });
});

describe('normal', () => {
  it('has the moments of the normal distribution', () => {
    scope(() => {
      const values = toArray(normal([300, 333], { generator: new Generator(1), mean: 1, std: 2 }));
      const center = average(values);
      const moment = (k: number): number => average(values.map((v) => ((v - 1) / 2) ** k));
      assert.ok(Math.abs(center - 1) < 0.02);
      assert.ok(Math.abs(moment(2) - 1) < 0.02);
      assert.ok(Math.abs(moment(3)) < 0.05);
      assert.ok(Math.abs(moment(4) - 3) < 0.1);
    });
  });

  it('pairs are the cosine and sine of one radius and angle', () => {
    const draw = (): Float64Array =>
      scope(() => toArray(normal([2], { generator: new Generator(5) })));
    const [a, b] = draw();
    const words = new Uint32Array(4);
    philox(0, 0, 0, 0, 5, 0, words);
    const radius = Math.sqrt(-2 * Math.log(1 - unitFloat(words[0]!)));
    const angle = 2 * Math.PI * unitFloat(words[1]!);
    assert.ok(Math.abs(a! - radius * Math.cos(angle)) < 1e-5);
    assert.ok(Math.abs(b! - radius * Math.sin(angle)) < 1e-5);
    const exact = onReference(draw);
    assert.ok(Math.abs(a! - exact[0]!) < 1e-5);
  });
});

describe('randint and bernoulli', () => {
  it('draw whole numbers from the interval', () => {
    scope(() => {
      const values = toArray(randint(-2, 5, [3000], { generator: new Generator(2) }));
      assert.deepEqual(
        [...new Set(values)].sort((a, b) => a - b),
        [-2, -1, 0, 1, 2, 3, 4],
      );
      assert.throws(() => randint(3, 3, [2]), /low must be an integer below high \(got 3 and 3\)/);
    });
  });

  it('draw ones with the given probability', () => {
    scope(() => {
      const ones_ = toArray(bernoulli(full([100, 100], 0.3), { generator: new Generator(4) }));
      assert.ok(Math.abs(average(ones_) - 0.3) < 0.02);
    });
  });
});

describe('dropout', () => {
  it('zeroes p of the elements, scales the others, and gives the gradient the same mask', () => {
    scope(() => {
      const x = ones([64, 100], { requiresGrad: true });
      const y = dropout(x, 0.25, { generator: new Generator(9) });
      const values = toArray(y);
      assert.deepEqual([...new Set(values)].sort(), [0, Math.fround(1 / 0.75)]);
      assert.ok(Math.abs(average(values) - 1) < 0.05);
      backward(y, { gradient: ones([64, 100]) });
      assert.deepEqual(toArray(x.grad!), values);
    });
  });

  it('draws nothing when it does nothing, and zeroes everything at p = 1', () => {
    scope(() => {
      const generator = new Generator(1);
      const x = ones([5]);
      assert.deepEqual([...toArray(dropout(x, 0, { generator }))], [1, 1, 1, 1, 1]);
      dropout(x, 0.5, { generator, training: false });
      assert.equal(generator.offset, 0);
      assert.deepEqual([...toArray(dropout(x, 1, { generator }))], [0, 0, 0, 0, 0]);
      assert.throws(() => dropout(x, 1.5), /p must lie between 0 and 1 \(got 1.5\)/);
    });
  });
});
