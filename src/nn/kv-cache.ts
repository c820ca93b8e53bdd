/**
 * Keys and values of the tokens seen so far, for generation. Memory for `maxLength` tokens is taken at
 * once and written in place; the number of tokens in it is a tensor, so one kernel serves every length.
 */

import type { DType } from '../core/dtype.ts';
import { ArgumentError } from '../core/errors.ts';
import { hostTensor } from '../core/host-tensor.ts';
import { zeros } from '../ops/creation.ts';
import { copyInPlace } from '../ops/in-place.ts';
import { narrow } from '../ops/slice.ts';
import { noGrad } from '../tensor/context.ts';
import { fromHost } from '../tensor/factory.ts';
import { type HostState, noteRead, noteWrite } from '../tensor/host-state.ts';
import { currentMode } from '../tensor/mode.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { writeTensor } from '../tensor/write.ts';

export interface KvCacheOptions {
  readonly layers: number;
  readonly batch: number;
  readonly maxLength: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly dtype?: DType;
}

/** One layer's part: both [batch, maxLength, numKvHeads, headDim]. */
export interface LayerCache {
  readonly keys: Tensor;
  readonly values: Tensor;
}

/** The tokens of the present forward: positions [start, length). */
interface Present {
  readonly start: number;
  readonly length: number;
}

export class KvCache {
  readonly maxLength: number;
  readonly batch: number;
  readonly layers: readonly LayerCache[];
  /** int32 [1]: tokens in the cache, those of the present forward included. */
  readonly kvLength: Tensor;
  #present: Present = { start: 0, length: 0 };

  constructor(options: KvCacheOptions) {
    const { layers, batch, maxLength, numKvHeads, headDim, dtype = 'float32' } = options;
    this.maxLength = maxLength;
    this.batch = batch;
    const block = (): Tensor => zeros([batch, maxLength, numKvHeads, headDim], { dtype }).keep();
    this.layers = Array.from({ length: layers }, () => ({ keys: block(), values: block() }));
    this.kvLength = fromHost(hostTensor([0], [1], 'int32')).keep();
  }

  /** Tokens in the cache. */
  get length(): number {
    noteRead(this, KvCache.presentState);
    return this.#present.length;
  }

  /** Position of the first token of the present forward. */
  get start(): number {
    noteRead(this, KvCache.presentState);
    return this.#present.start;
  }

  /** Makes room for `count` tokens that the coming forward writes. Throws ArgumentError when full. */
  append(count: number): void {
    const start = this.length;
    if (start + count > this.maxLength) {
      throw new ArgumentError(
        `KvCache: ${count} more tokens do not fit (got ${start} of ${this.maxLength} used). ` +
          'Make the cache longer, or reset it.',
        { length: start, count, maxLength: this.maxLength },
      );
    }
    this.#setPresent({ start, length: start + count });
    const length = hostTensor([start + count], [1], 'int32');
    currentMode().onEachRun(() => writeTensor(this.kvLength, length));
  }

  /** Forgets all tokens. */
  reset(): void {
    this.#setPresent({ start: 0, length: 0 });
  }

  /** Stores keys and values [batch, T, numKvHeads, headDim] of the present tokens; returns the layer's whole part. */
  store(layer: number, keys: Tensor, values: Tensor): LayerCache {
    const own = this.layers[layer];
    if (!own || keys.shape[0] !== this.batch) {
      throw new ArgumentError(
        `KvCache: made for ${this.layers.length} layers and batch ${this.batch} (got layer ${layer}, keys ${keys.describe()}). ` +
          'Make the cache for this model and batch.',
        { layer, keys: keys.shape },
      );
    }
    noGrad(() =>
      scope(() => {
        const { start } = this;
        const count = this.length - start;
        copyInPlace(narrow(own.keys, 1, start, count), keys);
        copyInPlace(narrow(own.values, 1, start, count), values);
      }),
    );
    return own;
  }

  #setPresent(present: Present): void {
    noteWrite(this, KvCache.presentState);
    this.#present = present;
  }

  static readonly presentState: HostState<KvCache, Present> = {
    describe: () => 'the number of tokens in the KV cache',
    get: (cache) => cache.#present,
    set: (cache, value) => {
      cache.#present = value;
    },
    image: ({ start, length }) => `${start} to ${length}`,
    sameImage: ({ start, length }, image) => `${start} to ${length}` === image,
  };

  dispose(): void {
    for (const { keys, values } of this.layers) {
      keys.dispose();
      values.dispose();
    }
    this.kvLength.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
