/** How far compressed values are from what was saved. */

import { abs } from '../ops/unary.ts';
import { amax, sumSquares } from '../ops/reductions.ts';
import { sub } from '../ops/arithmetic.ts';
import { cast } from '../ops/broadcast.ts';
import { item } from '../tensor/factory.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';

export interface CompressionError {
  /** Largest error of an element, relative to the largest magnitude in its tensor; the worst tensor counts. */
  readonly maxRelative: number;
  /** Root of the sum of squared errors over that of squared values, over all tensors. */
  readonly rmsRelative: number;
  /** Values that were compared. */
  readonly tensors: number;
}

/** Adds up errors over many tensors. */
export class ErrorTally {
  #maxRelative = 0;
  #squaredError = 0;
  #squaredValue = 0;
  #tensors = 0;

  /** Reads results back: not for traced steps. */
  add(original: Tensor, restored: Tensor): void {
    scope(() => {
      const value = cast(original, 'float32');
      const difference = sub(cast(restored, 'float32'), value);
      const largest = item(amax(abs(value)));
      if (largest > 0) {
        this.#maxRelative = Math.max(this.#maxRelative, item(amax(abs(difference))) / largest);
      }
      this.#squaredError += item(sumSquares(difference));
      this.#squaredValue += item(sumSquares(value));
      this.#tensors++;
    });
  }

  get result(): CompressionError {
    const ratio = this.#squaredValue === 0 ? 0 : this.#squaredError / this.#squaredValue;
    return {
      maxRelative: this.#maxRelative,
      rmsRelative: Math.sqrt(ratio),
      tensors: this.#tensors,
    };
  }
}
