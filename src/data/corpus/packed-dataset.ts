/**
 * A corpus cut into rows for next-token training. Row i reads tokens i * S to (i + 1) * S of the
 * source, both included: S inputs, and as targets the same shifted by one, so that neighbouring rows
 * share one token and every token but the first is a target exactly once.
 */

import { ArgumentError } from '../../core/errors.ts';
import {
  ignoreIndex,
  paddingSegment,
  type SequenceDataset,
  type SequenceRow,
} from './sequence-dataset.ts';
import { firstAfter, type TokenSource } from './token-source.ts';

export interface PackOptions {
  /** S, the number of inputs in a row. */
  readonly sequenceLength: number;
  /**
   * Keep documents apart (default false): segment and position ids start anew at each document, and
   * the last token of a document has no target, as what follows it is unrelated.
   */
  readonly documentBoundaries?: boolean;
  /** Keep the tokens that do not fill a last row, padded with `padId` (default false: dropped). */
  readonly keepLast?: boolean;
  /** Token for padding; its targets are ignored (default 0). */
  readonly padId?: number;
}

export class PackedDataset implements SequenceDataset {
  readonly length: number;
  readonly sequenceLength: number;
  readonly fingerprint: string;
  readonly #source: TokenSource;
  readonly #boundaries: boolean;
  readonly #padId: number;

  /** Throws ArgumentError when the source does not fill one row. */
  constructor(source: TokenSource, options: PackOptions) {
    const { sequenceLength, documentBoundaries = false, keepLast = false, padId = 0 } = options;
    if (!Number.isInteger(sequenceLength) || sequenceLength < 1) {
      throw new ArgumentError(
        `PackedDataset: sequenceLength must be a positive integer (got ${sequenceLength}). Use what the model takes.`,
        { sequenceLength },
      );
    }
    const rows = (source.length - 1) / sequenceLength;
    this.length = Math.max(0, keepLast ? Math.ceil(rows) : Math.floor(rows));
    if (this.length === 0) {
      throw new ArgumentError(
        `PackedDataset: the corpus does not fill one row (got ${source.length} tokens, ` +
          `${sequenceLength + 1} needed). Use more text or a shorter sequenceLength.`,
        { tokens: source.length, sequenceLength },
      );
    }
    this.sequenceLength = sequenceLength;
    this.fingerprint = `${source.fingerprint}/packed-${sequenceLength}-${documentBoundaries}-${keepLast}-${padId}`;
    this.#source = source;
    this.#boundaries = documentBoundaries;
    this.#padId = padId;
  }

  async fill(index: number, row: SequenceRow): Promise<void> {
    const { inputs, targets } = row;
    const start = index * this.sequenceLength;
    const inputCount = Math.min(this.sequenceLength, this.#source.length - 1 - start);
    const tokens = new Int32Array(inputCount + 1);
    await this.#source.read(start, tokens);
    inputs.fill(this.#padId).set(tokens.subarray(0, inputCount));
    targets.fill(ignoreIndex).set(tokens.subarray(1));
    this.#markDocuments(start, inputCount, row);
  }

  /** Segment and position ids of `count` inputs from `start` on; the rest is padding. */
  #markDocuments(start: number, count: number, row: SequenceRow): void {
    const { targets, segmentIds, positionIds } = row;
    const ends = this.#source.documentEnds;
    let document = this.#boundaries ? firstAfter(ends, start) : ends.length;
    let segment = 0;
    let position = 0;
    for (let i = 0; i < count; i++) {
      segmentIds[i] = segment;
      positionIds[i] = position++;
      if (start + i + 1 !== ends[document]) continue;
      targets[i] = ignoreIndex;
      segment++;
      position = 0;
      // Skips documents without tokens, which end where the one before them does.
      while (ends[document] === start + i + 1) document++;
    }
    segmentIds.fill(paddingSegment, count);
    positionIds.fill(0, count);
  }
}
