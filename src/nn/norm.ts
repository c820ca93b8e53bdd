/** Normalization over the last axis. */

import type { DType } from '../core/dtype.ts';
import { layerNorm } from '../ops/layer-norm.ts';
import { rmsNorm } from '../ops/rms-norm.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { onesInit, zerosInit } from './init.ts';
import { Module } from './module.ts';
import { parameter } from './parameter.ts';

export interface NormOptions {
  /** Default 1e-5. */
  readonly eps?: number;
  readonly dtype?: DType;
}

/** x [..., dim] / sqrt(mean(x^2) + eps) * weight (torch.nn.RMSNorm). */
export class RMSNorm extends Module<[x: Tensor], Tensor> {
  readonly weight: Tensor;
  readonly eps: number;

  constructor(dim: number, options: NormOptions = {}) {
    super();
    this.eps = options.eps ?? 1e-5;
    this.weight = parameter(onesInit([dim], options.dtype ?? 'float32'));
  }

  forward(x: Tensor): Tensor {
    return rmsNorm(x, this.weight, this.eps);
  }
}

/** (x - mean) / sqrt(variance + eps) * weight + bias over the last axis (torch.nn.LayerNorm). */
export class LayerNorm extends Module<[x: Tensor], Tensor> {
  readonly weight: Tensor;
  readonly bias: Tensor;
  readonly eps: number;

  constructor(dim: number, options: NormOptions = {}) {
    super();
    this.eps = options.eps ?? 1e-5;
    this.weight = parameter(onesInit([dim], options.dtype ?? 'float32'));
    this.bias = parameter(zerosInit([dim], options.dtype ?? 'float32'));
  }

  forward(x: Tensor): Tensor {
    return layerNorm(x, this.weight, this.bias, this.eps);
  }
}
