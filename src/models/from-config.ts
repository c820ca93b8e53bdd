/** From a configuration to a model: which families there are. */

import { ConfigError } from '../core/errors.ts';
import { numElements } from '../core/shape.ts';
import { type BuildOptions, CausalLm } from './decoder/causal-lm.ts';
import { ConfigFields, type RawConfig } from './decoder/config-fields.ts';
import { type DecoderConfig, parameterShapes } from './decoder/decoder-config.ts';
import type { ModelFamily } from './decoder/family.ts';
import { llama } from './llama/llama.ts';
import { mistral } from './mistral/mistral.ts';
import { qwen2 } from './qwen2/qwen2.ts';
import { qwen3 } from './qwen3/qwen3.ts';

export const modelFamilies: readonly ModelFamily[] = [llama, mistral, qwen2, qwen3];

/**
 * Builds a model from a parsed Hugging Face config.json, with random weights. Throws ConfigError for an
 * architecture or a field value that is not supported.
 */
export function modelFromConfig(config: RawConfig, options: BuildOptions = {}): CausalLm {
  return new CausalLm(readConfig(config), config, options);
}

/** What `config` says, in the terms of the shared decoder. Throws as modelFromConfig. */
export function readConfig(config: RawConfig): DecoderConfig {
  return familyOf(config).read(new ConfigFields(config));
}

/** Number of parameters of a model of this configuration, without building it; tied ones count once. */
export function parameterCount(config: RawConfig): number {
  let count = 0;
  for (const shape of parameterShapes(readConfig(config)).values()) count += numElements(shape);
  return count;
}

function familyOf(config: RawConfig): ModelFamily {
  const { architectures, model_type: modelType } = config;
  const [architecture]: unknown[] = Array.isArray(architectures) ? architectures : [];
  const family = modelFamilies.find((candidate) =>
    architecture === undefined
      ? candidate.modelType === modelType
      : candidate.architecture === architecture,
  );
  if (family) return family;
  const key = architecture === undefined ? 'model_type' : 'architectures';
  throw new ConfigError(
    `modelFromConfig: '${key}' is not supported (got ${JSON.stringify(architecture ?? modelType) ?? 'nothing'}). ` +
      `Supported: ${modelFamilies.map((known) => known[key === 'model_type' ? 'modelType' : 'architecture']).join(', ')}.`,
    { key, value: architecture ?? modelType },
  );
}
