/** One-byte formats: every code of e4m3, rounding, error bounds, and what cannot be represented. */

import assert from 'node:assert/strict';
import { alsoCompiled } from '../../test/support/also-compiled.ts';
import fc from 'fast-check';
import { ShapeError } from '../core/errors.ts';
import '../tensor/backend.ts';
import { hostTensor } from '../core/host-tensor.ts';
import { fromHost, tensor, toArray } from '../tensor/factory.ts';
import { scope } from '../tensor/with-scope.ts';
import { checkLiveBytes } from '../../test/support/backend.ts';
import { type ByteFormat, dequantize, quantize } from './quantize.ts';

const test = alsoCompiled(import.meta.url);

checkLiveBytes();

/** The value of e4m3 bits, by the definition of the format. */
function e4m3(bits: number): number {
  const exponent = (bits >> 3) & 15;
  const mantissa = bits & 7;
  const size = exponent === 0 ? mantissa * 2 ** -9 : (1 + mantissa / 8) * 2 ** (exponent - 7);
  return (bits & 128) === 0 ? size : -size;
}

/** Non-negative codes but NaN (127), from 0 to 448. */
const sizes = Array.from({ length: 127 }, (_, bits) => e4m3(bits));

function roundTrip(values: readonly number[], format: ByteFormat): Float64Array {
  return scope(() => {
    const x = tensor(values, { shape: [1, values.length] });
    const { codes, scales } = quantize(x, format);
    return toArray(dequantize(codes, scales, format));
  });
}

test('fp8: every code is decoded as e4m3 defines it', () => {
  scope(() => {
    const bits = Array.from({ length: 256 }, (_, i) => i).filter((i) => (i & 127) !== 127);
    const codes = fromHost(
      hostTensor(
        bits.map((i) => (i << 24) >> 24),
        [1, bits.length],
        'int8',
      ),
    );
    const got = toArray(dequantize(codes, tensor([1]), 'fp8'));
    assert.deepEqual(
      [...got].map((x) => x + 0),
      bits.map((i) => e4m3(i) + 0),
    );
  });
});

test('fp8: every value of the format survives, with either sign', () => {
  // 448 is in the block, so the scale is 1.
  assert.deepEqual([...roundTrip(sizes, 'fp8')], sizes);
  assert.deepEqual(
    [
      ...roundTrip(
        sizes.map((x) => -x),
        'fp8',
      ),
    ].map((x) => x + 0),
    sizes.map((x) => 0 - x),
  );
});

test('fp8: what lies between two values goes to the nearer, half-way to the even code', () => {
  const between = sizes.slice(1).flatMap((high, code) => {
    const low = sizes[code] ?? 0;
    const half = (low + high) / 2;
    return [
      { x: half, want: code % 2 === 0 ? low : high },
      { x: half * (1 - 2 ** -20), want: low },
      { x: half * (1 + 2 ** -20), want: high },
    ];
  });
  const got = roundTrip([448, ...between.map(({ x }) => x)], 'fp8').slice(1);
  assert.deepEqual(
    [...got],
    between.map(({ want }) => want),
  );
});

const blocks = fc
  .tuple(
    fc.integer({ min: -100, max: 100 }),
    fc.array(fc.double({ min: -1, max: 1, noNaN: true }), { minLength: 1, maxLength: 70 }),
  )
  .map(([power, values]) => [1, ...values].map((value) => Math.fround(value * 2 ** power)));

test('int8: no error above half a step of the block', () => {
  fc.assert(
    fc.property(blocks, (values) => {
      const step = Math.max(...values.map(Math.abs)) / 127;
      const got = roundTrip(values, 'int8');
      values.forEach((value, i) => {
        const error = Math.abs((got[i] ?? 0) - value);
        assert.ok(error <= step * (0.5 + 2 ** -14), `${value} became ${got[i]}`);
      });
    }),
    { numRuns: 200 },
  );
});

test('fp8: no error above 2^-4 of a value, or half the smallest step of its block', () => {
  fc.assert(
    fc.property(blocks, (values) => {
      const scale = Math.max(...values.map(Math.abs)) / 448;
      const got = roundTrip(values, 'fp8');
      values.forEach((value, i) => {
        const error = Math.abs((got[i] ?? 0) - value);
        const bound = Math.max(Math.abs(value) * 2 ** -4, scale * 2 ** -10) * (1 + 2 ** -18);
        assert.ok(error <= bound, `${value} became ${got[i]}`);
      });
    }),
    { numRuns: 200 },
  );
});

test('zeros, tiny blocks, infinities and NaN', () => {
  for (const format of ['int8', 'fp8'] as const) {
    assert.deepEqual([...roundTrip([0, 0, 0], format)], [0, 0, 0]);
    assert.deepEqual(
      [...roundTrip([2 ** -120, -(2 ** -130)], format)].map((x) => x + 0),
      [0, 0],
    );
    assert.ok(Math.abs((roundTrip([2 ** -110], format)[0] ?? 0) / 2 ** -110 - 1) < 1e-6);
    assert.ok(roundTrip([1, Number.NaN, 2], format).every(Number.isNaN));
    assert.ok(roundTrip([1, Number.POSITIVE_INFINITY, 2], format).every(Number.isNaN));
    const largest = Math.fround(3.4e38);
    assert.ok(Math.abs((roundTrip([largest], format)[0] ?? 0) / largest - 1) < 1e-6);
  }
});

test('operands that are no rows of blocks are refused', () => {
  scope(() => {
    assert.throws(() => quantize(tensor([1, 2]), 'int8'), ShapeError);
  });
});
