/** Public entry `retune/nn`: modules, parameters, initializers and the parts of transformers. */

export { Attention, type AttentionParts, type LayerContext } from './attention.ts';
export { Dropout } from './dropout.ts';
export {
  type Initializer,
  linearInit,
  type NormalInitOptions,
  normalInit,
  onesInit,
  type UniformInitOptions,
  uniformInit,
  zerosInit,
} from './init.ts';
export { KvCache, type KvCacheOptions, type LayerCache } from './kv-cache.ts';
export { LayerStack } from './layer-stack.ts';
export { Embedding, type EmbeddingOptions, Linear, type LinearOptions } from './linear.ts';
export {
  type Activation,
  GatedMlp,
  type GatedMlpParts,
  Mlp,
  type MlpParts,
  type TensorModule,
} from './mlp.ts';
export { type AnyModule, Module, ModuleList, type NamedTensor } from './module.ts';
export { LayerNorm, type NormOptions, RMSNorm } from './norm.ts';
export { buffer, parameter, type Role, roleOf } from './parameter.ts';
export {
  inverseFrequencies,
  type RopeScaling,
  RotaryEmbedding,
  type RotaryOptions,
  type RotaryTables,
} from './rotary.ts';
export type { LoadReport } from './state-dict.ts';
export { TransformerLayer, type TransformerLayerParts } from './transformer-layer.ts';
