/**
 * The training steps that are timed. All are Llama decoders in float32: no biases, RMS norms, rotary
 * positions (half-rotating), causal attention, SwiGLU; mean cross entropy over one fixed batch; AdamW
 * with PyTorch's defaults on every parameter.
 */

import type { RawConfig } from '../src/models/decoder/config-fields.ts';

export interface BenchConfig {
  readonly name: string;
  /** One line for the report. */
  readonly about: string;
  readonly layers: number;
  readonly hidden: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Width of the feed-forward part. */
  readonly intermediate: number;
  readonly vocab: number;
  readonly tied: boolean;
  readonly ropeTheta: number;
  readonly normEps: number;
  readonly batch: number;
  readonly sequence: number;
  /** Timed steps in a turn, about a second's worth. */
  readonly stepsPerTurn: number;
  /** First losses of PyTorch 2.13 from these weights and tokens. */
  readonly knownLosses?: readonly number[];
}

const small = {
  hidden: 256,
  heads: 4,
  kvHeads: 4,
  headDim: 64,
  intermediate: 704,
  vocab: 2048,
  tied: false,
  ropeTheta: 10_000,
  normEps: 1e-5,
};

const smollm2 = {
  hidden: 576,
  heads: 9,
  kvHeads: 3,
  headDim: 64,
  intermediate: 1536,
  vocab: 49_152,
  tied: true,
  ropeTheta: 100_000,
  normEps: 1e-5,
};

export const configs: readonly BenchConfig[] = [
  {
    name: 'S',
    about: 'small: 4 layers, 512 tokens a step',
    ...small,
    layers: 4,
    batch: 4,
    sequence: 128,
    stepsPerTurn: 8,
    knownLosses: [7.65343, 7.25938, 6.87745, 6.58212],
  },
  {
    name: 'L',
    about: 'heavy in activations: 8 layers, 2,048 tokens a step',
    ...small,
    layers: 8,
    batch: 4,
    sequence: 512,
    stepsPerTurn: 2,
  },
  {
    name: 'smollm2-2l',
    about: 'SmolLM2-135M with 2 of its 30 layers',
    ...smollm2,
    layers: 2,
    batch: 2,
    sequence: 256,
    stepsPerTurn: 2,
  },
  {
    name: 'smollm2-30l',
    about: 'SmolLM2-135M in full, batch 1 x 256',
    ...smollm2,
    layers: 30,
    batch: 1,
    sequence: 256,
    stepsPerTurn: 1,
  },
];

export function findConfig(name: string): BenchConfig {
  const found = configs.find((config) => config.name === name);
  if (found) return found;
  const names = configs.map((config) => config.name).join(', ');
  throw new RangeError(`bench: there is no config '${name}'. Use ${names}.`);
}

/** As a Hugging Face config.json says it. */
export function modelConfig(config: BenchConfig): RawConfig {
  return {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    vocab_size: config.vocab,
    hidden_size: config.hidden,
    intermediate_size: config.intermediate,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    num_key_value_heads: config.kvHeads,
    head_dim: config.headDim,
    hidden_act: 'silu',
    max_position_embeddings: config.sequence,
    rms_norm_eps: config.normEps,
    rope_theta: config.ropeTheta,
    rope_scaling: null,
    tie_word_embeddings: config.tied,
    attention_bias: false,
    mlp_bias: false,
  };
}

export function tokensPerStep(config: BenchConfig): number {
  return config.batch * config.sequence;
}

/** FLOPs of the matrix products of forward and backward (three times forward), attention not halved. */
export function stepFlops(config: BenchConfig): number {
  const { hidden, heads, kvHeads, headDim, intermediate, vocab, layers, sequence } = config;
  const attention = hidden * headDim * (2 * heads + 2 * kvHeads);
  const dense = layers * (attention + 3 * hidden * intermediate) + hidden * vocab;
  const scores = layers * 4 * sequence * heads * headDim;
  return 3 * tokensPerStep(config) * (2 * dense + scores);
}
