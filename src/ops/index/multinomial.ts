/** Drawing class numbers from probabilities. */

import { ArgumentError, ShapeError } from '../../core/errors.ts';
import { formatShape } from '../../core/shape.ts';
import { noGrad } from '../../tensor/context.ts';
import type { Generator } from '../../tensor/generator.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { scope } from '../../tensor/with-scope.ts';
import { div, maximum, mul, sub } from '../arithmetic.ts';
import { cast, expand } from '../broadcast.ts';
import { requireFloat } from '../define.ts';
import { uniform } from '../random.ts';
import { argmax } from '../argmax.ts';
import { log } from '../unary.ts';
import { unsqueeze } from '../views.ts';
import { topk } from './sort.ts';

export interface MultinomialOptions {
  /** Whether a class may be drawn again. Default false. */
  readonly replacement?: boolean;
  readonly generator?: Generator;
}

/**
 * `count` class numbers (int32 [..., count]) per row of `weights` [..., n], which are not negative and need
 * not sum to one (torch.multinomial). Draws by exponential races: class i has the arrival time q / weight
 * with q exponential, and the earliest win; so one draw of the generator serves all rows. Without
 * replacement at least `count` weights must be positive. Throws ArgumentError, ShapeError, DTypeError.
 */
export function multinomial(
  weights: Tensor,
  count: number,
  options: MultinomialOptions = {},
): Tensor {
  requireFloat('multinomial', weights, 'weights');
  const { replacement = false, generator } = options;
  const classes = weights.shape.at(-1);
  if (classes === undefined || classes === 0) {
    throw new ShapeError(
      `multinomial: the last axis must hold the weights (got shape ${formatShape(weights.shape)}). Add an axis.`,
    );
  }
  if (!Number.isInteger(count) || count < 1 || (!replacement && count > classes)) {
    throw new ArgumentError(
      `multinomial: the number of draws must be an integer from 1${replacement ? '' : ` to ${classes}`} ` +
        `(got ${count}). Draw fewer, or with replacement.`,
      { count, classes },
    );
  }
  return noGrad(() =>
    scope(() => {
      const wide = cast(weights, 'float32');
      const rows = replacement
        ? expand(unsqueeze(wide, -2), [...wide.shape.slice(0, -1), count, classes])
        : wide;
      const u = uniform(rows.shape, generator ? { generator } : {});
      // u lies in [0, 1): 1 - u is never 0, and times of 0 are kept from making 0 / 0.
      const times = maximum(mul(log(sub(1, u)), -1), 1e-20);
      const scores = div(rows, times);
      return replacement ? argmax(scores, -1) : topk(scores, count).indices;
    }),
  );
}
