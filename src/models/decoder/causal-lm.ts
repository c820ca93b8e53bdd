/**
 * The decoder-only transformer that all families here share: embedding, layers, norm, output projection.
 * Field names give the parameter names of Hugging Face files (nn/module.ts), so no name map is needed.
 * Shapes: B batch, T tokens, C hidden, V vocabulary.
 */

import type { DType } from '../../core/dtype.ts';
import { ShapeError, invariant } from '../../core/errors.ts';
import { formatShape, sameShape } from '../../core/shape.ts';
import { Attention, type LayerContext } from '../../nn/attention.ts';
import { type Initializer, normalInit, zerosInit } from '../../nn/init.ts';
import { KvCache } from '../../nn/kv-cache.ts';
import { LayerStack } from '../../nn/layer-stack.ts';
import { Embedding, Linear } from '../../nn/linear.ts';
import { GatedMlp } from '../../nn/mlp.ts';
import { Module } from '../../nn/module.ts';
import { RMSNorm } from '../../nn/norm.ts';
import { RotaryEmbedding } from '../../nn/rotary.ts';
import { TransformerLayer } from '../../nn/transformer-layer.ts';
import { linearCrossEntropy } from '../../ops/loss/linear-cross-entropy.ts';
import { narrow } from '../../ops/slice.ts';
import { withModule } from '../../tensor/context.ts';
import type { Generator } from '../../tensor/generator.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import type { RawConfig } from './config-fields.ts';
import type { DecoderConfig } from './decoder-config.ts';

/** Targets of this value count neither in the loss nor in its mean. */
export const ignoredTarget = -100;

export interface DecoderInputs {
  readonly cache?: KvCache;
  /** int32 [B, T]; default 0, 1, ... (after what the cache holds). For packed documents. */
  readonly positions?: Tensor;
}

export interface ForwardOptions extends DecoderInputs {
  /** int32 [B, T]: targets[b, t] is the token to predict after tokens[b, t], or -100. */
  readonly targets?: Tensor;
  /** Of the loss; default mean over the targets that count. */
  readonly reduction?: 'mean' | 'sum';
  /** Logits of the last token only: [B, 1, V]. */
  readonly lastOnly?: boolean;
}

export interface BuildOptions {
  readonly generator?: Generator;
  /** Default float32. */
  readonly dtype?: DType;
  /** False starts every weight but the norms' at zero, for loading over it. Default true. */
  readonly randomWeights?: boolean;
}

/** tokens int32 [B, T] -> hidden states after the last norm [B, T, C]. */
export class Decoder extends Module<[tokens: Tensor, inputs?: DecoderInputs], Tensor> {
  readonly embedTokens: Embedding;
  readonly layers: LayerStack<[context: LayerContext]>;
  readonly norm: RMSNorm;
  readonly rotaryEmb: RotaryEmbedding;

  constructor(config: DecoderConfig, options: BuildOptions = {}) {
    super();
    const { dtype = 'float32' } = options;
    const init = weightInit(config, options);
    this.embedTokens = new Embedding(config.vocabSize, config.hiddenSize, { dtype, init });
    this.layers = new LayerStack(
      config.windows.map((_, layer) => buildLayer(config, layer, dtype, init)),
    );
    this.norm = new RMSNorm(config.hiddenSize, { eps: config.normEps, dtype });
    this.rotaryEmb = new RotaryEmbedding({
      headDim: config.headDim,
      theta: config.ropeTheta,
      scaling: config.ropeScaling,
      maxPositions: config.maxPositions,
    });
  }

  forward(tokens: Tensor, inputs: DecoderInputs = {}): Tensor {
    const { cache, positions } = inputs;
    const [batch, length] = tokens.shape;
    if (tokens.rank !== 2 || length === undefined) {
      throw new ShapeError(
        `Decoder: tokens must be [batch, length] (got ${formatShape(tokens.shape)}). Add a batch axis.`,
        { shape: tokens.shape },
      );
    }
    if (positions && !sameShape(positions.shape, tokens.shape)) {
      throw new ShapeError(
        `Decoder: positions must have the shape of tokens (got ${formatShape(positions.shape)} and [${batch}, ${length}]). ` +
          'Give one position per token.',
        { positions: positions.shape, tokens: tokens.shape },
      );
    }
    cache?.append(length);
    const rope = positions
      ? this.rotaryEmb.at(positions)
      : this.rotaryEmb.call(length, cache?.start ?? 0);
    const context: LayerContext = cache ? { rope, cache } : { rope };
    return this.norm.call(this.layers.call(this.embedTokens.call(tokens), context));
  }
}

/** tokens int32 [B, T] -> logits [B, T, V], or the loss [] when targets are given. */
export class CausalLm extends Module<[tokens: Tensor, options?: ForwardOptions], Tensor> {
  readonly model: Decoder;
  readonly lmHead: Linear;
  readonly config: DecoderConfig;
  /** The configuration as it was given, which is what is saved. */
  readonly source: RawConfig;

  constructor(config: DecoderConfig, source: RawConfig, options: BuildOptions = {}) {
    super();
    const { dtype = 'float32' } = options;
    this.config = config;
    this.source = source;
    this.model = new Decoder(config, options);
    this.lmHead = new Linear(config.hiddenSize, config.vocabSize, {
      bias: false,
      dtype,
      init: weightInit(config, options),
      ...(config.tiedEmbeddings && { weight: this.model.embedTokens.weight }),
    });
    this.assignPaths();
  }

  /** dtype of the parameters. */
  get dtype(): DType {
    return this.lmHead.weight.dtype;
  }

  forward(tokens: Tensor, options: ForwardOptions = {}): Tensor {
    const { targets, reduction = 'mean', lastOnly = false, ...inputs } = options;
    const hidden = this.model.call(tokens, inputs);
    if (!targets) return this.lmHead.call(lastOnly ? lastToken(hidden) : hidden);
    // The loss projects a few rows at a time: logits of the whole batch never exist.
    return withModule(this.lmHead.path ?? 'lm_head', () =>
      linearCrossEntropy(hidden, this.lmHead.weight, targets, {
        ignoreIndex: ignoredTarget,
        reduction,
      }),
    );
  }

  /** An empty cache for generating `maxLength` tokens, the prompt included. */
  makeCache(batch: number, maxLength: number): KvCache {
    const { numLayers, numKvHeads, headDim } = this.config;
    return new KvCache({
      layers: numLayers,
      batch,
      maxLength,
      numKvHeads,
      headDim,
      dtype: this.dtype,
    });
  }
}

function lastToken(hidden: Tensor): Tensor {
  const length = hidden.shape[1];
  invariant(length !== undefined, () => 'hidden states without a token axis');
  return narrow(hidden, 1, length - 1, 1);
}

function weightInit(config: DecoderConfig, options: BuildOptions): Initializer {
  if (options.randomWeights === false) return zerosInit;
  const { generator } = options;
  return normalInit({ std: config.initializerRange, ...(generator && { generator }) });
}

function buildLayer(
  config: DecoderConfig,
  layer: number,
  dtype: DType,
  init: Initializer,
): TransformerLayer {
  const { hiddenSize, intermediateSize, numHeads, numKvHeads, headDim } = config;
  const project = (inputs: number, outputs: number, bias: boolean): Linear =>
    new Linear(inputs, outputs, { bias, dtype, init, biasInit: zerosInit });
  const norm = (dim: number): RMSNorm => new RMSNorm(dim, { eps: config.normEps, dtype });
  return new TransformerLayer({
    selfAttn: new Attention({
      numHeads,
      numKvHeads,
      headDim,
      layer,
      window: config.windows[layer],
      qProj: project(hiddenSize, numHeads * headDim, config.qkvBias),
      kProj: project(hiddenSize, numKvHeads * headDim, config.qkvBias),
      vProj: project(hiddenSize, numKvHeads * headDim, config.qkvBias),
      oProj: project(numHeads * headDim, hiddenSize, config.outputBias),
      ...(config.qkNorm && { qNorm: norm(headDim), kNorm: norm(headDim) }),
    }),
    mlp: new GatedMlp({
      gateProj: project(hiddenSize, intermediateSize, config.mlpBias),
      upProj: project(hiddenSize, intermediateSize, config.mlpBias),
      downProj: project(intermediateSize, hiddenSize, config.mlpBias),
    }),
    inputLayernorm: norm(hiddenSize),
    postAttentionLayernorm: norm(hiddenSize),
  });
}
