import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ShapeError } from './errors.ts';
import {
  broadcastShapes,
  broadcastStrides,
  contiguousStrides,
  isContiguous,
  normalizeAxes,
  numElements,
  viewStrides,
} from './shape.ts';

test('broadcasting follows NumPy and names the axis that does not fit', () => {
  assert.deepEqual(broadcastShapes('add', [2, 1, 3], [4, 1]), [2, 4, 3]);
  assert.deepEqual(broadcastShapes('add', [], [5]), [5]);
  assert.throws(
    () => broadcastShapes('add', [2, 3], [4, 3]),
    (error) => error instanceof ShapeError && /axis -2 has sizes 2 and 4/.test(error.message),
  );
});

test('broadcast strides are zero on stretched axes', () => {
  assert.deepEqual(broadcastStrides([3, 1], [1, 1], [2, 3, 4]), [0, 1, 0]);
});

test('contiguity ignores axes of size one', () => {
  assert.equal(isContiguous([2, 1, 3], [3, 99, 1]), true);
  assert.equal(isContiguous([2, 3], [1, 2]), false);
  assert.equal(isContiguous([0, 3], [7, 7]), true);
});

test('axes may be negative, and repeats are errors', () => {
  assert.deepEqual(normalizeAxes('sum', [-1, 0], 3), [0, 2]);
  assert.throws(() => normalizeAxes('sum', [0, -3], 3), ShapeError);
  assert.throws(() => normalizeAxes('sum', 3, 3), ShapeError);
});

test('a view of a transposed tensor splits axes but cannot merge them', () => {
  assert.deepEqual(viewStrides([6, 4], [1, 6], [2, 3, 4]), [3, 1, 6]);
  assert.equal(viewStrides([6, 4], [1, 6], [24]), undefined);
});

test('a view addresses the same elements in the same order', () => {
  const dims = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(dims, dims, fc.nat(), (shape, cuts, seed) => {
      // A permuted dense tensor, viewed as a refinement or a merge of its shape.
      const order = shape
        .map((_, axis) => axis)
        .sort((a, b) => ((a * 7 + seed) % 5) - ((b * 7 + seed) % 5));
      const base = contiguousStrides(order.map((axis) => shape[axis] ?? 1));
      const strides = new Array<number>(shape.length).fill(0);
      order.forEach((axis, i) => {
        strides[axis] = base[i] ?? 0;
      });
      const total = numElements(shape);
      const target = refactor(total, cuts);
      const found = viewStrides(shape, strides, target);
      if (found) assert.deepEqual(addresses(target, found), addresses(shape, strides));
      if (isContiguous(shape, strides)) assert.ok(found, 'a dense tensor has every view');
    }),
  );
});

/** Some shape with `total` elements. */
function refactor(total: number, cuts: readonly number[]): number[] {
  const out: number[] = [];
  let left = total;
  for (const cut of cuts) {
    if (left % cut !== 0) continue;
    out.push(cut);
    left /= cut;
  }
  return [...out, left];
}

function addresses(shape: readonly number[], strides: readonly number[]): number[] {
  let list = [0];
  shape.forEach((dim, axis) => {
    const step = strides[axis] ?? 0;
    list = list.flatMap((at) => Array.from({ length: dim }, (_, i) => at + i * step));
  });
  return list;
}
