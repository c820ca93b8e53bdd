/** Configurations of SmolLM2 (arXiv 2502.02737), which are Llama models with tied embeddings. */

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
  rms_norm_eps: 1e-5,
  rope_scaling: null,
  vocab_size: 49_152,
  max_position_embeddings: 8192,
  tie_word_embeddings: true,
  bos_token_id: 0,
  eos_token_id: 0,
} as const;

export const smollm2_135mConfig: RawConfig = {
  ...shared,
  hidden_size: 576,
  intermediate_size: 1536,
  num_hidden_layers: 30,
  num_attention_heads: 9,
  num_key_value_heads: 3,
  rope_theta: 100_000,
  initializer_range: 0.041666666666666664,
};

export const smollm2_360mConfig: RawConfig = {
  ...shared,
  hidden_size: 960,
  intermediate_size: 2560,
  num_hidden_layers: 32,
  num_attention_heads: 15,
  num_key_value_heads: 5,
  rope_theta: 100_000,
  initializer_range: 0.02,
};

export const smollm2_1_7bConfig: RawConfig = {
  ...shared,
  hidden_size: 2048,
  intermediate_size: 8192,
  num_hidden_layers: 24,
  num_attention_heads: 32,
  num_key_value_heads: 32,
  rope_theta: 130_000,
  initializer_range: 0.02,
};

/** SmolLM2 135M with random weights. */
export function smollm2_135m(options: BuildOptions = {}): CausalLm {
  return modelFromConfig(smollm2_135mConfig, options);
}

/** SmolLM2 360M with random weights. */
export function smollm2_360m(options: BuildOptions = {}): CausalLm {
  return modelFromConfig(smollm2_360mConfig, options);
}

/** SmolLM2 1.7B with random weights. */
export function smollm2_1_7b(options: BuildOptions = {}): CausalLm {
  return modelFromConfig(smollm2_1_7bConfig, options);
}
