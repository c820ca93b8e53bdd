/**
 * An endless stream of batches over a dataset: each epoch visits every row at most once, in an order
 * that depends only on the seed and the epoch's number. Rows that do not fill a last batch are left out
 * of that epoch, so that all batches have one shape. The state is two numbers: a stream that is
 * restored to a state continues with exactly the batches that would have followed.
 */

import { ArgumentError } from '../../core/errors.ts';
import { permutedIndex } from './permutation.ts';
import {
  emptyRow,
  ignoreIndex,
  type SequenceDataset,
  type SequenceRow,
} from './sequence-dataset.ts';

/** B rows of S tokens; every array has B * S elements, row-major. */
export interface Batch extends SequenceRow {
  /** B. */
  readonly rows: number;
  /** S. */
  readonly sequenceLength: number;
  /** Targets that count in the loss. */
  readonly targetCount: number;
}

/** Where a stream stands; JSON. */
export interface BatchState {
  readonly epoch: number;
  /** Rows of this epoch already given out. */
  readonly position: number;
  /** What the state belongs to: dataset, batch size and order. */
  readonly fingerprint: string;
}

export interface BatchSource {
  next(): Promise<Batch>;
  /** The state from which the batch after the last one given out follows. */
  state(): BatchState;
}

export interface BatchOptions {
  /** B. */
  readonly batchSize: number;
  /**
   * An epoch gives as many rows as a multiple of this, itself a multiple of the batch size (the default). Streams
   * that share it give the same rows in the same order, however they are divided into batches.
   */
  readonly epochMultiple?: number;
  /** Mix the rows anew in each epoch (default true). */
  readonly shuffle?: boolean;
  /** Chooses the orders (default 0). */
  readonly seed?: number;
}

export class BatchStream implements BatchSource {
  readonly #dataset: SequenceDataset;
  readonly #batchSize: number;
  readonly #shuffle: boolean;
  readonly #seed: number;
  readonly #epochRows: number;
  readonly #fingerprint: string;
  #epoch = 0;
  #position = 0;

  /** Throws ArgumentError when the dataset does not fill one batch. */
  constructor(dataset: SequenceDataset, options: BatchOptions) {
    const { batchSize, shuffle = true, seed = 0 } = options;
    const multiple = options.epochMultiple ?? batchSize;
    if (!Number.isInteger(batchSize) || batchSize < 1 || batchSize > dataset.length) {
      throw new ArgumentError(
        `BatchStream: batchSize must be an integer from 1 to the ${dataset.length} rows of the dataset ` +
          `(got ${batchSize}). Use a smaller batch, shorter sequences or more text.`,
        { batchSize, rows: dataset.length },
      );
    }
    if (!Number.isInteger(multiple / batchSize) || multiple > dataset.length) {
      throw new ArgumentError(
        `BatchStream: epochMultiple must be a multiple of batchSize, at most the ${dataset.length} rows of the dataset ` +
          `(got ${multiple} for ${batchSize}). Use fewer rows in a step, shorter sequences or more text.`,
        { epochMultiple: multiple, batchSize, rows: dataset.length },
      );
    }
    this.#dataset = dataset;
    this.#batchSize = batchSize;
    this.#epochRows = Math.floor(dataset.length / multiple) * multiple;
    this.#shuffle = shuffle;
    this.#seed = seed;
    const order = shuffle ? `seed-${seed}` : 'in-order';
    const rows = multiple === batchSize ? batchSize : `${batchSize}-of-${multiple}`;
    this.#fingerprint = `${dataset.fingerprint}/batch-${rows}-${order}`;
  }

  /** Batches in one epoch. */
  get batchesPerEpoch(): number {
    return this.#epochRows / this.#batchSize;
  }

  async next(): Promise<Batch> {
    if (this.#position + this.#batchSize > this.#epochRows) {
      this.#epoch++;
      this.#position = 0;
    }
    const rows = Array.from({ length: this.#batchSize }, (_, i) => this.#rowAt(this.#position + i));
    // Before the first await, so that calls that overlap get batches of their own.
    this.#position += this.#batchSize;
    return readBatch(this.#dataset, rows);
  }

  state(): BatchState {
    return { epoch: this.#epoch, position: this.#position, fingerprint: this.#fingerprint };
  }

  /** Continues from `state`. Throws ArgumentError when it belongs to other data or another order. */
  restore(state: BatchState): void {
    if (state.fingerprint !== this.#fingerprint) {
      throw new ArgumentError(
        `BatchStream.restore: the state belongs to other data, batch size or seed (got ${state.fingerprint}, ` +
          `expected ${this.#fingerprint}). Resume with the corpus and settings the run began with.`,
        { got: state.fingerprint, expected: this.#fingerprint },
      );
    }
    const { epoch, position } = state;
    const legal =
      Number.isInteger(epoch) && epoch >= 0 && position >= 0 && position <= this.#epochRows;
    if (!legal || position % this.#batchSize !== 0) {
      throw new ArgumentError(
        `BatchStream.restore: no stream can be in this state (got epoch ${epoch}, position ${position}). ` +
          'Use a state that state() returned.',
        { epoch, position },
      );
    }
    this.#epoch = epoch;
    this.#position = position;
  }

  #rowAt(place: number): number {
    if (!this.#shuffle) return place;
    return permutedIndex(place, this.#dataset.length, this.#seed, this.#epoch);
  }
}

/** The batch made of these rows of a dataset. */
export async function readBatch(dataset: SequenceDataset, rows: readonly number[]): Promise<Batch> {
  const { sequenceLength } = dataset;
  const all = emptyRow(rows.length * sequenceLength);
  await Promise.all(
    rows.map((row, i) => {
      const from = i * sequenceLength;
      const to = from + sequenceLength;
      return dataset.fill(row, {
        inputs: all.inputs.subarray(from, to),
        targets: all.targets.subarray(from, to),
        segmentIds: all.segmentIds.subarray(from, to),
        positionIds: all.positionIds.subarray(from, to),
      });
    }),
  );
  const targetCount = countTargets(all.targets);
  return { ...all, rows: rows.length, sequenceLength, targetCount };
}

/** The rows of a batch in batches of `rows` rows, which must divide it. They share its memory. */
export function splitBatch(batch: Batch, rows: number): Batch[] {
  const { sequenceLength } = batch;
  return Array.from({ length: batch.rows / rows }, (_, i) => {
    const [from, to] = [i * rows * sequenceLength, (i + 1) * rows * sequenceLength];
    const targets = batch.targets.subarray(from, to);
    return {
      rows,
      sequenceLength,
      inputs: batch.inputs.subarray(from, to),
      targets,
      segmentIds: batch.segmentIds.subarray(from, to),
      positionIds: batch.positionIds.subarray(from, to),
      targetCount: countTargets(targets),
    };
  });
}

/**
 * All rows once, in order, for evaluation. The last batch is filled up with rows whose targets are all
 * ignored, so that it has the same shape. `maxBatches` takes that many, evenly spread over the rows.
 */
export async function* evaluationBatches(
  dataset: SequenceDataset,
  batchSize: number,
  maxBatches = Number.POSITIVE_INFINITY,
): AsyncGenerator<Batch, void, undefined> {
  const total = Math.ceil(dataset.length / batchSize);
  const count = Math.min(total, Math.max(1, Math.floor(maxBatches)));
  for (let b = 0; b < count; b++) {
    const first = Math.floor((b * total) / count) * batchSize;
    const rows = Math.min(batchSize, dataset.length - first);
    const batch = await readBatch(
      dataset,
      Array.from({ length: rows }, (_, i) => first + i),
    );
    yield rows === batchSize ? batch : padRows(batch, batchSize);
  }
}

function countTargets(targets: Int32Array): number {
  let count = 0;
  for (const target of targets) if (target !== ignoreIndex) count++;
  return count;
}

function padRows(batch: Batch, rows: number): Batch {
  const all = emptyRow(rows * batch.sequenceLength);
  all.inputs.set(batch.inputs);
  all.targets.set(batch.targets);
  all.segmentIds.set(batch.segmentIds);
  all.positionIds.set(batch.positionIds);
  return { ...batch, ...all, rows };
}
