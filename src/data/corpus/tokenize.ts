/**
 * Turns documents into one run of token ids. With a cache folder the result is a file that later runs
 * open instead of encoding again: `tokens-<key>.safetensors`, where the key is a hash of the tokenizer,
 * the options and every text. The file holds `tokens` (I32 [tokens]) and `lengths` (U32 [documents]).
 */

import { createHash } from 'node:crypto';
import { type FileHandle, mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import { FileError, invariant } from '../../core/errors.ts';
import { writeFileAtomic } from '../files/atomic.ts';
import { fileErrorFrom } from '../../core/file-error.ts';
import type { WritableFile } from '../files/file-system.ts';
import { encodeHeader, lengthBytes, type TensorRecord } from '../safetensors/header.ts';
import { openSafetensors } from '../safetensors/reader.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { checkRange, MemoryTokens, type TokenSource } from './token-source.ts';

export interface TokenizeOptions {
  /** Begin each document with the tokenizer's bos token (default: when it has one). */
  readonly bos?: boolean;
  /** End each document with the tokenizer's eos token (default: when it has one). */
  readonly eos?: boolean;
  /** Keep the tokens in a file in this folder (made if missing) instead of in memory. */
  readonly cacheFolder?: string;
  /** Told after each document that was encoded: documents and tokens so far. */
  readonly onProgress?: (documents: number, tokens: number) => void;
}

/** Documents that can be gone through more than once; the cache reads them to compute its key. */
export type DocumentSource = () =>
  | Iterable<{ readonly text: string }>
  | AsyncIterable<{ readonly text: string }>;

/** Tokens of a corpus, and what has to be closed when done. */
export interface TokenizedCorpus extends TokenSource, AsyncDisposable {
  /** Whether an earlier run's file was used. */
  readonly fromCache: boolean;
  close(): Promise<void>;
}

/**
 * Encodes all documents. Throws FileError when there is no text at all, or the cache cannot be
 * written; a damaged cache file is made anew.
 */
export async function tokenizeCorpus(
  documents: DocumentSource,
  tokenizer: Tokenizer,
  options: TokenizeOptions = {},
): Promise<TokenizedCorpus> {
  const { cacheFolder } = options;
  if (cacheFolder === undefined) return tokenizeInMemory(documents, tokenizer, options);
  const key = new CorpusKey(tokenizer, options);
  for await (const { text } of documents()) key.add(text);
  const expected = key.digest();
  const path = join(cacheFolder, `tokens-${expected}.safetensors`);
  const cached = await openCache(path, expected);
  if (cached !== undefined) return cached;
  try {
    await mkdir(cacheFolder, { recursive: true });
  } catch (cause) {
    throw fileErrorFrom(who, cacheFolder, cause);
  }
  await writeFileAtomic(path, (file) => writeCache(file, documents, tokenizer, options, expected), {
    who,
  });
  return FileTokens.open(path, expected, false);
}

const who = 'tokenizeCorpus';

/** Hash of everything that decides the tokens. */
class CorpusKey {
  readonly #hash = createHash('sha256');

  constructor(tokenizer: Tokenizer, options: TokenizeOptions) {
    const frame = frameOf(tokenizer, options);
    this.#hash.update(JSON.stringify([1, tokenizer.id(), frame.bos ?? null, frame.eos ?? null]));
  }

  add(text: string): void {
    const bytes = Buffer.from(text);
    // The length before the bytes keeps "ab", "c" apart from "a", "bc".
    this.#hash.update(`\n${bytes.byteLength}\n`).update(bytes);
  }

  digest(): string {
    return this.#hash.digest('hex').slice(0, 32);
  }
}

function frameOf(
  tokenizer: Tokenizer,
  options: TokenizeOptions,
): { bos: number | undefined; eos: number | undefined } {
  return {
    bos: options.bos === false ? undefined : tokenizer.bosId,
    eos: options.eos === false ? undefined : tokenizer.eosId,
  };
}

/** The tokens of each document in turn, with bos and eos; adds each text to `key`. */
async function* encodeAll(
  documents: DocumentSource,
  tokenizer: Tokenizer,
  options: TokenizeOptions,
  key: CorpusKey,
): AsyncGenerator<Int32Array, void, undefined> {
  const { bos, eos } = frameOf(tokenizer, options);
  let count = 0;
  let total = 0;
  for await (const { text } of documents()) {
    key.add(text);
    const ids = tokenizer.encode(text, { addSpecial: false });
    const before = bos === undefined ? [] : [bos];
    const end = eos === undefined ? [] : [eos];
    const framed = new Int32Array(before.length + ids.length + end.length);
    framed.set(before);
    framed.set(ids, before.length);
    framed.set(end, before.length + ids.length);
    count++;
    total += framed.length;
    yield framed;
    options.onProgress?.(count, total);
  }
  if (total > 0) return;
  throw new FileError(
    `${who}: there is no text to encode (got ${count} documents and no tokens). Check the files of the corpus.`,
    { documents: count },
  );
}

async function tokenizeInMemory(
  documents: DocumentSource,
  tokenizer: Tokenizer,
  options: TokenizeOptions,
): Promise<TokenizedCorpus> {
  const key = new CorpusKey(tokenizer, options);
  const parts: Int32Array[] = [];
  const ends: number[] = [];
  let total = 0;
  for await (const tokens of encodeAll(documents, tokenizer, options, key)) {
    parts.push(tokens);
    total += tokens.length;
    ends.push(total);
  }
  const all = new Int32Array(total);
  parts.forEach((part, i) => {
    all.set(part, (ends[i] ?? 0) - part.length);
  });
  const source = new MemoryTokens(all, Float64Array.from(ends), key.digest());
  const close = async (): Promise<void> => {};
  return Object.assign(source, { fromCache: false, close, [Symbol.asyncDispose]: close });
}

/**
 * Room kept for the header, which can only be written when the number of tokens is known. The format
 * allows spaces after the JSON.
 */
const headerBytes = 1024;

async function writeCache(
  file: WritableFile,
  documents: DocumentSource,
  tokenizer: Tokenizer,
  options: TokenizeOptions,
  expected: string,
): Promise<void> {
  await file.append(new Uint8Array(headerBytes));
  const key = new CorpusKey(tokenizer, options);
  const lengths: number[] = [];
  let total = 0;
  for await (const tokens of encodeAll(documents, tokenizer, options, key)) {
    await file.append(bytesOf(tokens));
    lengths.push(tokens.length);
    total += tokens.length;
  }
  if (key.digest() !== expected) {
    throw new FileError(
      `${who}: the corpus changed while it was encoded (got another hash than at the start). ` +
        'Run again when its files are at rest.',
    );
  }
  await file.append(bytesOf(Uint32Array.from(lengths)));
  const records: TensorRecord[] = [
    { name: 'tokens', stored: 'I32', shape: [total], begin: 0, bytes: total * 4 },
    {
      name: 'lengths',
      stored: 'U32',
      shape: [lengths.length],
      begin: total * 4,
      bytes: lengths.length * 4,
    },
  ];
  const header = encodeHeader(records, { key: expected });
  invariant(header.byteLength <= headerBytes, () => `header of ${header.byteLength} bytes`);
  const padded = new Uint8Array(headerBytes).fill(0x20);
  padded.set(header);
  new DataView(padded.buffer).setBigUint64(0, BigInt(headerBytes - lengthBytes), true);
  await file.writeAt(padded, 0);
}

/** The cached corpus, or undefined when there is none or the file is not what it should be. */
async function openCache(path: string, key: string): Promise<TokenizedCorpus | undefined> {
  try {
    return await FileTokens.open(path, key, true);
  } catch (cause) {
    if (cause instanceof FileError) return undefined;
    throw cause;
  }
}

class FileTokens implements TokenizedCorpus {
  readonly length: number;
  readonly documentEnds: Float64Array;
  readonly fingerprint: string;
  readonly fromCache: boolean;
  readonly #path: string;
  readonly #handle: FileHandle;

  private constructor(
    path: string,
    handle: FileHandle,
    documentEnds: Float64Array,
    fingerprint: string,
    fromCache: boolean,
  ) {
    this.#path = path;
    this.#handle = handle;
    this.length = documentEnds.at(-1) ?? 0;
    this.documentEnds = documentEnds;
    this.fingerprint = fingerprint;
    this.fromCache = fromCache;
  }

  static async open(path: string, key: string, fromCache: boolean): Promise<FileTokens> {
    await using file = await openSafetensors(path);
    const [total = -1] = file.info('tokens').shape;
    const { data } = await file.read('lengths');
    const lengths = new Uint32Array(data.buffer, data.byteOffset, data.byteLength / 4);
    let end = 0;
    const ends = Float64Array.from(lengths, (length) => (end += length));
    if (file.metadata.key !== key || end !== total) {
      throw new FileError(`${who}: ${path} holds another corpus. Remove it.`, { path });
    }
    try {
      return new FileTokens(path, await open(path, 'r'), ends, key, fromCache);
    } catch (cause) {
      throw fileErrorFrom(who, path, cause);
    }
  }

  async read(start: number, target: Int32Array): Promise<void> {
    checkRange(this, start, target.length);
    const bytes = bytesOf(target);
    let done = 0;
    while (done < bytes.byteLength) {
      const position = headerBytes + start * 4 + done;
      const { bytesRead } = await this.#handle.read(bytes, done, bytes.byteLength - done, position);
      if (bytesRead === 0) {
        throw new FileError(
          `${who}: ${this.#path} was truncated while in use (no data at ${position}). Run again.`,
          { path: this.#path },
        );
      }
      done += bytesRead;
    }
  }

  close(): Promise<void> {
    return this.#handle.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function bytesOf(array: Int32Array | Uint32Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
