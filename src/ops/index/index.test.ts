import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import fc from 'fast-check';
import { checkLiveBytes } from '../../../test/support/backend.ts';
import { createCpuBackend } from '../../runtime/registry.ts';
import { currentBackend, setBackend } from '../../tensor/backend.ts';
import { Generator } from '../../tensor/generator.ts';
import { tensor, toArray, toHost } from '../../tensor/factory.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { scope } from '../../tensor/with-scope.ts';
import '../methods.ts';
import { concat, pad, stack } from './concat.ts';
import { embedding } from './embedding.ts';
import { gather, scatterAdd } from './gather.ts';
import { indexSelect, segmentSum } from './index-select.ts';
import { multinomial } from './multinomial.ts';
import { oneHot } from './one-hot.ts';
import { sort, topk } from './sort.ts';

checkLiveBytes();

function numbers(count: number, seed: number): Float32Array {
  let state = seed | 1;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return (state >> 8) / 2 ** 22;
  });
}

function indices(count: number, size: number, seed: number): Int32Array {
  return Int32Array.from(numbers(count, seed), (x) => Math.floor(((x + 2) / 4) * size) % size);
}

/** Runs `work` on CPU backends with 1, 2 and 3 threads; the bytes of each result. */
async function onThreads(work: () => Tensor): Promise<Uint8Array[]> {
  const before = currentBackend();
  const results: Uint8Array[] = [];
  for (const threads of [1, 2, 3]) {
    const backend = createCpuBackend({ threads });
    while (backend.readyWorkers < threads - 1) await setTimeout(1);
    setBackend(backend);
    try {
      results.push(scope(() => toHost(work()).data));
    } finally {
      setBackend(before);
      backend.dispose();
    }
  }
  return results;
}

describe('rows by index', () => {
  test('segmentSum adds in order and does not depend on threads', async () => {
    const [count, size, inner] = [700, 90, 40];
    const source = numbers(count * inner, 3);
    const index = indices(count, size, 5);
    const want = new Float32Array(size * inner);
    for (let k = 0; k < count; k++) {
      for (let i = 0; i < inner; i++) {
        const at = index[k]! * inner + i;
        want[at] = want[at]! + source[k * inner + i]!;
      }
    }
    const results = await onThreads(() =>
      segmentSum(tensor(source, { shape: [count, inner] }), 0, tensor(index), size),
    );
    for (const bytes of results) assert.deepEqual(new Float32Array(bytes.slice().buffer), want);
  });

  test('scatterAdd does not depend on threads, by columns and by tables', async () => {
    for (const [outer, axis] of [
      [1, 0],
      [40, 1],
    ] as const) {
      const inner = outer === 1 ? 800 : 20;
      const shape = outer === 1 ? [30, inner] : [outer, 30, inner];
      const more = outer === 1 ? [50, inner] : [outer, 50, inner];
      const [one, two, three] = await onThreads(() =>
        scatterAdd(
          tensor(numbers(outer * 30 * inner, 3), { shape }),
          axis,
          tensor(indices(outer * 50 * inner, 30, 7), { shape: more }),
          tensor(numbers(outer * 50 * inner, 9), { shape: more }),
        ),
      );
      assert.deepEqual(two, one);
      assert.deepEqual(three, one);
    }
  });

  test('many rows on several threads', async () => {
    const index = indices(3000, 500, 11);
    const table = numbers(500 * 30, 13);
    const [one, two] = await onThreads(() =>
      indexSelect(tensor(table, { shape: [500, 30] }), 0, tensor(index)),
    );
    assert.deepEqual(two, one);
    const rows = new Float32Array(one!.slice().buffer);
    assert.ok(index.every((row, k) => rows[k * 30 + 29] === table[row * 30 + 29]));
  });

  test('an index out of range is an error that names the function and the size', () => {
    scope(() => {
      const table = tensor(numbers(12, 1), { shape: [4, 3] });
      for (const wrong of [4, -1]) {
        const index = tensor(Int32Array.of(0, wrong));
        assert.throws(() => embedding(table, index), { code: 'argument', message: /size 4/ });
        assert.throws(() => segmentSum(table, 0, tensor(Int32Array.of(0, wrong, 0, 0)), 4), {
          code: 'argument',
        });
        const each = tensor(Int32Array.of(0, 0, wrong), { shape: [1, 3] });
        assert.throws(() => gather(table, 0, each), { code: 'argument', message: /gather/ });
        assert.throws(() => scatterAdd(table, 0, each, table.narrow(0, 0, 1)), /scatterAdd/);
      }
      assert.deepEqual([...toArray(embedding(table, tensor(Int32Array.of(3))))].length, 3);
    });
  });

  test('says what does not fit', () => {
    scope(() => {
      const x = tensor(numbers(12, 1), { shape: [4, 3] });
      assert.throws(() => indexSelect(x, 0, x), /integer tensor/);
      assert.throws(() => indexSelect(x, 2, tensor(Int32Array.of(1))), /axis 2 is out of range/);
      assert.throws(() => indexSelect(x, 0, tensor([[1]], { dtype: 'int32' })), /a vector/);
      assert.throws(() => gather(x, 0, tensor(Int32Array.of(1))), /as many axes/);
      assert.throws(
        () => gather(x, 0, tensor(new Int32Array(5), { shape: [1, 5] })),
        /axis 1, which is not indexed/,
      );
    });
  });
});

describe('sort and topk', () => {
  const value = fc.oneof(
    fc.float({ noNaN: false }),
    fc.constantFrom(0, -0, Infinity, -Infinity, 1, 1, 2),
  );
  test('equal a stable sort with NaN last, either way', () => {
    fc.assert(
      fc.property(
        fc.array(value, { minLength: 1, maxLength: 60 }),
        fc.boolean(),
        (values, descending) => {
          const order = (a: number, b: number): number =>
            Number.isNaN(a) || Number.isNaN(b)
              ? Number(Number.isNaN(a)) - Number(Number.isNaN(b))
              : a < b
                ? -1
                : Number(a > b);
          const sign = descending ? -1 : 1;
          const want = values
            .map((_, i) => i)
            .sort((i, j) => sign * order(values[i]!, values[j]!) || i - j);
          scope(() => {
            const x = tensor(Float32Array.from(values));
            const result = sort(x, { descending });
            assert.deepEqual([...toArray(result.indices)], want);
            assert.deepEqual(
              [...toArray(result.values)],
              want.map((i) => values[i]),
            );
            const top = topk(x, Math.ceil(values.length / 2), { largest: descending });
            assert.deepEqual([...toArray(top.indices)], want.slice(0, top.indices.size));
          });
        },
      ),
      { numRuns: 60 },
    );
  });

  test('long rows on several threads, and other dtypes', async () => {
    const values = numbers(8 * 3000, 17);
    const [one, two] = await onThreads(() => sort(tensor(values, { shape: [8, 3000] })).indices);
    assert.deepEqual(two, one);
    scope(() => {
      const big = tensor(Uint32Array.of(5, 2 ** 31, 2 ** 32 - 1, 7));
      assert.deepEqual([...toArray(sort(big).indices)], [0, 3, 1, 2]);
      const signed = tensor(Int8Array.of(5, -128, 127, 0));
      assert.deepEqual([...toArray(sort(signed).values)], [-128, 0, 5, 127]);
    });
  });

  test('topk refuses a k outside the axis', () => {
    scope(() => {
      for (const k of [0, 4, 1.5]) assert.throws(() => topk(tensor([1, 2, 3]), k), /from 1 to the/);
    });
  });
});

describe('joining', () => {
  test('many tensors, more than one launch takes', () => {
    scope(() => {
      const parts = Array.from({ length: 1003 }, (_, i) => tensor([i, -i]));
      const joined = toArray(concat(parts));
      assert.equal(joined.length, 2006);
      assert.ok(joined.every((x, i) => x === (i % 2 === 0 ? i / 2 : -(i - 1) / 2)));
    });
  });

  test('long rows on several threads', async () => {
    const data = numbers(300_000, 3);
    const work = (): Tensor => {
      const x = tensor(data, { shape: [3, 100_000] });
      return concat([x, x.narrow(1, 0, 7), x], 1);
    };
    const [one, two, three] = await onThreads(work);
    assert.deepEqual(two, one);
    assert.deepEqual(three, one);
  });

  test('stack and pad', () => {
    scope(() => {
      const a = tensor([
        [1, 2],
        [3, 4],
      ]);
      assert.deepEqual(stack([a, a], -1).shape, [2, 2, 2]);
      assert.deepEqual([...toArray(stack([a, a], 1))], [1, 2, 1, 2, 3, 4, 3, 4]);
      const padded = pad(
        a,
        [
          [1, 0],
          [0, 2],
        ],
        9,
      );
      assert.deepEqual([...toArray(padded)], [9, 9, 9, 9, 1, 2, 9, 9, 3, 4, 9, 9]);
      assert.throws(() => pad(a, [[-1, 0]]), /from 0 up/);
      assert.throws(() => concat([a, tensor([1, 2])]), /may differ along axis 0 only/);
      assert.throws(() => concat([a, a.cast('int32')]), /one dtype/);
      assert.throws(() => concat([]), /nothing to join/);
    });
  });

  test('oneHot leaves rows without a class empty', () => {
    scope(() => {
      const hot = oneHot(tensor(Int32Array.of(2, -1, 0)), 3);
      assert.deepEqual([...toArray(hot)], [0, 0, 1, 0, 0, 0, 1, 0, 0]);
    });
  });
});

describe('multinomial', () => {
  test('draws by weight, and the same for the same seed', () => {
    scope(() => {
      const weights = tensor([1, 0, 3, 4]);
      const draw = (seed: number): Float64Array =>
        toArray(
          multinomial(weights, 20_000, { replacement: true, generator: new Generator(seed) }),
        );
      const first = draw(7);
      assert.deepEqual(draw(7), first);
      const counts = [0, 0, 0, 0];
      for (const k of first) counts[k]!++;
      assert.equal(counts[1], 0);
      [1, 0, 3, 4].forEach((weight, k) => {
        // Six standard deviations of a binomial.
        const p = weight / 8;
        const bound = 6 * Math.sqrt(20_000 * p * (1 - p));
        assert.ok(Math.abs(counts[k]! - 20_000 * p) <= bound, `class ${k}: ${counts[k]}`);
      });
    });
  });

  test('without replacement no class comes twice and empty ones never', () => {
    scope(() => {
      const weights = tensor([
        [1, 2, 0, 4, 5],
        [5, 0, 3, 2, 1],
      ]);
      const generator = new Generator(3);
      for (let run = 0; run < 20; run++) {
        const drawn = toArray(multinomial(weights, 4, { generator }));
        assert.deepEqual([...drawn.subarray(0, 4)].sort(), [0, 1, 3, 4]);
        assert.deepEqual([...drawn.subarray(4)].sort(), [0, 2, 3, 4]);
      }
      assert.throws(() => multinomial(weights, 6), /from 1 to 5/);
    });
  });
});
