/**
 * Tokenizers in Hugging Face's `tokenizer.json` format (BPE, Unigram, WordPiece), encoded and decoded
 * by the package @huggingface/tokenizers. This file adds what a model needs around it: which ids begin
 * and end a text, checks with clear errors, and a stable identity.
 */

import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Tokenizer as Engine } from '@huggingface/tokenizers';
import { ArgumentError, FileError } from '../../core/errors.ts';
import { fileErrorFrom, systemCode } from '../../core/file-error.ts';
import type { DecodeOptions, EncodeOptions, Tokenizer } from './tokenizer.ts';

export interface SpecialTokens {
  readonly bos?: string;
  readonly eos?: string;
}

export class HuggingFaceTokenizer implements Tokenizer {
  readonly vocabSize: number;
  readonly bosId: number | undefined;
  readonly eosId: number | undefined;
  readonly #engine: EngineMethods;
  readonly #known: ReadonlySet<number>;
  readonly #id: string;

  /**
   * `json` is the parsed tokenizer.json, `config` the parsed tokenizer_config.json (or {}).
   * Throws ArgumentError when the package cannot use them, or bos or eos is not in the vocabulary.
   */
  constructor(json: object, config: object = {}, special: SpecialTokens = {}) {
    const complete = { ...emptyParts, ...json };
    try {
      this.#engine = new Engine(complete, config);
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new ArgumentError(
        `HuggingFaceTokenizer: the tokenizer cannot be used (got: ${reason}). ` +
          'Use a tokenizer.json that transformers saved.',
      );
    }
    const vocab = this.#engine.get_vocab();
    this.#known = new Set(vocab.values());
    this.vocabSize = 1 + this.#known.values().reduce((most, id) => Math.max(most, id), -1);
    this.bosId = this.#role('bos', special.bos ?? namedToken(config, 'bos_token'));
    this.eosId = this.#role('eos', special.eos ?? namedToken(config, 'eos_token'));
    const identity = JSON.stringify([json, this.bosId ?? null, this.eosId ?? null]);
    this.#id = `hf:${createHash('sha256').update(identity).digest('hex').slice(0, 32)}`;
  }

  encode(text: string, options: EncodeOptions = {}): Int32Array {
    const { ids } = this.#engine.encode(text, { add_special_tokens: options.addSpecial ?? true });
    const bad = ids.findIndex((id) => !Number.isInteger(id));
    if (bad >= 0) {
      throw new ArgumentError(
        `HuggingFaceTokenizer.encode: the vocabulary has no token for a part of the text, and no unknown token ` +
          `(got token ${bad} of ${ids.length}). Use another tokenizer for this text.`,
        { index: bad },
      );
    }
    return Int32Array.from(ids);
  }

  decode(ids: Iterable<number>, options: DecodeOptions = {}): string {
    const list = [...ids];
    for (const id of list) {
      if (this.#known.has(id)) continue;
      throw new ArgumentError(
        `HuggingFaceTokenizer.decode: an id is outside the vocabulary (got ${id}). ` +
          `Use ids below ${this.vocabSize} that the tokenizer has a token for.`,
        { id },
      );
    }
    if (list.length === 0) return '';
    return this.#engine.decode(list, {
      skip_special_tokens: options.skipSpecial ?? true,
      // Rewriting spaces before punctuation would change text that the model did write that way.
      clean_up_tokenization_spaces: false,
    });
  }

  tokenToId(token: string): number | undefined {
    return this.#engine.token_to_id(token);
  }

  id(): string {
    return this.#id;
  }

  #role(role: string, token: string | undefined): number | undefined {
    if (token === undefined) return undefined;
    const id = this.#engine.token_to_id(token);
    if (id !== undefined) return id;
    throw new ArgumentError(
      `HuggingFaceTokenizer: the ${role} token is not in the vocabulary (got '${token}'). ` +
        'Use the tokenizer_config.json that belongs to this tokenizer.json.',
      { role, token },
    );
  }
}

/**
 * Loads `tokenizer.json` from a file or a model's folder, with `tokenizer_config.json` beside it when
 * there is one. Throws FileError when it is missing or not usable.
 */
export async function loadTokenizer(
  path: string,
  special: SpecialTokens = {},
): Promise<HuggingFaceTokenizer> {
  const file = (await isFolder(path)) ? join(path, 'tokenizer.json') : path;
  const json = await readJson(file);
  if (json === undefined) {
    throw new FileError(
      `loadTokenizer: the tokenizer is missing (got ${file}). Name a tokenizer.json or a folder that holds one.`,
      { path: file },
    );
  }
  const config = await readJson(join(dirname(file), 'tokenizer_config.json'));
  try {
    return new HuggingFaceTokenizer(json, config ?? {}, special);
  } catch (cause) {
    if (!(cause instanceof ArgumentError)) throw cause;
    throw new FileError(`loadTokenizer: ${file}: ${cause.message}`, { path: file }, cause);
  }
}

/** What is used of the package, whose own declarations do not resolve under `nodenext`. */
interface EngineMethods {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] };
  decode(
    ids: number[],
    options: { skip_special_tokens: boolean; clean_up_tokenization_spaces: boolean },
  ): string;
  token_to_id(token: string): number | undefined;
  get_vocab(): Map<string, number>;
}

/** The package demands these keys; the format lets them be absent. */
const emptyParts = {
  added_tokens: [],
  decoder: null,
  post_processor: null,
  pre_tokenizer: null,
  normalizer: null,
};

async function isFolder(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (cause) {
    throw fileErrorFrom('loadTokenizer', path, cause);
  }
}

/** The parsed object; undefined when there is no such file. */
async function readJson(path: string): Promise<object | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    if (systemCode(cause) === 'ENOENT') return undefined;
    throw fileErrorFrom('loadTokenizer', path, cause);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new FileError(
      `loadTokenizer: ${path} is not JSON (got: ${cause instanceof Error ? cause.message : cause}). Download it again.`,
      { path },
      cause,
    );
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  throw new FileError(`loadTokenizer: ${path} is no JSON object. Download it again.`, { path });
}

/** A token of tokenizer_config.json: a string, or an object with its content. */
function namedToken(config: object, key: string): string | undefined {
  const value: unknown = Reflect.get(config, key);
  if (typeof value === 'string') return value;
  if (typeof value !== 'object' || value === null || !('content' in value)) return undefined;
  return typeof value.content === 'string' ? value.content : undefined;
}
