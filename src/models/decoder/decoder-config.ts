/**
 * What the shared decoder needs to be built, whatever family it is of. Families translate their
 * configurations into this.
 */

import type { Shape } from '../../core/shape.ts';
import type { RopeScaling } from '../../nn/rotary.ts';

export interface DecoderConfig {
  /** Class name in config.json, such as LlamaForCausalLM. */
  readonly architecture: string;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  /** Width of the feed-forward part. */
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly normEps: number;
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling;
  readonly maxPositions: number;
  /** Whether the output projection is the embedding. */
  readonly tiedEmbeddings: boolean;
  /** Biases of the query, key and value projections. */
  readonly qkvBias: boolean;
  /** Bias of attention's output projection. */
  readonly outputBias: boolean;
  readonly mlpBias: boolean;
  /** RMS norms over each query and key head. */
  readonly qkNorm: boolean;
  /** Sliding window of each layer; undefined sees everything before. */
  readonly windows: readonly (number | undefined)[];
  /** Standard deviation of new weights. */
  readonly initializerRange: number;
  readonly bosId: number | undefined;
  /** Tokens that end a generation. */
  readonly eosIds: readonly number[];
}

/** Shapes of all parameters by name, in the order of namedParameters, without building the model. */
export function parameterShapes(config: DecoderConfig): Map<string, Shape> {
  const { hiddenSize, intermediateSize, numHeads, numKvHeads, headDim } = config;
  const shapes = new Map<string, Shape>();
  const project = (name: string, out: number, inputs: number, bias: boolean): void => {
    shapes.set(`${name}.weight`, [out, inputs]);
    if (bias) shapes.set(`${name}.bias`, [out]);
  };
  shapes.set('model.embed_tokens.weight', [config.vocabSize, hiddenSize]);
  for (let i = 0; i < config.numLayers; i++) {
    const layer = `model.layers.${i}`;
    project(`${layer}.self_attn.q_proj`, numHeads * headDim, hiddenSize, config.qkvBias);
    project(`${layer}.self_attn.k_proj`, numKvHeads * headDim, hiddenSize, config.qkvBias);
    project(`${layer}.self_attn.v_proj`, numKvHeads * headDim, hiddenSize, config.qkvBias);
    project(`${layer}.self_attn.o_proj`, hiddenSize, numHeads * headDim, config.outputBias);
    if (config.qkNorm) {
      shapes.set(`${layer}.self_attn.q_norm.weight`, [headDim]);
      shapes.set(`${layer}.self_attn.k_norm.weight`, [headDim]);
    }
    project(`${layer}.mlp.gate_proj`, intermediateSize, hiddenSize, config.mlpBias);
    project(`${layer}.mlp.up_proj`, intermediateSize, hiddenSize, config.mlpBias);
    project(`${layer}.mlp.down_proj`, hiddenSize, intermediateSize, config.mlpBias);
    shapes.set(`${layer}.input_layernorm.weight`, [hiddenSize]);
    shapes.set(`${layer}.post_attention_layernorm.weight`, [hiddenSize]);
  }
  shapes.set('model.norm.weight', [hiddenSize]);
  if (!config.tiedEmbeddings) shapes.set('lm_head.weight', [config.vocabSize, hiddenSize]);
  return shapes;
}
