/** Config keys that describe a model to train from scratch: a named size, a config.json, or its fields. */

import { readFile } from 'node:fs/promises';
import * as v from 'valibot';
import { ConfigError, FileError } from '../../core/errors.ts';
import type { Tokenizer } from '../../data/tokenizer/tokenizer.ts';
import type { RawConfig } from '../../models/decoder/config-fields.ts';
import { count, flag, key, oneOf, positive, text } from './key.ts';
import { contradiction, isPlainObject } from './load.ts';

const architectures = {
  llama: 'LlamaForCausalLM',
  mistral: 'MistralForCausalLM',
  qwen2: 'Qwen2ForCausalLM',
  qwen3: 'Qwen3ForCausalLM',
} as const;

export const modelSchema = v.strictObject({
  config_file: v.optional(
    key(text, 'A Hugging Face config.json with the shape of the model, instead of the keys below.'),
  ),
  architecture: v.optional(
    key(oneOf(['llama', 'mistral', 'qwen2', 'qwen3']), 'The family. Default llama.'),
  ),
  hidden_size: v.optional(key(count, 'Width of the hidden state.')),
  intermediate_size: v.optional(key(count, 'Width inside each MLP. Default 8/3 of hidden_size.')),
  num_hidden_layers: v.optional(key(count, 'Number of transformer layers.')),
  num_attention_heads: v.optional(key(count, 'Number of query heads.')),
  num_key_value_heads: v.optional(
    key(count, 'Number of key and value heads. Default: as many as query heads.'),
  ),
  head_dim: v.optional(key(count, 'Width of one head. Default hidden_size / num_attention_heads.')),
  max_position_embeddings: v.optional(
    key(count, 'Longest sequence the model is made for. Default sequence_length.'),
  ),
  tie_word_embeddings: v.optional(
    key(flag, 'Whether embedding and output projection share their weights. Default false.'),
  ),
  rope_theta: v.optional(key(positive, 'Base of the rotary frequencies. Default 10000.')),
  rms_norm_eps: v.optional(key(positive, 'Added under the root of the norms. Default 1e-6.')),
  sliding_window: v.optional(key(count, 'Mistral: tokens that attention looks back.')),
  initializer_range: v.optional(
    key(positive, 'Standard deviation of the initial weights. Default 0.02.'),
  ),
});

export type ModelConfig = v.InferOutput<typeof modelSchema>;

/** Throws ConfigError for keys that contradict each other, or the length of rows, or are missing. */
export function checkModel(config: ModelConfig, sequenceLength: number): void {
  const { config_file, ...fields } = config;
  const [first] = Object.entries(fields).filter(([, value]) => value !== undefined);
  if (config_file !== undefined) {
    if (first === undefined) return;
    throw contradiction(
      ['model.config_file', config_file],
      [`model.${first[0]}`, first[1]],
      'The file says it all; keep the file or the keys.',
    );
  }
  for (const name of ['hidden_size', 'num_hidden_layers', 'num_attention_heads'] as const) {
    if (fields[name] !== undefined) continue;
    throw new ConfigError(
      `config: model.${name} is missing (got neither it nor model.config_file). Give one of them.`,
      { key: `model.${name}` },
    );
  }
  const { architecture = 'llama', sliding_window, max_position_embeddings: positions } = fields;
  if (positions !== undefined && positions < sequenceLength) {
    throw contradiction(
      ['sequence_length', sequenceLength],
      ['model.max_position_embeddings', positions],
      'Use rows that the model has positions for.',
    );
  }
  if (sliding_window !== undefined && architecture !== 'mistral') {
    throw contradiction(
      ['model.architecture', architecture],
      ['model.sliding_window', sliding_window],
      'Only mistral has a sliding window here.',
    );
  }
}

/** The config.json of a model with these keys, for this tokenizer and rows of `sequenceLength` tokens. */
export async function hubConfig(
  config: ModelConfig,
  { vocabSize, eosId }: Pick<Tokenizer, 'vocabSize' | 'eosId'>,
  sequenceLength: number,
): Promise<RawConfig> {
  const { config_file, architecture = 'llama', ...fields } = config;
  if (config_file !== undefined) return readHubConfig(config_file, vocabSize);
  const given = Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== undefined),
  );
  const hidden = fields.hidden_size ?? 0;
  return {
    architectures: [architectures[architecture]],
    model_type: architecture,
    hidden_act: 'silu',
    intermediate_size: 64 * Math.ceil((hidden * 8) / 3 / 64),
    num_key_value_heads: fields.num_attention_heads,
    max_position_embeddings: sequenceLength,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    initializer_range: 0.02,
    tie_word_embeddings: false,
    ...(architecture === 'mistral' && { sliding_window: null }),
    ...given,
    vocab_size: vocabSize,
    bos_token_id: null,
    eos_token_id: eosId ?? null,
  };
}

async function readHubConfig(path: string, vocabSize: number): Promise<RawConfig> {
  let raw: unknown;
  try {
    raw = JSON.parse(await readFile(path, 'utf8'));
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new FileError(
      `model.config_file: ${path} cannot be used (got: ${reason}). Name a Hugging Face config.json.`,
      { path },
      cause,
    );
  }
  if (!isPlainObject(raw)) {
    throw new FileError(`model.config_file: ${path} holds no object. Name a config.json.`, {
      path,
    });
  }
  if (typeof raw.vocab_size === 'number' && raw.vocab_size < vocabSize) {
    throw contradiction(
      [`${path}: vocab_size`, raw.vocab_size],
      ['the size of the tokenizer', vocabSize],
      'The model needs an embedding for every token.',
    );
  }
  return raw;
}
