/**
 * The time-memory frontier of a step (checkpointing.md P7): for budgets from the smallest that can be kept to
 * what recomputing nothing takes, the real peak and the estimated time of the plan for each.
 */

import { ArgumentError, definite } from '../core/errors.ts';
import type { ActionSearch } from './action-search.ts';

export interface FrontierPoint {
  /** What a run allocates: feasible as a budget. */
  readonly peakBytes: number;
  /** Estimated time added by recomputing, as a share of the step without. */
  readonly extraTime: number;
  /** Proven: no plan that the planner counts the same memory for adds less. */
  readonly extraTimeBound: number;
}

export interface FrontierRequest {
  /** Budgets to plan for. */
  readonly points: number;
  /** Told the share that is done, in 0..1. */
  readonly onProgress?: ((done: number) => void) | undefined;
}

/** Points by rising memory; a point that another beats in both is left out. Throws ArgumentError for fewer than two. */
export function frontierOf(
  search: ActionSearch,
  { points, onProgress = () => {} }: FrontierRequest,
): FrontierPoint[] {
  if (!Number.isInteger(points) || points < 2) {
    throw new ArgumentError(
      `frontier: the number of points is out of range (got ${points}). Use an integer from 2 on.`,
    );
  }
  const baseNs = search.estimate(search.base);
  const high = search.base.peakBytes;
  const low = Math.min(high, definite(search.smallest()).choice.lowered.peakBytes);
  const found: FrontierPoint[] = [];
  for (let i = 0; i < points; i++) {
    const budget = Math.round(low + ((high - low) * i) / (points - 1));
    onProgress(i / points);
    const choice = search.within(budget)?.choice;
    if (!choice) continue;
    const { baseNs: modelNs, lowerBoundNs } = choice.planned;
    const point = {
      peakBytes: choice.lowered.peakBytes,
      extraTime: choice.estimatedNs / baseNs - 1,
      extraTimeBound: modelNs === 0 ? 0 : lowerBoundNs / modelNs,
    };
    const last = found.at(-1);
    if (!last || (point.extraTime < last.extraTime && point.peakBytes > last.peakBytes))
      found.push(point);
  }
  return found;
}
