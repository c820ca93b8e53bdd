/** Configurations of the published Llama models. */

import type { BuildOptions, CausalLm } from '../decoder/causal-lm.ts';
import type { RawConfig } from '../decoder/config-fields.ts';
import { modelFromConfig } from '../from-config.ts';

const shared = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_act: 'silu',
  attention_bias: false,
  attention_dropout: 0,
  mlp_bias: false,
  initializer_range: 0.02,
  rms_norm_eps: 1e-5,
  num_key_value_heads: 8,
} as const;

const llama3 = {
  ...shared,
  vocab_size: 128_256,
  max_position_embeddings: 131_072,
  rope_theta: 500_000,
  bos_token_id: 128_000,
  eos_token_id: 128_001,
} as const;

function llama3Scaling(factor: number): RawConfig {
  return {
    rope_type: 'llama3',
    factor,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 8192,
  };
}

export const llama2_7bConfig: RawConfig = {
  ...shared,
  vocab_size: 32_000,
  hidden_size: 4096,
  intermediate_size: 11_008,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  num_key_value_heads: 32,
  max_position_embeddings: 4096,
  rope_theta: 10_000,
  rope_scaling: null,
  tie_word_embeddings: false,
  bos_token_id: 1,
  eos_token_id: 2,
};

export const llama3_1_8bConfig: RawConfig = {
  ...llama3,
  hidden_size: 4096,
  intermediate_size: 14_336,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  rope_scaling: llama3Scaling(8),
  tie_word_embeddings: false,
};

export const llama3_2_1bConfig: RawConfig = {
  ...llama3,
  hidden_size: 2048,
  intermediate_size: 8192,
  num_hidden_layers: 16,
  num_attention_heads: 32,
  head_dim: 64,
  rope_scaling: llama3Scaling(32),
  tie_word_embeddings: true,
};

export const llama3_2_3bConfig: RawConfig = {
  ...llama3,
  hidden_size: 3072,
  intermediate_size: 8192,
  num_hidden_layers: 28,
  num_attention_heads: 24,
  head_dim: 128,
  rope_scaling: llama3Scaling(32),
  tie_word_embeddings: true,
};

/** Llama 2 7B with random weights. */
export function llama2_7b(options: BuildOptions = {}): CausalLm {
  return modelFromConfig(llama2_7bConfig, options);
}

/** Llama 3.1 8B with random weights. */
export function llama3_1_8b(options: BuildOptions = {}): CausalLm {
  return modelFromConfig(llama3_1_8bConfig, options);
}

/** Llama 3.2 1B with random weights. */
export function llama3_2_1b(options: BuildOptions = {}): CausalLm {
  return modelFromConfig(llama3_2_1bConfig, options);
}

/** Llama 3.2 3B with random weights. */
export function llama3_2_3b(options: BuildOptions = {}): CausalLm {
  return modelFromConfig(llama3_2_3bConfig, options);
}
