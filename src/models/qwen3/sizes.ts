/** Configurations of the published dense Qwen 3 models. */

import type { BuildOptions, CausalLm } from '../decoder/causal-lm.ts';
import type { RawConfig } from '../decoder/config-fields.ts';
import { modelFromConfig } from '../from-config.ts';

const shared = {
  architectures: ['Qwen3ForCausalLM'],
  model_type: 'qwen3',
  hidden_act: 'silu',
  attention_bias: false,
  attention_dropout: 0,
  vocab_size: 151_936,
  head_dim: 128,
  num_key_value_heads: 8,
  max_position_embeddings: 40_960,
  rope_theta: 1_000_000,
  rope_scaling: null,
  rms_norm_eps: 1e-6,
  initializer_range: 0.02,
  use_sliding_window: false,
  tie_word_embeddings: true,
  bos_token_id: 151_643,
  eos_token_id: 151_645,
} as const;

export const qwen3_0_6bConfig: RawConfig = {
  ...shared,
  hidden_size: 1024,
  intermediate_size: 3072,
  num_hidden_layers: 28,
  num_attention_heads: 16,
};

export const qwen3_1_7bConfig: RawConfig = {
  ...shared,
  hidden_size: 2048,
  intermediate_size: 6144,
  num_hidden_layers: 28,
  num_attention_heads: 16,
};

export const qwen3_4bConfig: RawConfig = {
  ...shared,
  hidden_size: 2560,
  intermediate_size: 9728,
  num_hidden_layers: 36,
  num_attention_heads: 32,
};

export const qwen3_8bConfig: RawConfig = {
  ...shared,
  hidden_size: 4096,
  intermediate_size: 12_288,
  num_hidden_layers: 36,
  num_attention_heads: 32,
  tie_word_embeddings: false,
};

/** Qwen 3 0.6B with random weights. */
export function qwen3_0_6b(options: BuildOptions = {}): CausalLm {
  return modelFromConfig(qwen3_0_6bConfig, options);
}

/** Qwen 3 1.7B with random weights. */
export function qwen3_1_7b(options: BuildOptions = {}): CausalLm {
  return modelFromConfig(qwen3_1_7bConfig, options);
}

/** Qwen 3 4B with random weights. */
export function qwen3_4b(options: BuildOptions = {}): CausalLm {
  return modelFromConfig(qwen3_4bConfig, options);
}

/** Qwen 3 8B with random weights. */
export function qwen3_8b(options: BuildOptions = {}): CausalLm {
  return modelFromConfig(qwen3_8bConfig, options);
}
