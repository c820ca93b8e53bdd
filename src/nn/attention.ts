/**
 * Causal self-attention with grouped heads. Shapes: B batch, T tokens, C hidden, H heads, K key/value
 * heads, D head size. Projections and norms are given, so any of them can be replaced.
 */

import { ArgumentError } from '../core/errors.ts';
import { attention } from '../ops/attention/attention.ts';
import { applyRope } from '../ops/rope.ts';
import { reshape } from '../ops/broadcast.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import type { KvCache } from './kv-cache.ts';
import type { TensorModule } from './mlp.ts';
import { Module } from './module.ts';
import type { RotaryTables } from './rotary.ts';

/** What a layer's call gets besides the hidden state. */
export interface LayerContext {
  /** Rotary tables of this call's positions; left out, positions are not encoded. */
  readonly rope?: RotaryTables;
  readonly cache?: KvCache;
}

export interface AttentionParts {
  readonly numHeads: number;
  /** Default numHeads. Divides numHeads. */
  readonly numKvHeads?: number;
  readonly headDim: number;
  /** [.., C] -> [.., H D]. */
  readonly qProj: TensorModule;
  /** [.., C] -> [.., K D]. */
  readonly kProj: TensorModule;
  readonly vProj: TensorModule;
  /** [.., H D] -> [.., C]. */
  readonly oProj: TensorModule;
  /** Norms over D, before the rotary embedding (Qwen 3). */
  readonly qNorm?: TensorModule;
  readonly kNorm?: TensorModule;
  /** Token i sees tokens i - window + 1 to i; default all before it. */
  readonly window?: number | undefined;
  /** Default 1 / sqrt(D). */
  readonly scale?: number;
  /** Which part of a KvCache is this layer's. Default 0. */
  readonly layer?: number;
}

/** x [B, T, C] -> [B, T, C]. */
export class Attention extends Module<[x: Tensor, context?: LayerContext], Tensor> {
  readonly qProj: TensorModule;
  readonly kProj: TensorModule;
  readonly vProj: TensorModule;
  readonly oProj: TensorModule;
  readonly qNorm: TensorModule | undefined;
  readonly kNorm: TensorModule | undefined;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly window: number | undefined;
  readonly scale: number;
  readonly layer: number;

  constructor(parts: AttentionParts) {
    super();
    const { numHeads, numKvHeads = numHeads, headDim } = parts;
    if (numHeads % numKvHeads !== 0) {
      throw new ArgumentError(
        `Attention: the query heads must be a multiple of the key/value heads (got ${numHeads} and ${numKvHeads}). ` +
          'Change one of them.',
        { numHeads, numKvHeads },
      );
    }
    this.numHeads = numHeads;
    this.numKvHeads = numKvHeads;
    this.headDim = headDim;
    this.qProj = parts.qProj;
    this.kProj = parts.kProj;
    this.vProj = parts.vProj;
    this.oProj = parts.oProj;
    this.qNorm = parts.qNorm;
    this.kNorm = parts.kNorm;
    this.window = parts.window;
    this.scale = parts.scale ?? 1 / Math.sqrt(headDim);
    this.layer = parts.layer ?? 0;
  }

  forward(x: Tensor, context: LayerContext = {}): Tensor {
    const [batch = 1, length = 1] = x.shape;
    const { cache } = context;
    const options = {
      causal: true,
      scale: this.scale,
      ...(this.window !== undefined && { window: this.window }),
    };
    const mixed = scope(() => {
      const { q, k, v } = scope(() => this.#project(x, batch, length, context.rope));
      if (!cache) return attention(q, k, v, options);
      const { keys, values } = cache.store(this.layer, k, v);
      return attention(q, keys, values, { ...options, kvLength: cache.kvLength });
    });
    return this.oProj.call(reshape(mixed, [batch, length, this.numHeads * this.headDim]));
  }

  /** q [B, T, H, D]; k and v [B, T, K, D]. */
  #project(
    x: Tensor,
    batch: number,
    length: number,
    rope: RotaryTables | undefined,
  ): { q: Tensor; k: Tensor; v: Tensor } {
    const heads = (projection: TensorModule, count: number): Tensor =>
      reshape(projection.call(x), [batch, length, count, this.headDim]);
    const place = (y: Tensor, norm: TensorModule | undefined): Tensor => {
      const normed = norm ? norm.call(y) : y;
      return rope ? applyRope(normed, rope.cos, rope.sin) : normed;
    };
    return {
      q: place(heads(this.qProj, this.numHeads), this.qNorm),
      k: place(heads(this.kProj, this.numKvHeads), this.kNorm),
      v: heads(this.vProj, this.numKvHeads),
    };
  }
}
