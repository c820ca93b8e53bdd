/** Cross entropy of logits with class numbers. */

import { ArgumentError, ShapeError } from '../../core/errors.ts';
import { formatShape, sameShape } from '../../core/shape.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { div } from '../arithmetic.ts';
import { cast, reshape, sum } from '../broadcast.ts';
import { ne } from '../comparison.ts';
import { requireFloat } from '../define.ts';
import { asIndex } from '../index/axis-view.ts';
import { type CrossEntropyParams, crossEntropyRows } from './cross-entropy-op.ts';

export type LossReduction = 'mean' | 'sum' | 'none';

export interface CrossEntropyOptions {
  /** Targets with this value count for nothing; default -100. */
  readonly ignoreIndex?: number;
  /** 'mean' (default) is over the targets that are not ignored. */
  readonly reduction?: LossReduction;
  /** Share of each target spread over all classes, 0 to 1; default 0. */
  readonly labelSmoothing?: number;
}

/**
 * torch.nn.functional.cross_entropy with the classes on the last axis: logits [..., V], integer targets
 * [...]; a number, or [...] for reduction 'none'. With every target ignored the mean is NaN. A target
 * outside the classes that is not ignored gives NaN. Throws ShapeError, DTypeError, ArgumentError.
 */
export function crossEntropy(
  logits: Tensor,
  targets: Tensor,
  options: CrossEntropyOptions = {},
): Tensor {
  requireFloat('crossEntropy', logits, 'logits');
  checkTargets('crossEntropy', logits, 'logits', targets);
  const params = crossEntropyParams('crossEntropy', options);
  const wanted = flatTargets('crossEntropy', targets);
  const rows = reshape(logits, [wanted.size, logits.shape.at(-1) ?? 0]);
  const losses = crossEntropyRows(rows, wanted, params);
  const loss = reduceLosses(losses, wanted, targets.shape, params.ignoreIndex, options.reduction);
  return loss.dtype === logits.dtype ? loss : cast(loss, logits.dtype);
}

/** Losses [N] as the option asks. */
export function reduceLosses(
  losses: Tensor,
  wanted: Tensor,
  shape: readonly number[],
  ignoreIndex: number,
  reduction: LossReduction = 'mean',
): Tensor {
  if (reduction === 'none') return reshape(losses, shape);
  const total = sum(losses);
  return reduction === 'sum' ? total : div(total, countTargets(wanted, ignoreIndex));
}

/** How many targets are not ignored, as a float32 number. */
export function countTargets(wanted: Tensor, ignoreIndex: number): Tensor {
  return sum(cast(ne(wanted, ignoreIndex), 'float32'));
}

/** Targets as int32 [N]. */
export function flatTargets(who: string, targets: Tensor): Tensor {
  return reshape(asIndex(who, targets), [targets.size]);
}

/** Throws ShapeError unless there is one target per row of `x`. */
export function checkTargets(who: string, x: Tensor, name: string, targets: Tensor): void {
  if (x.rank > 0 && sameShape(x.shape.slice(0, -1), targets.shape)) return;
  throw new ShapeError(
    `${who}: wants one target per row of ${name} (got ${name} ${formatShape(x.shape)}, targets ` +
      `${formatShape(targets.shape)}). Give targets of the shape of ${name} without its last axis.`,
    { [name]: x.shape, targets: targets.shape },
  );
}

/** Checked params. Throws ArgumentError. */
export function crossEntropyParams(who: string, options: CrossEntropyOptions): CrossEntropyParams {
  const { ignoreIndex = -100, labelSmoothing = 0, reduction = 'mean' } = options;
  if (!Number.isInteger(ignoreIndex)) {
    throw new ArgumentError(
      `${who}: ignoreIndex must be an integer (got ${ignoreIndex}). Use -100.`,
    );
  }
  if (!(labelSmoothing >= 0 && labelSmoothing <= 1)) {
    throw new ArgumentError(
      `${who}: labelSmoothing must lie in 0 to 1 (got ${labelSmoothing}). Use 0 for none.`,
    );
  }
  if (!['mean', 'sum', 'none'].includes(reduction)) {
    throw new ArgumentError(
      `${who}: the reduction must be mean, sum or none (got ${reduction}). Choose one of them.`,
    );
  }
  return { ignoreIndex, labelSmoothing };
}
