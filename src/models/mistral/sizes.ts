/** Configurations of the published Mistral 7B models. */

import type { BuildOptions, CausalLm } from '../decoder/causal-lm.ts';
import type { RawConfig } from '../decoder/config-fields.ts';
import { modelFromConfig } from '../from-config.ts';

/** Mistral 7B v0.1, whose layers see 4096 tokens back. */
export const mistral_7bConfig: RawConfig = {
  architectures: ['MistralForCausalLM'],
  model_type: 'mistral',
  hidden_act: 'silu',
  attention_dropout: 0,
  vocab_size: 32_000,
  hidden_size: 4096,
  intermediate_size: 14_336,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  max_position_embeddings: 32_768,
  sliding_window: 4096,
  rope_theta: 10_000,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: false,
  initializer_range: 0.02,
  bos_token_id: 1,
  eos_token_id: 2,
};

/** Mistral 7B v0.3: a larger vocabulary and no window. */
export const mistral_7b_v0_3Config: RawConfig = {
  ...mistral_7bConfig,
  vocab_size: 32_768,
  sliding_window: null,
  rope_theta: 1_000_000,
};

/** Mistral 7B v0.1 with random weights. */
export function mistral_7b(options: BuildOptions = {}): CausalLm {
  return modelFromConfig(mistral_7bConfig, options);
}

/** Mistral 7B v0.3 with random weights. */
export function mistral_7b_v0_3(options: BuildOptions = {}): CausalLm {
  return modelFromConfig(mistral_7b_v0_3Config, options);
}
