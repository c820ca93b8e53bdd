/**
 * The transformer layer whose activation bytes arXiv 2205.05198 counts (section 4.1 and figure 3), as one of
 * its tensor-parallel processes runs it: attention with materialized scores, GELU, stored dropout masks of
 * one byte, 16-bit activations. One process stands for all: what a collective brings from the others
 * has the shape it would have, and the values of this one.
 */

import assert from 'node:assert/strict';
import {
  type SavedTensorEntry,
  type Tensor,
  add,
  checkpoint,
  concat,
  gelu,
  lt,
  matmul,
  mul,
  narrow,
  noGrad,
  permute,
  reshape,
  softmax,
  sum,
  transpose,
  uniform,
  where,
} from '../../../src/index.ts';
import { attachBackward } from '../../../src/tensor/apply.ts';
import { LayerNorm, Linear, Module } from '../../../src/nn/index.ts';

export interface LayerShape {
  /** s: tokens of one sequence. */
  readonly sequence: number;
  /** b: sequences of one micro-batch. */
  readonly batch: number;
  /** h */
  readonly hidden: number;
  /** a */
  readonly heads: number;
  /** t: processes that share the layer's matrices. Default 1. */
  readonly tensorParallel?: number;
}

export interface LayerVariant {
  /** Norms, dropouts and layer inputs hold s / t tokens; matrices gather them and gather again in backward. */
  readonly sequenceParallel?: boolean;
  /** `selective`: the attention core, from scores to context, is a region. `full`: the layer is one. */
  readonly recompute?: 'none' | 'selective' | 'full';
}

export const dtype = 'bfloat16';
const dropRate = 0.1;

/** Dropout that keeps its mask, one byte per element. Retune's own draws it again in backward. */
function dropout(x: Tensor): Tensor {
  const kept = lt(uniform(x.shape), 1 - dropRate);
  return where(kept, mul(x, 1 / (1 - dropRate)), 0);
}

/** How one process takes part in the tokens of all. */
interface Tokens {
  /** A layer of all tokens; backward keeps this process's share of them and gathers the rest again. */
  readonly gathered: (x: Tensor, layer: Linear) => Tensor;
  /** The share of this process in the sum over all. */
  readonly scattered: (x: Tensor) => Tensor;
}

const everyToken: Tokens = { gathered: (x, layer) => layer.call(x), scattered: (x) => x };

function shardedTokens(processes: number): Tokens {
  const gather = (shard: Tensor): Tensor => concat(Array.from({ length: processes }, () => shard));
  const scatterSum = (all: Tensor): Tensor => {
    const [tokens = 0] = all.shape;
    return sum(reshape(all, [processes, tokens / processes, ...all.shape.slice(1)]), [0]);
  };
  return {
    gathered: (x, layer) => {
      const out = noGrad(() => layer.call(gather(x)));
      const backward = (
        [g]: readonly (Tensor | undefined)[],
        [shard, weight]: readonly Tensor[],
      ) => {
        assert.ok(g && shard && weight);
        const rows = (all: Tensor): Tensor => reshape(all, [-1, all.shape.at(-1) ?? 0]);
        return [
          scatterSum(matmul(g, weight)),
          matmul(transpose(rows(g)), rows(gather(shard))),
          sum(rows(g), [0]),
        ];
      };
      const inputs = [x, layer.weight, layer.bias as Tensor];
      attachBackward({ name: 'linear', backward }, inputs, [out], [x, layer.weight]);
      return out;
    },
    scattered: (x) => narrow(x, 0, 0, (x.shape[0] ?? 0) / processes),
  };
}

class Attention extends Module<[x: Tensor], Tensor> {
  readonly query: Linear;
  readonly key: Linear;
  readonly value: Linear;
  readonly projection: Linear;
  readonly #heads: number;
  readonly #tokens: Tokens;
  readonly #recompute: boolean;

  constructor(shape: LayerShape, tokens: Tokens, recompute: boolean) {
    super();
    const { hidden, heads, tensorParallel = 1 } = shape;
    const width = hidden / tensorParallel;
    this.query = new Linear(hidden, width, { dtype });
    this.key = new Linear(hidden, width, { dtype });
    this.value = new Linear(hidden, width, { dtype });
    this.projection = new Linear(width, hidden, { dtype });
    this.#heads = heads / tensorParallel;
    this.#tokens = tokens;
    this.#recompute = recompute;
  }

  /** x [s, b, h] -> [s, b, h]. */
  forward(x: Tensor): Tensor {
    const { gathered, scattered } = this.#tokens;
    const heads = [this.query, this.key, this.value].map((linear) => gathered(x, linear));
    const args = heads as [Tensor, Tensor, Tensor];
    const context = this.#recompute ? checkpoint(this.core, args) : this.core(...args);
    return scattered(this.projection.call(context));
  }

  readonly core = (query: Tensor, key: Tensor, value: Tensor): Tensor => {
    const [s = 0, b = 0, width = 0] = query.shape;
    const size = width / this.#heads;
    const split = (x: Tensor): Tensor =>
      permute(reshape(x, [s, b, this.#heads, size]), [1, 2, 0, 3]);
    const scores = matmul(split(query), transpose(split(key), -2, -1));
    const weights = dropout(softmax(mul(scores, 1 / Math.sqrt(size)), -1));
    return reshape(permute(matmul(weights, split(value)), [2, 0, 1, 3]), [s, b, width]);
  };
}

class MLP extends Module<[x: Tensor], Tensor> {
  readonly up: Linear;
  readonly down: Linear;
  readonly #tokens: Tokens;

  constructor({ hidden, tensorParallel = 1 }: LayerShape, tokens: Tokens) {
    super();
    this.up = new Linear(hidden, (4 * hidden) / tensorParallel, { dtype });
    this.down = new Linear((4 * hidden) / tensorParallel, hidden, { dtype });
    this.#tokens = tokens;
  }

  forward(x: Tensor): Tensor {
    const { gathered, scattered } = this.#tokens;
    return scattered(this.down.call(gelu(gathered(x, this.up))));
  }
}

export class PaperLayer extends Module<[x: Tensor], Tensor> {
  readonly attentionNorm: LayerNorm;
  readonly attention: Attention;
  readonly mlpNorm: LayerNorm;
  readonly mlp: MLP;
  readonly #full: boolean;

  constructor(shape: LayerShape, variant: LayerVariant = {}) {
    super();
    const { sequenceParallel = false, recompute = 'none' } = variant;
    const tokens = sequenceParallel ? shardedTokens(shape.tensorParallel ?? 1) : everyToken;
    this.attentionNorm = new LayerNorm(shape.hidden, { dtype });
    this.attention = new Attention(shape, tokens, recompute === 'selective');
    this.mlpNorm = new LayerNorm(shape.hidden, { dtype });
    this.mlp = new MLP(shape, tokens);
    this.#full = recompute === 'full';
  }

  /** x [s, b, h] -> [s, b, h], or s / t tokens of it. */
  forward(x: Tensor): Tensor {
    return this.#full ? checkpoint(this.body, [x]) : this.body(x);
  }

  readonly body = (x: Tensor): Tensor => {
    const middle = add(x, dropout(this.attention.call(this.attentionNorm.call(x))));
    return add(middle, dropout(this.mlp.call(this.mlpNorm.call(middle))));
  };
}

/** Norms keep mean and 1 / deviation of each token, 8 bytes, which the paper leaves out as small. */
export function isStatistic({ op, name }: SavedTensorEntry): boolean {
  return op === 'layerNorm' && (name === 'out1' || name === 'out2');
}
