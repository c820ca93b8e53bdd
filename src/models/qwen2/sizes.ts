/** Configurations of the published Qwen 2.5 base models. */

import type { BuildOptions, CausalLm } from '../decoder/causal-lm.ts';
import type { RawConfig } from '../decoder/config-fields.ts';
import { modelFromConfig } from '../from-config.ts';

const shared = {
  architectures: ['Qwen2ForCausalLM'],
  model_type: 'qwen2',
  hidden_act: 'silu',
  attention_dropout: 0,
  vocab_size: 151_936,
  max_position_embeddings: 32_768,
  rope_theta: 1_000_000,
  rms_norm_eps: 1e-6,
  initializer_range: 0.02,
  use_sliding_window: false,
  tie_word_embeddings: true,
  bos_token_id: 151_643,
  eos_token_id: 151_643,
} as const;

export const qwen2_5_0_5bConfig: RawConfig = {
  ...shared,
  hidden_size: 896,
  intermediate_size: 4864,
  num_hidden_layers: 24,
  num_attention_heads: 14,
  num_key_value_heads: 2,
};

export const qwen2_5_1_5bConfig: RawConfig = {
  ...shared,
  hidden_size: 1536,
  intermediate_size: 8960,
  num_hidden_layers: 28,
  num_attention_heads: 12,
  num_key_value_heads: 2,
  max_position_embeddings: 131_072,
};

export const qwen2_5_3bConfig: RawConfig = {
  ...shared,
  hidden_size: 2048,
  intermediate_size: 11_008,
  num_hidden_layers: 36,
  num_attention_heads: 16,
  num_key_value_heads: 2,
};

export const qwen2_5_7bConfig: RawConfig = {
  ...shared,
  vocab_size: 152_064,
  hidden_size: 3584,
  intermediate_size: 18_944,
  num_hidden_layers: 28,
  num_attention_heads: 28,
  num_key_value_heads: 4,
  max_position_embeddings: 131_072,
  tie_word_embeddings: false,
};

/** Qwen 2.5 0.5B with random weights. */
export function qwen2_5_0_5b(options: BuildOptions = {}): CausalLm {
  return modelFromConfig(qwen2_5_0_5bConfig, options);
}

/** Qwen 2.5 1.5B with random weights. */
export function qwen2_5_1_5b(options: BuildOptions = {}): CausalLm {
  return modelFromConfig(qwen2_5_1_5bConfig, options);
}

/** Qwen 2.5 3B with random weights. */
export function qwen2_5_3b(options: BuildOptions = {}): CausalLm {
  return modelFromConfig(qwen2_5_3bConfig, options);
}

/** Qwen 2.5 7B with random weights. */
export function qwen2_5_7b(options: BuildOptions = {}): CausalLm {
  return modelFromConfig(qwen2_5_7bConfig, options);
}
