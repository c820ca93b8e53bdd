/** The text that stands for an op's params in keys. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { noParams, type Params, paramsKey } from './op.ts';

test('params that differ have different keys, whatever their values are made of', () => {
  const distinct: readonly Params[] = [
    noParams,
    { axis: 0 },
    { axis: -0 },
    { axis: '0' },
    { axis: null },
    { axis: 1 },
    { dim: 1 },
    { axis: 1, keepDims: true },
    { axis: 1, keepDims: false },
    { axis: 1, keepDims: 'false' },
    { value: Number.NaN },
    { value: 'NaN' },
    { value: Number.POSITIVE_INFINITY },
    { value: Number.NEGATIVE_INFINITY },
    { shape: [] },
    { shape: [2, 3] },
    { shape: [23] },
    { shape: [2, 0] },
    { shape: [2, -0] },
    { shape: ['2', '3'] },
    { shape: '[2, 3]' },
    { parts: [[1], [2]] },
    { parts: [[1, 2]] },
    { parts: [{ from: 1, to: Number.NaN }] },
    { parts: [{ from: 1, to: null }] },
    { name: 'a, axis: 1' },
    { name: 'a', axis: 1 },
  ];
  const keys = distinct.map(paramsKey);
  assert.deepEqual(keys, [...new Set(keys)]);
});

test('equal params have equal keys; what is undefined is not there', () => {
  assert.equal(paramsKey({ axis: 1, dtype: undefined }), paramsKey({ axis: 1 }));
  assert.equal(paramsKey({ shape: [2, 3] }), paramsKey({ shape: [2, 3] }));
  assert.equal(paramsKey({}), paramsKey(noParams));
});
