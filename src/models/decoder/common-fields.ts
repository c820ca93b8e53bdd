/** What the configurations of all families here have in common. */

import { ConfigError } from '../../core/errors.ts';
import type { ConfigFields } from './config-fields.ts';
import type { DecoderConfig } from './decoder-config.ts';
import { readRope } from './rope-fields.ts';

/** Where families differ in what a missing field means. */
export interface CommonDefaults {
  readonly numKvHeads?: number;
  readonly headDim?: number;
  readonly maxPositions?: number;
}

/** The family-independent part; families add biases, norms and windows. */
export type CommonConfig = Omit<
  DecoderConfig,
  'qkvBias' | 'outputBias' | 'mlpBias' | 'qkNorm' | 'windows'
>;

export function readCommon(
  architecture: string,
  fields: ConfigFields,
  defaults: CommonDefaults = {},
): CommonConfig {
  fields.only('hidden_act', ['silu']);
  fields.only('attention_dropout', [0]);
  if (fields.has('quantization_config')) {
    fields.unsupported('quantization_config', 'none: weights in bfloat16, float16 or float32');
  }
  const hiddenSize = fields.positiveInteger('hidden_size');
  const numHeads = fields.positiveInteger('num_attention_heads');
  const numKvHeads = fields.positiveInteger('num_key_value_heads', defaults.numKvHeads ?? numHeads);
  const headDim = fields.positiveInteger('head_dim', defaults.headDim ?? hiddenSize / numHeads);
  if (numHeads % numKvHeads !== 0) {
    fields.unsupported('num_key_value_heads', `a divisor of num_attention_heads (${numHeads})`);
  }
  if (headDim % 2 !== 0) fields.unsupported('head_dim', 'an even number');
  return {
    architecture,
    vocabSize: fields.positiveInteger('vocab_size'),
    hiddenSize,
    intermediateSize: fields.positiveInteger('intermediate_size'),
    numLayers: fields.positiveInteger('num_hidden_layers'),
    numHeads,
    numKvHeads,
    headDim,
    normEps: fields.positive('rms_norm_eps', 1e-6),
    ...readRope(fields),
    maxPositions: fields.positiveInteger('max_position_embeddings', defaults.maxPositions ?? 2048),
    tiedEmbeddings: fields.boolean('tie_word_embeddings', false),
    initializerRange: fields.positive('initializer_range', 0.02),
    bosId: fields.integers('bos_token_id')[0],
    eosIds: fields.integers('eos_token_id'),
  };
}

/** One entry per layer: `window` in all layers, or in those that `layer_types` calls sliding. */
export function readWindows(
  fields: ConfigFields,
  numLayers: number,
  window: number | undefined,
): (number | undefined)[] {
  const types = fields.raw.layer_types ?? undefined;
  if (types === undefined) return new Array<number | undefined>(numLayers).fill(window);
  if (!Array.isArray(types) || types.length !== numLayers) {
    return fields.unsupported('layer_types', `a list of ${numLayers} layer types`);
  }
  return types.map((type, i) => {
    if (type === 'full_attention') return undefined;
    if (type !== 'sliding_attention') {
      throw new ConfigError(
        `modelFromConfig: 'layer_types.${i}' is not supported (got ${JSON.stringify(type)}). ` +
          'Supported: full_attention, sliding_attention.',
        { key: `layer_types.${i}`, value: type },
      );
    }
    return window ?? fields.unsupported('sliding_window', 'a window for the sliding layers');
  });
}
