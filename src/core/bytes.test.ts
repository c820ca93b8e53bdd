import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatBytes, parseBytes, readBytes } from './bytes.ts';

test('amounts are read with binary and decimal units, in any case, with or without a space', () => {
  const amounts = ['512MiB', '1.5 GiB', '64kB', '4096', '7 b', '.5KiB', '2tib'].map(parseBytes);
  assert.deepEqual(amounts, [2 ** 29, 1.5 * 2 ** 30, 64000, 4096, 7, 512, 2 ** 41]);
});

test('what is no amount is undefined', () => {
  for (const text of ['', 'MiB', '12 parsecs', '-1KiB', '1e3', '40%', '1.2.3GB', 'Infinity']) {
    assert.equal(parseBytes(text), undefined, text);
  }
});

test('amounts are written with three digits or more', () => {
  assert.deepEqual([0, 1023, 1536, 57_395_200, 3 * 2 ** 30].map(formatBytes), [
    '0 B',
    '1023 B',
    '1.50 KiB',
    '54.7 MiB',
    '3.00 GiB',
  ]);
});

test('a setting may be a number or a text', () => {
  assert.deepEqual([0, 65536, '64KiB', -1, 1.5, null, {}, 'x'].map(readBytes), [
    0,
    65536,
    65536,
    ...new Array<undefined>(5).fill(undefined),
  ]);
});
