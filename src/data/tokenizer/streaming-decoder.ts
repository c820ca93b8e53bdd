/**
 * Turns token ids into text one at a time, for printing while a model generates. A character whose
 * bytes are spread over several tokens is held back until it is complete, so what was returned never
 * has to be taken back.
 *
 * The text of one token depends on its neighbours (split characters, leading-space rules), so a token
 * is decoded behind the previous piece, and the difference of the two texts is what is new. An
 * incomplete character shows as exactly one trailing U+FFFD; it is the part that is held back.
 */

import type { DecodeOptions, Tokenizer } from './tokenizer.ts';

export class StreamingDecoder {
  readonly #tokenizer: Tokenizer;
  readonly #options: DecodeOptions;
  /** Ids of the previous piece, for context, followed by those of the piece being built. */
  #ids: number[] = [];
  #contextIds = 0;
  /** Length of the text of #ids that was already returned or is context. */
  #returned = 0;

  constructor(tokenizer: Tokenizer, options: DecodeOptions = {}) {
    this.#tokenizer = tokenizer;
    this.#options = options;
  }

  /** Text that became complete with `id`; often '' in the middle of a character. */
  push(id: number): string {
    this.#ids.push(id);
    const text = this.#tokenizer.decode(this.#ids, this.#options);
    const pending = this.#ids.length - this.#contextIds;
    const complete = !text.endsWith(replacement) || pending > maxPending;
    const end = complete ? text.length : text.length - 1;
    const piece = text.slice(this.#returned, end);
    this.#returned = Math.max(this.#returned, end);
    if (complete) this.#advance();
    return piece;
  }

  /** What is still held back: at most one U+FFFD for a character that never became complete. */
  finish(): string {
    const text = this.#tokenizer.decode(this.#ids, this.#options);
    const piece = text.slice(this.#returned);
    this.#ids = [];
    this.#contextIds = 0;
    this.#returned = 0;
    return piece;
  }

  #advance(): void {
    this.#ids = this.#ids.slice(this.#contextIds);
    this.#contextIds = this.#ids.length;
    this.#returned = this.#tokenizer.decode(this.#ids, this.#options).length;
  }
}

const replacement = '\ufffd';

/** A run of broken bytes is let go after this many tokens, so that the work per token is bounded. */
const maxPending = 64;
