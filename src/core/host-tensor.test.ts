import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { promoteDTypes } from './dtype.ts';
import { ShapeError, nearest } from './errors.ts';
import {
  fromBfloat16Bits,
  fromFloat16Bits,
  hostTensor,
  hostValues,
  toBfloat16Bits,
  toFloat16Bits,
} from './host-tensor.ts';

test('float32 values survive a round trip through bytes', () => {
  const values = [1.5, -0.25, 3e38, Number.NEGATIVE_INFINITY, 0];
  assert.deepEqual(
    [...hostValues(hostTensor(values, [5], 'float32'))].map(Math.fround),
    values.map(Math.fround),
  );
});

test('a wrong number of values is an error', () => {
  assert.throws(() => hostTensor([1, 2, 3], [2, 2], 'float32'), ShapeError);
});

test('every float16 bit pattern survives widening and rounding', () => {
  for (let bits = 0; bits < 65536; bits++) {
    const value = fromFloat16Bits(bits);
    if (Number.isNaN(value)) assert.ok(Number.isNaN(fromFloat16Bits(toFloat16Bits(value))));
    else assert.equal(toFloat16Bits(value), bits);
  }
});

test('float16 rounds to the nearest, ties to even', () => {
  assert.equal(fromFloat16Bits(toFloat16Bits(2049)), 2048);
  assert.equal(fromFloat16Bits(toFloat16Bits(2051)), 2052);
  assert.equal(fromFloat16Bits(toFloat16Bits(65519)), 65504);
  assert.equal(fromFloat16Bits(toFloat16Bits(65520)), Number.POSITIVE_INFINITY);
  assert.equal(fromFloat16Bits(toFloat16Bits(2 ** -25)), 0);
  assert.equal(fromFloat16Bits(toFloat16Bits(1.5 * 2 ** -24)), 2 ** -23);
});

test('bfloat16 rounds to a neighbour that is nearest', () => {
  fc.assert(
    fc.property(fc.float({ noNaN: true, noDefaultInfinity: true }), (value) => {
      const rounded = fromBfloat16Bits(toBfloat16Bits(value));
      if (!Number.isFinite(rounded)) return;
      const bits = toBfloat16Bits(value);
      for (const other of [bits - 1, bits + 1]) {
        const neighbour = fromBfloat16Bits(other & 0xffff);
        if (Number.isFinite(neighbour)) {
          assert.ok(Math.abs(rounded - value) <= Math.abs(neighbour - value));
        }
      }
    }),
  );
  assert.ok(Number.isNaN(fromBfloat16Bits(toBfloat16Bits(Number.NaN))));
});

test('dtypes promote as in PyTorch', () => {
  assert.equal(promoteDTypes('float16', 'bfloat16'), 'float32');
  assert.equal(promoteDTypes('int32', 'float16'), 'float16');
  assert.equal(promoteDTypes('bool', 'int8'), 'int8');
  assert.equal(promoteDTypes('int8', 'int32'), 'int32');
});

test('nearest finds the likely meaning of a typo', () => {
  assert.deepEqual(nearest('lerning_rate', ['batch', 'learning_rate', 'seed'], 1), [
    'learning_rate',
  ]);
});
