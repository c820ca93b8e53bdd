/** What every tokenizer can do. Token ids are integers from 0 to vocabSize - 1. */

export interface EncodeOptions {
  /**
   * Add the tokens that the tokenizer puts around a text, such as a beginning-of-sequence token
   * (default true, as in transformers).
   */
  readonly addSpecial?: boolean;
}

export interface DecodeOptions {
  /** Leave special tokens out of the text (default true). */
  readonly skipSpecial?: boolean;
}

export interface Tokenizer {
  /** One more than the largest id. */
  readonly vocabSize: number;
  readonly bosId: number | undefined;
  readonly eosId: number | undefined;
  /** Special tokens written out in `text` become their ids. */
  encode(text: string, options?: EncodeOptions): Int32Array;
  /** Bytes that are no UTF-8 become U+FFFD. Throws ArgumentError for an id outside the vocabulary. */
  decode(ids: Iterable<number>, options?: DecodeOptions): string;
  /** The id of a whole token, special ones included; undefined when there is none. */
  tokenToId(token: string): number | undefined;
  /** A string that two tokenizers share only if they encode alike; keys caches of encoded text. */
  id(): string;
}
