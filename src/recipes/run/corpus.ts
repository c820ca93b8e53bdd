/** From the tokenizer and dataset keys of a config to rows for training and for validation. */

import { join } from 'node:path';
import { ConfigError } from '../../core/errors.ts';
import { chatTemplate } from '../../data/corpus/chat-template.ts';
import { readConversations } from '../../data/corpus/conversation.ts';
import { InstructionDataset } from '../../data/corpus/instruction-dataset.ts';
import { PackedDataset } from '../../data/corpus/packed-dataset.ts';
import { permutedIndex } from '../../data/corpus/permutation.ts';
import type { SequenceDataset } from '../../data/corpus/sequence-dataset.ts';
import { splitByBlocks } from '../../data/corpus/split.ts';
import { findTextFiles, readDocuments } from '../../data/corpus/text-files.ts';
import type { TokenSource } from '../../data/corpus/token-source.ts';
import { tokenizeCorpus } from '../../data/corpus/tokenize.ts';
import { ByteTokenizer } from '../../data/tokenizer/byte-tokenizer.ts';
import { loadTokenizer } from '../../data/tokenizer/hugging-face-tokenizer.ts';
import type { Tokenizer } from '../../data/tokenizer/tokenizer.ts';
import type { InstructionConfig, TextConfig, TokenizerConfig } from '../config/data-keys.ts';
import { contradiction } from '../config/load.ts';
import { byteTokenizerFiles } from './byte-tokenizer-files.ts';
import { saveTokenizer } from './run-folder.ts';

export interface RowSplit {
  readonly train: SequenceDataset;
  /** Undefined when nothing was held out. */
  readonly validation: SequenceDataset | undefined;
  /** One line on what was read. */
  readonly summary: string;
  close(): Promise<void>;
}

/** Token runs of both parts of a text corpus. */
export interface TextSplit {
  readonly train: TokenSource;
  readonly validation: TokenSource;
  readonly summary: string;
  close(): Promise<void>;
}

const endToken = '<|end|>';

/** Throws ConfigError when the keys contradict each other. */
export function checkTokenizer(config: TokenizerConfig): void {
  if (config.type === 'byte' && config.path !== undefined) {
    throw contradiction(
      ['tokenizer.type', 'byte'],
      ['tokenizer.path', config.path],
      'The byte tokenizer has no file; remove the path or use type huggingface.',
    );
  }
  if (config.type === 'huggingface' && config.path === undefined) {
    throw new ConfigError(
      'config: tokenizer.path is missing (got type huggingface without it). Give a folder with tokenizer.json.',
      { key: 'tokenizer.path' },
    );
  }
}

/**
 * The tokenizer of a config; its files are put into the run folder. The byte tokenizer ends documents
 * with `<|end|>`, id 256.
 */
export async function openTokenizer(
  config: TokenizerConfig,
  outputDir: string,
): Promise<Tokenizer> {
  const tokenizer = await readTokenizer(config);
  await saveTokenizer(outputDir, config.path ?? byteTokenizerFiles([endToken], endToken));
  return tokenizer;
}

/** The tokenizer of a config, and nothing written. */
export async function readTokenizer(config: TokenizerConfig): Promise<Tokenizer> {
  if (config.path !== undefined) return loadTokenizer(config.path);
  return new ByteTokenizer({ specials: [endToken], eos: endToken });
}

/** Reads and encodes a text corpus and holds out a part of it. */
export async function openText(
  config: TextConfig,
  tokenizer: Tokenizer,
  outputDir: string,
): Promise<TextSplit> {
  const files = await findTextFiles(config.files, {
    extensions: asList(config.extensions),
    exclude: asList(config.exclude),
  });
  const corpus = await tokenizeCorpus(
    () =>
      readDocuments(files, {
        invalid: config.skip_invalid ? 'skip' : 'error',
        ...(config.max_bytes === undefined ? {} : { maxTotalBytes: config.max_bytes }),
      }),
    tokenizer,
    config.cache_tokens ? { cacheFolder: join(outputDir, 'cache') } : {},
  );
  const { train, validation } = splitByBlocks(corpus, config.validation_fraction);
  return {
    train,
    validation,
    summary: `${files.length} files, ${corpus.length} tokens, ${validation.length} of them held out`,
    close: () => corpus.close(),
  };
}

/** A text corpus cut into rows of `sequenceLength` tokens. */
export async function openTextRows(
  config: TextConfig,
  tokenizer: Tokenizer,
  options: { readonly sequenceLength: number; readonly outputDir: string },
): Promise<RowSplit> {
  const split = await openText(config, tokenizer, options.outputDir);
  const pack = { sequenceLength: options.sequenceLength };
  const train = new PackedDataset(split.train, pack);
  const holdsRow = split.validation.length > options.sequenceLength;
  return {
    train,
    validation: holdsRow ? new PackedDataset(split.validation, pack) : undefined,
    summary: `${split.summary}; ${train.length} training rows`,
    close: split.close,
  };
}

/** Conversations as rows, one in each; a part of them, chosen by `seed`, is held out. */
export async function openInstructionRows(
  config: InstructionConfig,
  tokenizer: Tokenizer,
  options: { readonly sequenceLength: number; readonly seed: number },
): Promise<RowSplit> {
  const conversations = await readConversations(config.file);
  const template = chatTemplate(config.template, tokenizer);
  const rows = { ...options, template, trainOnInput: config.train_on_input };
  const held = Math.round(conversations.length * config.validation_fraction);
  const order = conversations.map((_, i) =>
    permutedIndex(i, conversations.length, options.seed, 0),
  );
  const pick = (places: readonly number[]) =>
    places.flatMap((place) => [conversations[place] ?? []]);
  const train = new InstructionDataset(pick(order.slice(held)), tokenizer, rows);
  const validation =
    held > 0 ? new InstructionDataset(pick(order.slice(0, held)), tokenizer, rows) : undefined;
  return {
    train,
    validation,
    summary:
      `${conversations.length} conversations, ${held} of them held out; ` +
      `${train.skipped} too long, ${train.truncated} cut`,
    close: async () => {},
  };
}

function asList(value: string | readonly string[]): readonly string[] {
  return typeof value === 'string' ? [value] : value;
}
