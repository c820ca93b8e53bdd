import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { orderTwoByteLoss } from './order-two.ts';

const bytes = (text: string) => new TextEncoder().encode(text);

describe('orderTwoByteLoss', () => {
  test('equals the value computed by hand', () => {
    // Train "abab": order 0: a 2, b 2 (2 kinds); after a: b 2 (1 kind); after b: a 1 (1 kind);
    // after ab: a 1 (1 kind); after ba: b 1 (1 kind).
    const p1 = (2 + 2 / 256) / (4 + 2);
    const p2 = (1 + p1) / (1 + 1);
    const p3 = (1 + p2) / (1 + 1);
    const loss = orderTwoByteLoss(bytes('abab'), bytes('aba'));
    assert.ok(Math.abs(loss + Math.log(p3)) < 1e-12);
  });

  test('backs off to shorter contexts and at last to the uniform distribution', () => {
    const p1 = (0 + 1 / 256) / (3 + 1);
    const unseen = orderTwoByteLoss(bytes('aaa'), bytes('yyx'));
    assert.ok(Math.abs(unseen + Math.log(p1)) < 1e-12);
    const p2 = (0 + p1) / (2 + 1);
    const afterA = orderTwoByteLoss(bytes('aaa'), bytes('zax'));
    assert.ok(Math.abs(afterA + Math.log(p2)) < 1e-12);
  });

  test('gives every context a distribution that sums to one', () => {
    const symbol = fc.integer({ min: 0, max: 5 });
    const train = fc.array(symbol, { minLength: 3, maxLength: 40 });
    fc.assert(
      fc.property(train, symbol, symbol, (text, a, b) => {
        let sum = 0;
        for (let c = 0; c < 6; c++) sum += Math.exp(-orderTwoByteLoss(text, [a, b, c], 6));
        assert.ok(Math.abs(sum - 1) < 1e-12, `${sum}`);
      }),
    );
  });

  test('is near zero on a repeated text and near log 2 on random bits', () => {
    assert.ok(orderTwoByteLoss(bytes('abc'.repeat(1000)), bytes('abc'.repeat(100))) < 0.01);
    let state = 1;
    const bits = Array.from({ length: 20_000 }, () => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      return (state >>> 16) & 1;
    });
    const loss = orderTwoByteLoss(bits.slice(0, 15_000), bits.slice(15_000));
    assert.ok(Math.abs(loss - Math.log(2)) < 0.01, `${loss}`);
  });

  test('refuses too little text and symbols outside the alphabet', () => {
    assert.throws(() => orderTwoByteLoss([1, 2], [1, 2, 3]), /at least 3 symbols \(got 2 and 3\)/);
    assert.throws(() => orderTwoByteLoss([1, 2, 256], [1, 2, 3]), /outside the alphabet \(got 256/);
    assert.ok(orderTwoByteLoss([1, 2, 256], [1, 2, 256], 257) > 0);
  });
});
