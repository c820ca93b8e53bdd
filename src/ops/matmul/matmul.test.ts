import assert from 'node:assert/strict';
import { describe } from 'node:test';
import fc from 'fast-check';
import { alsoCompiled } from '../../../test/support/also-compiled.ts';
import { checkLiveBytes } from '../../../test/support/backend.ts';
import { difference } from '../../../test/support/fixtures.ts';
import { contiguousStrides } from '../../core/shape.ts';
import type { Operand } from '../../ir/op.ts';
import { tensor, toArray } from '../../tensor/factory.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { scope } from '../../tensor/with-scope.ts';
import '../methods.ts';
import { gemmCall, matrixLayout } from './gemm-layout.ts';
import { linear } from './linear.ts';
import { matmul } from './matmul.ts';
import { addmmInPlace, matmulAdd } from './matmul-add.ts';

const test = alsoCompiled(import.meta.url);

checkLiveBytes();

function random(shape: readonly number[], seed: number): Tensor {
  let state = seed | 1;
  const values = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return (state >> 8) / 2 ** 23;
  });
  return tensor(values, { shape });
}

/** Product of matrices by definition. */
function product(a: Tensor, b: Tensor): Float64Array {
  const [m = 1, k = 1] = a.shape;
  const n = b.shape[1] ?? 1;
  const [x, y] = [toArray(a), toArray(b)];
  return Float64Array.from({ length: m * n }, (_, at) => {
    const [i, j] = [Math.floor(at / n), at % n];
    let total = 0;
    for (let p = 0; p < k; p++) total += x[i * k + p]! * y[p * n + j]!;
    return total;
  });
}

/** A [rows, columns] matrix that lies in memory as the case says. */
function laidOut(rows: number, columns: number, how: string, seed: number): Tensor {
  switch (how) {
    case 'transposed':
      return random([columns, rows], seed).transpose();
    case 'cut':
      return random([rows + 2, columns + 3], seed).slice([
        [1, rows + 1],
        [2, columns + 2],
      ]);
    case 'stepped':
      return random([rows, 2 * columns], seed).slice([null, [0, 2 * columns, 2]]);
    case 'repeated':
      return random([1, columns], seed).expand([rows, columns]);
    case 'flipped':
      return random([rows, columns], seed).flip([0]);
    default:
      return random([rows, columns], seed);
  }
}

const layouts = ['dense', 'transposed', 'cut', 'stepped', 'repeated', 'flipped'] as const;

describe('matmul', () => {
  test('equals the definition for any size and layout', () => {
    const size = fc.integer({ min: 1, max: 19 });
    const layout = fc.constantFrom(...layouts);
    fc.assert(
      fc.property(size, size, size, layout, layout, (m, n, k, howA, howB) => {
        scope(() => {
          const a = laidOut(m, k, howA, 3);
          const b = laidOut(k, n, howB, 5);
          const text = difference(toArray(matmul(a, b)), product(a, b), {
            rtol: 1e-5,
            atolScale: 1e-6,
          });
          assert.equal(text, null);
        });
      }),
      { numRuns: 80 },
    );
  });

  test('no inner elements: zeros; no rows: nothing', () => {
    scope(() => {
      assert.deepEqual(
        [...toArray(matmul(random([2, 0], 1), random([0, 3], 1)))],
        new Array(6).fill(0),
      );
      assert.deepEqual(matmul(random([0, 4], 1), random([4, 3], 1)).shape, [0, 3]);
    });
  });

  test('a batch with one right operand is one tall product', () => {
    const dense = (shape: readonly number[]): Operand => ({
      aval: { shape, dtype: 'float32' },
      layout: { offset: 0, strides: contiguousStrides(shape) },
    });
    const call = gemmCall(dense([2, 3, 5, 7]), dense([7, 4]), dense([2, 3, 5, 4]), [0, 1, 2]);
    assert.equal(call?.m, 30);
    assert.equal(call?.batches.length, 1);
    const many = gemmCall(dense([2, 1, 5, 7]), dense([3, 7, 4]), dense([2, 3, 5, 4]), [0, 1, 2]);
    assert.deepEqual(
      many?.batches.map(({ a, b }) => [a, b]),
      [0, 0, 0, 35, 35, 35].map((a, i) => [a, 28 * (i % 3)]),
    );
  });

  test('matrixLayout: what BLAS can read', () => {
    assert.deepEqual(matrixLayout(3, 4, 4, 1), { trans: false, ld: 4 });
    assert.deepEqual(matrixLayout(3, 4, 9, 1), { trans: false, ld: 9 });
    assert.deepEqual(matrixLayout(3, 4, 1, 3), { trans: true, ld: 3 });
    assert.deepEqual(matrixLayout(1, 4, 0, 1), { trans: false, ld: 4 });
    assert.deepEqual(matrixLayout(3, 1, 5, 0), { trans: false, ld: 5 });
    assert.equal(matrixLayout(3, 4, 8, 2), undefined);
    assert.equal(matrixLayout(3, 4, 0, 1), undefined);
    assert.equal(matrixLayout(3, 4, -4, 1), undefined);
  });

  test('says which axes differ', () => {
    scope(() => {
      const [a, b] = [random([3, 4], 1), random([5, 6], 1)];
      assert.throws(() => matmul(a, b), /axis -1 of a is 4, axis -2 of b is 5/);
      assert.throws(() => matmul(a, random([5], 1)), /axis 0 of b is 5/);
      assert.throws(() => matmul(a, random([4, 2], 1).cast('bfloat16')), /one dtype/);
      assert.throws(() => matmul(a.cast('int32'), b), /floating point/);
      assert.throws(() => matmul(random([2, 3, 4], 1), random([3, 4, 5], 1)), /do not broadcast/);
      assert.throws(() => linear(a, b), /equal to axis -1 of x/);
      assert.throws(() => linear(a, random([2, 4], 1), random([3], 1)), /one value per output/);
    });
  });
});

describe('products that are added', () => {
  test('addmmInPlace changes its matrix, and only it', () => {
    scope(() => {
      const [c, a, b] = [random([5, 7], 1), random([5, 3], 3), random([3, 7], 5)];
      const want = toArray(c).map((x, i) => 0.5 * x - 2 * product(a, b)[i]!);
      const same = addmmInPlace(c, a, b, { alpha: -2, beta: 0.5 });
      assert.equal(same, c);
      assert.equal(difference(toArray(c), want, { rtol: 1e-5, atolScale: 1e-6 }), null);
      assert.throws(() => addmmInPlace(c, b, a), /wants c \[m, n\]/);
      const flipped = random([7, 5], 1).transpose();
      assert.throws(() => addmmInPlace(flipped, a, b), /cannot change this view in place/);
    });
  });

  test('matmulAdd broadcasts what it adds', () => {
    scope(() => {
      const [a, b] = [random([5, 3], 3), random([3, 7], 5)];
      const row = random([7], 9);
      const want = toArray(matmul(a, b).add(row));
      assert.deepEqual(toArray(matmulAdd(row, a, b)), want);
      assert.throws(() => matmulAdd(random([2, 5, 7], 1), a, b), /broadcasts to \[m, n\]/);
    });
  });
});
