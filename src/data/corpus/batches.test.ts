import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  type Batch,
  type BatchSource,
  BatchStream,
  evaluationBatches,
  splitBatch,
} from './batches.ts';
import { PackedDataset } from './packed-dataset.ts';
import { permutedIndex } from './permutation.ts';
import { Prefetcher } from './prefetch.ts';
import { emptyRow, ignoreIndex, paddingSegment } from './sequence-dataset.ts';
import { MemoryTokens } from './token-source.ts';

/** Tokens 0..n-1 with these document lengths. */
function counting(lengths: number[]): MemoryTokens {
  let end = 0;
  const ends = Float64Array.from(lengths, (length) => (end += length));
  return new MemoryTokens(
    Int32Array.from({ length: end }, (_, i) => i),
    ends,
    `n${end}`,
  );
}

async function rowOf(dataset: PackedDataset, index: number) {
  const row = emptyRow(dataset.sequenceLength, 77);
  await dataset.fill(index, row);
  return Object.fromEntries(Object.entries(row).map(([key, array]) => [key, [...array]]));
}

const firstTokens = (batch: Batch) =>
  Array.from({ length: batch.rows }, (_, i) => batch.inputs[i * batch.sequenceLength]);

describe('permutedIndex', () => {
  test('is a bijection for every count, seed and epoch', () => {
    const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 300 }), u32, u32, (count, seed, epoch) => {
        const seen = new Set<number>();
        for (let i = 0; i < count; i++) seen.add(permutedIndex(i, count, seed, epoch));
        assert.equal(seen.size, count);
        assert.ok(Math.max(...seen) < count && Math.min(...seen) >= 0);
      }),
      { numRuns: 60 },
    );
  });

  test('differs between seeds and epochs, and hits places evenly', () => {
    const order = (seed: number, epoch: number) =>
      Array.from({ length: 50 }, (_, i) => permutedIndex(i, 50, seed, epoch)).join();
    assert.equal(new Set([order(0, 0), order(0, 1), order(1, 0), order(1, 1)]).size, 4);
    const hits = new Array<number>(10).fill(0);
    for (let epoch = 0; epoch < 4000; epoch++) {
      const place = permutedIndex(3, 10, 5, epoch);
      hits[place] = (hits[place] ?? 0) + 1;
    }
    // Chi-square with 9 degrees of freedom; 27.9 is passed once in a thousand.
    const chi = hits.reduce((sum, n) => sum + (n - 400) ** 2 / 400, 0);
    assert.ok(chi < 27.9, `chi-square ${chi}, hits ${hits}`);
  });

  test('works for huge counts and refuses places that do not exist', () => {
    const count = 2 ** 40 + 1;
    const places = [0, 1, 2 ** 33, count - 1].map((i) => permutedIndex(i, count, 1, 0));
    assert.equal(new Set(places).size, 4);
    assert.ok(places.every((place) => Number.isInteger(place) && place >= 0 && place < count));
    assert.ok(places.some((place) => place > 2 ** 32));
    for (const index of [-1, 5, 0.5]) {
      assert.throws(() => permutedIndex(index, 5, 0, 0), /from 0 to count - 1/);
    }
  });
});

describe('PackedDataset', () => {
  test('makes every token but the first a target exactly once', async () => {
    const size = fc.integer({ min: 1, max: 12 });
    const lengths = fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 9 });
    await fc.assert(
      fc.asyncProperty(lengths, size, fc.boolean(), async (ls, sequenceLength, keepLast) => {
        const source = counting(ls);
        const rows = (source.length - 1) / sequenceLength;
        const count = keepLast ? Math.ceil(rows) : Math.floor(rows);
        fc.pre(source.length > 1 && count > 0);
        const dataset = new PackedDataset(source, { sequenceLength, keepLast });
        assert.equal(dataset.length, count);
        const targets: number[] = [];
        for (let i = 0; i < count; i++) {
          const row = await rowOf(dataset, i);
          row.targets!.forEach((target, j) => {
            if (target === ignoreIndex) return;
            assert.equal(row.inputs![j], target - 1);
            targets.push(target);
          });
        }
        const end = keepLast ? source.length : count * sequenceLength + 1;
        assert.deepEqual(
          targets,
          Array.from({ length: end - 1 }, (_, i) => i + 1),
        );
      }),
      { numRuns: 80 },
    );
  });

  test('with boundaries keeps documents apart', async () => {
    const dataset = new PackedDataset(counting([3, 0, 2, 4]), {
      sequenceLength: 4,
      documentBoundaries: true,
    });
    assert.deepEqual(await rowOf(dataset, 0), {
      inputs: [0, 1, 2, 3],
      targets: [1, 2, ignoreIndex, 4],
      segmentIds: [0, 0, 0, 1],
      positionIds: [0, 1, 2, 0],
    });
    assert.deepEqual(await rowOf(dataset, 1), {
      inputs: [4, 5, 6, 7],
      targets: [ignoreIndex, 6, 7, 8],
      segmentIds: [0, 1, 1, 1],
      positionIds: [0, 0, 1, 2],
    });
  });

  test('with boundaries, a position is the distance to the start of its document or row', async () => {
    const lengths = fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 9 });
    await fc.assert(
      fc.asyncProperty(lengths, fc.integer({ min: 1, max: 6 }), async (ls, sequenceLength) => {
        const source = counting(ls);
        fc.pre(source.length > sequenceLength);
        const starts = new Set([...source.documentEnds]);
        const dataset = new PackedDataset(source, { sequenceLength, documentBoundaries: true });
        for (let r = 0; r < dataset.length; r++) {
          const row = await rowOf(dataset, r);
          let segment = 0;
          let start = r * sequenceLength;
          for (let i = 0; i < sequenceLength; i++) {
            const token = r * sequenceLength + i;
            if (i > 0 && starts.has(token)) {
              segment++;
              start = token;
            }
            assert.equal(row.positionIds![i], token - start);
            assert.equal(row.segmentIds![i], segment);
            assert.equal(row.targets![i], starts.has(token + 1) ? ignoreIndex : token + 1);
          }
        }
      }),
      { numRuns: 80 },
    );
  });

  test('pads a kept last row', async () => {
    const dataset = new PackedDataset(counting([6]), {
      sequenceLength: 4,
      keepLast: true,
      padId: 9,
    });
    assert.deepEqual(await rowOf(dataset, 1), {
      inputs: [4, 9, 9, 9],
      targets: [5, ignoreIndex, ignoreIndex, ignoreIndex],
      segmentIds: [0, paddingSegment, paddingSegment, paddingSegment],
      positionIds: [0, 0, 0, 0],
    });
  });

  test('refuses a corpus shorter than one row', () => {
    assert.throws(
      () => new PackedDataset(counting([4]), { sequenceLength: 4 }),
      /does not fill one row \(got 4 tokens, 5 needed\)/,
    );
    assert.throws(() => new PackedDataset(counting([4]), { sequenceLength: 0 }), /got 0/);
  });
});

describe('BatchStream', () => {
  const dataset = new PackedDataset(counting([21]), { sequenceLength: 2 });

  test('visits each row at most once an epoch, in an order of the epoch', async () => {
    const stream = new BatchStream(dataset, { batchSize: 3, seed: 1 });
    const epochs: (number | undefined)[][] = [];
    for (let epoch = 0; epoch < 3; epoch++) {
      const firsts: (number | undefined)[] = [];
      for (let b = 0; b < stream.batchesPerEpoch; b++)
        firsts.push(...firstTokens(await stream.next()));
      assert.equal(new Set(firsts).size, 9);
      epochs.push(firsts);
    }
    assert.equal(new Set(epochs.map((firsts) => firsts.join())).size, 3);
  });

  test('goes in order without shuffling, and counts targets', async () => {
    const stream = new BatchStream(dataset, { batchSize: 4, shuffle: false });
    const batch = await stream.next();
    assert.deepEqual([...batch.inputs], [0, 1, 2, 3, 4, 5, 6, 7]);
    assert.deepEqual([...batch.targets], [1, 2, 3, 4, 5, 6, 7, 8]);
    assert.deepEqual([batch.rows, batch.sequenceLength, batch.targetCount], [4, 2, 8]);
    assert.deepEqual(firstTokens(await stream.next()), [8, 10, 12, 14]);
    assert.deepEqual(firstTokens(await stream.next()), [0, 2, 4, 6]);
  });

  test('continues from any state with the same batches, through JSON', async () => {
    const options = { batchSize: 3, seed: 9 };
    const reference = new BatchStream(dataset, options);
    const states = [reference.state()];
    const batches: Batch[] = [];
    for (let i = 0; i < 10; i++) {
      batches.push(await reference.next());
      states.push(reference.state());
    }
    for (const [i, state] of states.entries()) {
      const resumed = new BatchStream(dataset, options);
      resumed.restore(JSON.parse(JSON.stringify(state)));
      for (const batch of batches.slice(i)) assert.deepEqual(await resumed.next(), batch);
    }
  });

  test('refuses the state of other data, seed or batch size, and impossible ones', () => {
    const stream = new BatchStream(dataset, { batchSize: 3, seed: 1 });
    const state = stream.state();
    const others = [
      new BatchStream(dataset, { batchSize: 2, seed: 1 }),
      new BatchStream(dataset, { batchSize: 3, seed: 2 }),
      new BatchStream(new PackedDataset(counting([22]), { sequenceLength: 2 }), {
        batchSize: 3,
        seed: 1,
      }),
    ];
    for (const other of others) assert.throws(() => other.restore(state), /belongs to other data/);
    for (const position of [-3, 1, 12, Number.NaN]) {
      assert.throws(() => stream.restore({ ...state, position }), /no stream can be in this state/);
    }
    assert.throws(() => new BatchStream(dataset, { batchSize: 11 }), /from 1 to the 10 rows/);
  });
});

describe('evaluationBatches', () => {
  const dataset = new PackedDataset(counting([15]), { sequenceLength: 2 });

  test('gives each row once and fills the last batch with ignored rows', async () => {
    const batches = await Array.fromAsync(evaluationBatches(dataset, 4));
    assert.deepEqual(
      batches.map((batch) => batch.rows),
      [4, 4],
    );
    assert.deepEqual(
      batches.map((batch) => batch.targetCount),
      [8, 6],
    );
    assert.deepEqual([...(batches[1]?.targets ?? [])].slice(-2), [ignoreIndex, ignoreIndex]);
    assert.deepEqual(batches.flatMap(firstTokens).slice(0, 7), [0, 2, 4, 6, 8, 10, 12]);
  });

  test('spreads fewer batches evenly', async () => {
    const batches = await Array.fromAsync(evaluationBatches(dataset, 1, 3));
    assert.deepEqual(batches.flatMap(firstTokens), [0, 4, 8]);
  });
});

describe('Prefetcher', () => {
  const dataset = new PackedDataset(counting([40]), { sequenceLength: 3 });
  const options = { batchSize: 2, seed: 3 };

  test('gives the batches of its source in order, with the state of the last one given out', async () => {
    const plain = new BatchStream(dataset, options);
    await using ahead = new Prefetcher(new BatchStream(dataset, options), 3);
    assert.deepEqual(ahead.state(), plain.state());
    for (let i = 0; i < 20; i++) {
      assert.deepEqual(await ahead.next(), await plain.next());
      assert.deepEqual(ahead.state(), plain.state());
    }
  });

  /** Counts what is asked of a stream, and fails from batch `failAt` on. */
  function observed(failAt: number): { source: BatchSource; asked: () => number } {
    const stream = new BatchStream(dataset, options);
    let asked = 0;
    const source: BatchSource = {
      next: async () => {
        if (asked++ >= failAt) throw new RangeError('broken');
        return stream.next();
      },
      state: () => stream.state(),
    };
    return { source, asked: () => asked };
  }

  test('works ahead by depth and no further', async () => {
    const { source, asked } = observed(Number.POSITIVE_INFINITY);
    const settle = () => new Promise((resolve) => setTimeout(resolve, 5));
    await using ahead = new Prefetcher(source, 3);
    await settle();
    assert.equal(asked(), 3);
    await ahead.next();
    await settle();
    assert.equal(asked(), 4);
  });

  test('throws an error where its batch would have come', async () => {
    const { source } = observed(2);
    await using ahead = new Prefetcher(source, 4);
    await ahead.next();
    await ahead.next();
    const state = ahead.state();
    await assert.rejects(ahead.next(), RangeError);
    await assert.rejects(ahead.next(), RangeError);
    assert.deepEqual(ahead.state(), state);
  });

  test('gives nothing after close, and refuses a depth that makes no sense', async () => {
    const ahead = new Prefetcher(new BatchStream(dataset, options));
    await ahead.close();
    await assert.rejects(ahead.next(), /is closed/);
    assert.throws(() => new Prefetcher(new BatchStream(dataset, options), 0), /depth must be/);
  });
});

describe('rows of a step', () => {
  // 11 rows of 4 tokens: steps of 4 rows leave three of them out of each epoch.
  const dataset = new PackedDataset(counting([45]), { sequenceLength: 4 });

  test('are the same however they are divided into batches, over the ends of epochs too', async () => {
    const rowsBy = async (batchSize: number): Promise<unknown[]> => {
      const stream = new BatchStream(dataset, { batchSize, epochMultiple: 4, seed: 3 });
      assert.equal(stream.batchesPerEpoch, 8 / batchSize);
      const rows: unknown[] = [];
      while (rows.length < 24) rows.push(...firstTokens(await stream.next()));
      return rows;
    };
    const whole = await rowsBy(4);
    assert.deepEqual(await rowsBy(2), whole);
    assert.deepEqual(await rowsBy(1), whole);
    const own = new BatchStream(dataset, { batchSize: 1, seed: 3 });
    assert.equal(own.batchesPerEpoch, 11);
    const shared = new BatchStream(dataset, { batchSize: 1, epochMultiple: 4, seed: 3 });
    assert.throws(() => shared.restore(own.state()), /belongs to other data/);
  });

  test('must be a multiple of the batch that the dataset has', () => {
    for (const epochMultiple of [3, 12]) {
      assert.throws(
        () => new BatchStream(dataset, { batchSize: 2, epochMultiple }),
        /epochMultiple must be a multiple of batchSize, at most the 11 rows/,
      );
    }
  });

  test('can be cut out of a batch', async () => {
    const batch = await new BatchStream(dataset, { batchSize: 4, shuffle: false }).next();
    const parts = splitBatch(batch, 2);
    assert.deepEqual(
      parts.map((part) => [part.rows, part.targetCount, [...part.inputs]]),
      [0, 8].map((from) => [2, 8, [...batch.inputs.subarray(from, from + 8)]]),
    );
    assert.deepEqual([...(parts[1]?.targets ?? [])], [...batch.targets.subarray(8)]);
  });
});
