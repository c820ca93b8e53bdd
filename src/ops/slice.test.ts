import assert from 'node:assert/strict';
import { describe } from 'node:test';
import { alsoCompiled } from '../../test/support/also-compiled.ts';
import fc from 'fast-check';
import { checkLiveBytes, onReference } from '../../test/support/backend.ts';
import { ShapeError } from '../core/errors.ts';
import { numElements } from '../core/shape.ts';
import { tensor, toArray } from '../tensor/factory.ts';
import { scope } from '../tensor/with-scope.ts';
import { arange } from './creation.ts';
import { mergeAxes } from './kernels/slice-scatter.ts';
import { flip, narrow, select, slice, sliceScatter } from './slice.ts';
import { chunk, split, unbind } from './split.ts';
import { reshape } from './broadcast.ts';

const it = alsoCompiled(import.meta.url);

checkLiveBytes();

const values = (list: readonly { shape: readonly number[] }[]): number[][] =>
  list.map((part) => [...part.shape]);

describe('slice', () => {
  it('takes starts, ends and steps as NumPy does', () => {
    scope(() => {
      const x = arange(0, 10);
      const take = (...range: [number?, number?, number?]): number[] => [
        ...toArray(slice(x, [range as [number, number]])),
      ];
      assert.deepEqual(take(2, 5), [2, 3, 4]);
      assert.deepEqual(take(-3), [7, 8, 9]);
      assert.deepEqual(take(1, 99, 4), [1, 5, 9]);
      assert.deepEqual(take(undefined, undefined, -3), [9, 6, 3, 0]);
      assert.deepEqual(take(7, 2, -2), [7, 5, 3]);
      assert.deepEqual(take(5, 2), []);
    });
  });

  it('says what does not fit', () => {
    scope(() => {
      const x = arange(0, 6);
      assert.throws(() => slice(x, [[0, 2], null]), ShapeError);
      assert.throws(() => slice(x, [[0, 2, 0]]), /step must be an integer other than 0 \(got 0\)/);
      assert.throws(() => narrow(x, 0, 4, 3), /elements 4 to 7 do not lie in axis 0 of size 6/);
      assert.throws(() => select(x, 0, 6), /index 6 does not lie in axis 0 of size 6/);
    });
  });

  it('is a view: select, flip and unbind move no data', () => {
    scope(() => {
      const x = reshape(arange(0, 12), [3, 4]);
      const root = x.data.root;
      const views = [select(x, 1, -1), flip(x, [0, 1]), ...unbind(x, 1)];
      for (const view of views) assert.equal(view.data.root, root);
      assert.deepEqual([...toArray(views[0]!)], [3, 7, 11]);
      assert.deepEqual([...toArray(views[1]!)].slice(0, 5), [11, 10, 9, 8, 7]);
    });
  });
});

describe('split', () => {
  it('cuts by size, by list and by count', () => {
    scope(() => {
      const x = reshape(arange(0, 14), [2, 7]);
      assert.deepEqual(values(split(x, 3, 1)), [
        [2, 3],
        [2, 3],
        [2, 1],
      ]);
      assert.deepEqual(values(split(x, [1, 6], -1)), [
        [2, 1],
        [2, 6],
      ]);
      assert.deepEqual(values(chunk(x, 4, 1)), [
        [2, 2],
        [2, 2],
        [2, 2],
        [2, 1],
      ]);
      assert.throws(
        () => split(x, [3, 3], 1),
        /must add up to axis 1 \(got \[3, 3\] for shape \[2, 7\]\)/,
      );
    });
  });
});

describe('sliceScatter', () => {
  /** A shape and, for each axis, a part that lies inside. */
  const parts = fc
    .array(
      fc.record({
        dim: fc.integer({ min: 1, max: 9 }),
        start: fc.nat(8),
        step: fc.constantFrom(1, 1, 1, 2, 3, -1, -2),
        size: fc.nat(9),
      }),
      { minLength: 1, maxLength: 4 },
    )
    .map((axes) =>
      axes.map(({ dim, start, step, size }) => {
        const from = start % dim;
        const room =
          step > 0 ? Math.floor((dim - 1 - from) / step) + 1 : Math.floor(from / -step) + 1;
        return { dim, start: from, step, size: Math.min(size, room) };
      }),
    );

  const run = (axes: typeof parts extends fc.Arbitrary<infer T> ? T : never): number[] =>
    scope(() => {
      const sizes = axes.map((axis) => axis.size);
      const part = reshape(arange(1, numElements(sizes) + 1), sizes);
      const whole = sliceScatter(
        part,
        axes.map((axis) => axis.dim),
        axes.map((axis) => axis.start),
        axes.map((axis) => axis.step),
      );
      return [...toArray(whole)];
    });

  it('equals its reference for any part', () => {
    fc.assert(
      fc.property(parts, (axes) => {
        assert.deepEqual(
          run(axes),
          onReference(() => run(axes)),
        );
      }),
      { numRuns: 60 },
    );
  });

  it('shares few long rows between threads', () => {
    scope(() => {
      const part = tensor(Float32Array.from({ length: 90000 }, (_, i) => i + 1));
      const whole = toArray(sliceScatter(part, [100000], [4000]));
      assert.equal(whole[3999], 0);
      assert.equal(whole[4000], 1);
      assert.equal(whole[93999], 90000);
      assert.equal(whole[94000], 0);
    });
  });

  it('merges axes that are taken whole', () => {
    const whole = (dim: number) => ({ dim, start: 0, step: 1, size: dim });
    assert.deepEqual(mergeAxes([whole(2), { dim: 7, start: 3, step: 1, size: 2 }, whole(5)]), [
      whole(2),
      { dim: 35, start: 15, step: 1, size: 10 },
    ]);
  });
});
