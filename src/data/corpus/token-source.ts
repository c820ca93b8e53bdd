/**
 * A long run of token ids made of documents, in memory or in a file, and parts of one. Reading is
 * asynchronous and by position, so a corpus need not fit into memory.
 */

import { invariant } from '../../core/errors.ts';

export interface TokenSource {
  readonly length: number;
  /** For each document the position after its last token; ascending, the last one equals `length`. */
  readonly documentEnds: Float64Array;
  /** A string that changes whenever any token or document boundary does. */
  readonly fingerprint: string;
  /** Fills `target` with the tokens from position `start` on; all of them must exist. */
  read(start: number, target: Int32Array): Promise<void>;
}

/** Positions from `start` (inclusive) to `end` (exclusive). */
export interface TokenRange {
  readonly start: number;
  readonly end: number;
}

export class MemoryTokens implements TokenSource {
  readonly documentEnds: Float64Array;
  readonly fingerprint: string;
  readonly #tokens: Int32Array;

  constructor(tokens: Int32Array, documentEnds: Float64Array, fingerprint: string) {
    invariant(
      (documentEnds.at(-1) ?? 0) === tokens.length,
      () => 'documents do not cover the tokens',
    );
    this.#tokens = tokens;
    this.documentEnds = documentEnds;
    this.fingerprint = fingerprint;
  }

  get length(): number {
    return this.#tokens.length;
  }

  async read(start: number, target: Int32Array): Promise<void> {
    checkRange(this, start, target.length);
    target.set(this.#tokens.subarray(start, start + target.length));
  }
}

/** Parts of a source, one after the other, as a source of its own. */
export class SelectedTokens implements TokenSource {
  readonly length: number;
  readonly documentEnds: Float64Array;
  readonly fingerprint: string;
  readonly #source: TokenSource;
  readonly #ranges: readonly TokenRange[];
  /** Where each range begins in this source. */
  readonly #starts: Float64Array;

  /** `ranges` must not be empty ones, and must ascend without overlap. */
  constructor(source: TokenSource, ranges: readonly TokenRange[], label: string) {
    this.#source = source;
    this.#ranges = ranges;
    this.#starts = new Float64Array(ranges.length);
    const ends: number[] = [];
    let length = 0;
    for (const [i, { start, end }] of ranges.entries()) {
      this.#starts[i] = length;
      // A document that a range cuts ends, here, where the range does.
      for (let d = firstAfter(source.documentEnds, start); d < source.documentEnds.length; d++) {
        const documentEnd = source.documentEnds[d] ?? 0;
        ends.push(length + Math.min(documentEnd, end) - start);
        if (documentEnd >= end) break;
      }
      length += end - start;
    }
    this.length = length;
    this.documentEnds = Float64Array.from(ends);
    this.fingerprint = `${source.fingerprint}/${label}`;
  }

  async read(start: number, target: Int32Array): Promise<void> {
    checkRange(this, start, target.length);
    let done = 0;
    let i = firstAfter(this.#starts, start) - 1;
    while (done < target.length) {
      const range = this.#ranges[i] ?? { start: 0, end: 0 };
      const from = range.start + start + done - (this.#starts[i] ?? 0);
      const count = Math.min(range.end - from, target.length - done);
      await this.#source.read(from, target.subarray(done, done + count));
      done += count;
      i++;
    }
  }
}

/** All tokens of a source at once. */
export async function readAllTokens(source: TokenSource): Promise<Int32Array> {
  const tokens = new Int32Array(source.length);
  await source.read(0, tokens);
  return tokens;
}

/** Index of the first of the ascending `values` that is greater than `value` (binary search). */
export function firstAfter(values: Float64Array, value: number): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((values[middle] ?? 0) > value) high = middle;
    else low = middle + 1;
  }
  return low;
}

export function checkRange(
  source: { readonly length: number },
  start: number,
  count: number,
): void {
  invariant(
    start >= 0 && start + count <= source.length,
    () => `tokens ${start} to ${start + count} of ${source.length} were asked for`,
  );
}
