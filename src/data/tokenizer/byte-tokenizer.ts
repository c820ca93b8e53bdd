/** The tokenizer with nothing to learn: ids 0 to 255 are the bytes of UTF-8, special tokens follow. */

import { ArgumentError } from '../../core/errors.ts';
import type { DecodeOptions, EncodeOptions, Tokenizer } from './tokenizer.ts';

export interface ByteTokenizerOptions {
  /** Special tokens; they get the ids 256, 257, ... in this order. */
  readonly specials?: readonly string[];
  /** Which special token begins every encoded text (default: none). */
  readonly bos?: string;
  /** Which special token ends a document (default: none). */
  readonly eos?: string;
}

export class ByteTokenizer implements Tokenizer {
  readonly vocabSize: number;
  readonly bosId: number | undefined;
  readonly eosId: number | undefined;
  readonly #specials: readonly string[];
  readonly #splitter: RegExp | undefined;

  /** Throws ArgumentError for empty or repeated specials, and for a bos or eos that is not among them. */
  constructor(options: ByteTokenizerOptions = {}) {
    const specials = [...(options.specials ?? [])];
    if (specials.includes('') || new Set(specials).size !== specials.length) {
      throw new ArgumentError(
        `ByteTokenizer: special tokens must be distinct and not empty (got ${JSON.stringify(specials)}). Rename them.`,
        { specials },
      );
    }
    this.#specials = specials;
    this.vocabSize = 256 + specials.length;
    this.bosId = this.#role('bos', options.bos);
    this.eosId = this.#role('eos', options.eos);
    // Longest first, so that a token that begins with another one is found whole.
    const byLength = [...specials].sort((a, b) => b.length - a.length);
    const pattern = byLength.map((token) => RegExp.escape(token)).join('|');
    this.#splitter = specials.length > 0 ? new RegExp(`(${pattern})`) : undefined;
  }

  encode(text: string, options: EncodeOptions = {}): Int32Array {
    const bos = options.addSpecial === false ? undefined : this.bosId;
    // Split on a capturing group: specials stand at the odd places.
    const pieces = this.#splitter === undefined ? [text] : text.split(this.#splitter);
    const parts = pieces.map((piece, i) =>
      i % 2 === 0 ? Buffer.from(piece, 'utf8') : [256 + this.#specials.indexOf(piece)],
    );
    const length = parts.reduce((sum, part) => sum + part.length, bos === undefined ? 0 : 1);
    const ids = new Int32Array(length);
    let at = 0;
    if (bos !== undefined) ids[at++] = bos;
    for (const part of parts) {
      ids.set(part, at);
      at += part.length;
    }
    return ids;
  }

  decode(ids: Iterable<number>, options: DecodeOptions = {}): string {
    const skip = options.skipSpecial ?? true;
    let text = '';
    let bytes: number[] = [];
    const flush = (): void => {
      // The byte order mark is text here: decoding must give back what was encoded.
      const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
      if (bytes.length > 0) text += decoder.decode(Uint8Array.from(bytes));
      bytes = [];
    };
    for (const id of ids) {
      if (!Number.isInteger(id) || id < 0 || id >= this.vocabSize) {
        throw new ArgumentError(
          `ByteTokenizer.decode: an id is outside the vocabulary (got ${id}). Use ids from 0 to ${this.vocabSize - 1}.`,
          { id },
        );
      }
      if (id < 256) bytes.push(id);
      else if (!skip) {
        flush();
        text += this.#specials[id - 256] ?? '';
      }
    }
    flush();
    return text;
  }

  tokenToId(token: string): number | undefined {
    const special = this.#specials.indexOf(token);
    if (special >= 0) return 256 + special;
    return token.length === 1 && token < '\x80' ? token.charCodeAt(0) : undefined;
  }

  id(): string {
    return `byte${JSON.stringify([this.#specials, this.bosId ?? null, this.eosId ?? null])}`;
  }

  #role(role: string, token: string | undefined): number | undefined {
    if (token === undefined) return undefined;
    const index = this.#specials.indexOf(token);
    if (index >= 0) return 256 + index;
    throw new ArgumentError(
      `ByteTokenizer: ${role} is not one of the special tokens (got '${token}', specials ` +
        `${JSON.stringify(this.#specials)}). Add it to specials.`,
      { role, token },
    );
  }
}
