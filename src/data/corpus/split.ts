/**
 * Splitting a corpus into a training and a validation part, the same way on every run. By blocks: for
 * a few long documents; by document: for many, and such that a document keeps its side when others
 * are added, and equal documents are on the same side.
 */

import { createHash } from 'node:crypto';
import { ArgumentError } from '../../core/errors.ts';
import { SelectedTokens, type TokenRange, type TokenSource } from './token-source.ts';

export interface Split {
  readonly train: TokenSource;
  readonly validation: TokenSource;
}

/**
 * Divides the tokens into `blocks` contiguous blocks of equal length and takes the end of each for
 * validation, `fraction` of it. More blocks sample the corpus more evenly but cut more documents.
 */
export function splitByBlocks(source: TokenSource, fraction: number, blocks = 16): Split {
  checkFraction('splitByBlocks', fraction);
  if (!Number.isInteger(blocks) || blocks < 1) {
    throw new ArgumentError(
      `splitByBlocks: blocks must be a positive integer (got ${blocks}). Use 16 or so.`,
      { blocks },
    );
  }
  const train: TokenRange[] = [];
  const validation: TokenRange[] = [];
  for (let b = 0; b < blocks; b++) {
    const start = Math.floor((source.length * b) / blocks);
    const end = Math.floor((source.length * (b + 1)) / blocks);
    const cut = end - Math.round((end - start) * fraction);
    if (cut > start) train.push({ start, end: cut });
    if (end > cut) validation.push({ start: cut, end });
  }
  return sides(source, train, validation, `blocks-${blocks}-${fraction}`);
}

/** Sends each document to validation with probability `fraction`, by a hash of its tokens and `seed`. */
export async function splitByDocument(
  source: TokenSource,
  fraction: number,
  seed = 0,
): Promise<Split> {
  checkFraction('splitByDocument', fraction);
  const train: TokenRange[] = [];
  const validation: TokenRange[] = [];
  const chunk = new Int32Array(1 << 16);
  let start = 0;
  for (const end of source.documentEnds) {
    const hash = createHash('sha256').update(`${seed}:`);
    for (let at = start; at < end; at += chunk.length) {
      const part = chunk.subarray(0, Math.min(chunk.length, end - at));
      await source.read(at, part);
      hash.update(new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
    }
    const isValidation = hash.digest().readUIntBE(0, 6) / 2 ** 48 < fraction;
    appendRange(isValidation ? validation : train, { start, end });
    start = end;
  }
  return sides(source, train, validation, `documents-${seed}-${fraction}`);
}

function sides(
  source: TokenSource,
  train: readonly TokenRange[],
  validation: readonly TokenRange[],
  label: string,
): Split {
  return {
    train: new SelectedTokens(source, train, `train-${label}`),
    validation: new SelectedTokens(source, validation, `validation-${label}`),
  };
}

function appendRange(ranges: TokenRange[], range: TokenRange): void {
  const last = ranges.at(-1);
  if (range.end === range.start) return;
  if (last !== undefined && last.end === range.start) {
    ranges[ranges.length - 1] = { start: last.start, end: range.end };
  } else {
    ranges.push(range);
  }
}

function checkFraction(who: string, fraction: number): void {
  if (fraction >= 0 && fraction < 1) return;
  throw new ArgumentError(
    `${who}: the validation fraction must be at least 0 and below 1 (got ${fraction}). Use 0.05 or so.`,
    { fraction },
  );
}
