/** A small Llama over bytes, for examples and for training from scratch without a tokenizer. */

import { ArgumentError } from '../core/errors.ts';
import type { BuildOptions, CausalLm } from './decoder/causal-lm.ts';
import { modelFromConfig } from './from-config.ts';

export interface ByteLlamaOptions extends BuildOptions {
  readonly hidden: number;
  readonly layers: number;
  /** Default one head per 64 of hidden, at least 1. */
  readonly heads?: number;
  /** Default heads. */
  readonly kvHeads?: number;
  /** Width of the feed-forward part; default 8/3 of hidden, rounded up to a multiple of 32. */
  readonly intermediate?: number;
  /** Bytes and what special tokens the tokenizer adds. Default 256. */
  readonly vocabSize?: number;
  /** Default 2048. */
  readonly maxPositions?: number;
  /** Whether the output projection is the embedding. Default true. */
  readonly tiedEmbeddings?: boolean;
}

/** Builds one with random weights. Throws ArgumentError when the heads do not divide `hidden`. */
export function byteLlama(options: ByteLlamaOptions): CausalLm {
  const { hidden, layers, heads = Math.max(1, Math.floor(hidden / 64)) } = options;
  if (hidden % heads !== 0) {
    throw new ArgumentError(
      `byteLlama: the heads must divide hidden (got ${heads} heads, hidden ${hidden}). Change one of them.`,
      { hidden, heads },
    );
  }
  const { generator, dtype } = options;
  const config = {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    vocab_size: options.vocabSize ?? 256,
    hidden_size: hidden,
    intermediate_size: options.intermediate ?? 32 * Math.ceil((8 * hidden) / 3 / 32),
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: options.kvHeads ?? heads,
    head_dim: hidden / heads,
    hidden_act: 'silu',
    max_position_embeddings: options.maxPositions ?? 2048,
    rms_norm_eps: 1e-5,
    rope_theta: 10_000,
    rope_scaling: null,
    tie_word_embeddings: options.tiedEmbeddings ?? true,
    initializer_range: 0.02,
    attention_bias: false,
    mlp_bias: false,
  };
  return modelFromConfig(config, { ...(generator && { generator }), ...(dtype && { dtype }) });
}
