/**
 * What a training loop draws batches from: a known number of rows of equal length. Shapes:
 * S = sequenceLength, B = rows of a batch.
 */

/** Targets with this value do not count in the loss (torch.nn.functional.cross_entropy). */
export const ignoreIndex = -100;

/** Segment id of padding. */
export const paddingSegment = -1;

/** One row to fill, all of length S. */
export interface SequenceRow {
  readonly inputs: Int32Array;
  /** The token that follows each input, or ignoreIndex. */
  readonly targets: Int32Array;
  /** Which document of the row a token belongs to, from 0; paddingSegment for padding. */
  readonly segmentIds: Int32Array;
  /** Place of a token in its document, from 0. */
  readonly positionIds: Int32Array;
}

export interface SequenceDataset {
  /** Number of rows. */
  readonly length: number;
  readonly sequenceLength: number;
  /** A string that changes whenever a row does; a resumed run compares it. */
  readonly fingerprint: string;
  /** Fills row number `index`, every element of it. */
  fill(index: number, row: SequenceRow): Promise<void>;
}

/** A row of `sequenceLength` elements that is all padding with token `padId`. */
export function emptyRow(sequenceLength: number, padId = 0): SequenceRow {
  return {
    inputs: new Int32Array(sequenceLength).fill(padId),
    targets: new Int32Array(sequenceLength).fill(ignoreIndex),
    segmentIds: new Int32Array(sequenceLength).fill(paddingSegment),
    positionIds: new Int32Array(sequenceLength),
  };
}
