/** The pre-norm transformer layer of Llama and its relatives. */

import { add } from '../ops/arithmetic.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import type { LayerContext } from './attention.ts';
import type { TensorModule } from './mlp.ts';
import { Module } from './module.ts';

export interface TransformerLayerParts {
  readonly selfAttn: Module<[x: Tensor, context?: LayerContext], Tensor>;
  readonly mlp: TensorModule;
  readonly inputLayernorm: TensorModule;
  readonly postAttentionLayernorm: TensorModule;
}

/** x [B, T, C] -> [B, T, C]: attention and feed-forward, each on a normed input and added to it. */
export class TransformerLayer extends Module<[x: Tensor, context: LayerContext], Tensor> {
  readonly selfAttn: Module<[x: Tensor, context?: LayerContext], Tensor>;
  readonly mlp: TensorModule;
  readonly inputLayernorm: TensorModule;
  readonly postAttentionLayernorm: TensorModule;

  constructor(parts: TransformerLayerParts) {
    super();
    this.selfAttn = parts.selfAttn;
    this.mlp = parts.mlp;
    this.inputLayernorm = parts.inputLayernorm;
    this.postAttentionLayernorm = parts.postAttentionLayernorm;
  }

  forward(x: Tensor, context: LayerContext): Tensor {
    const attended = scope(() => add(x, this.selfAttn.call(this.inputLayernorm.call(x), context)));
    return add(attended, this.mlp.call(this.postAttentionLayernorm.call(attended)));
  }
}
