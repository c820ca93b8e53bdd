/** Dropout: zeroes elements at random while training. */

import { ArgumentError } from '../core/errors.ts';
import { dropout } from '../ops/random.ts';
import { type Generator, defaultGenerator } from '../tensor/generator.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { Module } from './module.ts';

/** Zeroes each element with probability `p` and scales the others by 1 / (1 - p) (torch.nn.Dropout). */
export class Dropout extends Module<[x: Tensor], Tensor> {
  readonly p: number;
  readonly generator: Generator;

  /** Throws ArgumentError unless 0 <= p < 1. */
  constructor(p = 0.5, options: { readonly generator?: Generator } = {}) {
    super();
    if (!(p >= 0 && p < 1)) {
      throw new ArgumentError(`Dropout: p must be in [0, 1) (got ${p}). Use 0 to switch it off.`, {
        p,
      });
    }
    this.p = p;
    this.generator = options.generator ?? defaultGenerator;
  }

  forward(x: Tensor): Tensor {
    if (!this.training || this.p === 0) return x;
    return dropout(x, this.p, { training: true, generator: this.generator });
  }
}
