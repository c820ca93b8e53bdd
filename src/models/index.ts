/** Public entry `retune/models`: model families, loading and saving, generation. */

export { type ByteLlamaOptions, byteLlama } from './byte-llama.ts';
export {
  type BuildOptions,
  CausalLm,
  Decoder,
  type DecoderInputs,
  type ForwardOptions,
  ignoredTarget,
} from './decoder/causal-lm.ts';
export type { RawConfig } from './decoder/config-fields.ts';
export { type DecoderConfig, parameterShapes } from './decoder/decoder-config.ts';
export type { ModelFamily } from './decoder/family.ts';
export { modelFamilies, modelFromConfig, parameterCount, readConfig } from './from-config.ts';
export { type Generated, type GenerateOptions, generate } from './generate.ts';
export {
  llama2_7b,
  llama2_7bConfig,
  llama3_1_8b,
  llama3_1_8bConfig,
  llama3_2_1b,
  llama3_2_1bConfig,
  llama3_2_3b,
  llama3_2_3bConfig,
} from './llama/sizes.ts';
export { type LoadOptions, loadModel, readModelConfig } from './load.ts';
export {
  mistral_7b,
  mistral_7b_v0_3,
  mistral_7b_v0_3Config,
  mistral_7bConfig,
} from './mistral/sizes.ts';
export {
  qwen2_5_0_5b,
  qwen2_5_0_5bConfig,
  qwen2_5_1_5b,
  qwen2_5_1_5bConfig,
  qwen2_5_3b,
  qwen2_5_3bConfig,
  qwen2_5_7b,
  qwen2_5_7bConfig,
} from './qwen2/sizes.ts';
export {
  qwen3_0_6b,
  qwen3_0_6bConfig,
  qwen3_1_7b,
  qwen3_1_7bConfig,
  qwen3_4b,
  qwen3_4bConfig,
  qwen3_8b,
  qwen3_8bConfig,
} from './qwen3/sizes.ts';
export {
  filteredProbabilities,
  penalizeRepetition,
  type SamplingOptions,
  sampleToken,
} from './sampling.ts';
export { type SaveModelOptions, saveModel } from './save.ts';
export {
  smollm2_1_7b,
  smollm2_1_7bConfig,
  smollm2_135m,
  smollm2_135mConfig,
  smollm2_360m,
  smollm2_360mConfig,
} from './smollm2/sizes.ts';
