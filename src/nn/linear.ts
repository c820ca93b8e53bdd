/** Affine maps and lookup tables. */

import type { DType } from '../core/dtype.ts';
import { embedding } from '../ops/index/embedding.ts';
import { linear } from '../ops/matmul/linear.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { type Initializer, linearInit, normalInit } from './init.ts';
import { Module } from './module.ts';
import { parameter } from './parameter.ts';

export interface LinearOptions {
  /** Default true. */
  readonly bias?: boolean;
  readonly dtype?: DType;
  /** Another module's weight [out, in] to share (tied embeddings). */
  readonly weight?: Tensor;
  /** Start of the weight; default as torch.nn.Linear. */
  readonly init?: Initializer;
  /** Start of the bias; default as torch.nn.Linear. */
  readonly biasInit?: Initializer;
}

/** x [..., in] -> [..., out]: x weight^T + bias, weight [out, in] (torch.nn.Linear). */
export class Linear extends Module<[x: Tensor], Tensor> {
  readonly weight: Tensor;
  readonly bias: Tensor | undefined;

  constructor(inFeatures: number, outFeatures: number, options: LinearOptions = {}) {
    super();
    const { bias = true, dtype = 'float32', init = linearInit(inFeatures) } = options;
    const { biasInit = linearInit(inFeatures) } = options;
    this.weight = options.weight ?? parameter(init([outFeatures, inFeatures], dtype));
    this.bias = bias ? parameter(biasInit([outFeatures], dtype)) : undefined;
  }

  forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias);
  }
}

export interface EmbeddingOptions {
  readonly dtype?: DType;
  /** Default: standard normal, as torch.nn.Embedding. */
  readonly init?: Initializer;
}

/** indices int32 [...] -> [..., dim]: rows of weight [count, dim] (torch.nn.Embedding). */
export class Embedding extends Module<[indices: Tensor], Tensor> {
  readonly weight: Tensor;

  constructor(count: number, dim: number, options: EmbeddingOptions = {}) {
    super();
    const { dtype = 'float32', init = normalInit({ std: 1 }) } = options;
    this.weight = parameter(init([count, dim], dtype));
  }

  forward(indices: Tensor): Tensor {
    return embedding(this.weight, indices);
  }
}
