/** Which keys a query sees, as a bool tensor: for attention written out in plain ops. */

import { ArgumentError } from '../../core/errors.ts';
import { avalBytes } from '../../ir/aval.ts';
import { type Expr, e } from '../../ir/expr.ts';
import { type Op, type Params, movementCost } from '../../ir/op.ts';
import { apply1 } from '../../tensor/apply.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { defineOp, ownAxes, present } from '../define.ts';

export interface BandParams extends Params {
  readonly rows: number;
  readonly columns: number;
  /** Column j of row i is set when j - i <= upper. */
  readonly upper: number;
  /** And, when not null, when j - i > lower. */
  readonly lower: number | null;
}

export const bandMaskOp: Op<Tensor, BandParams> = defineOp<BandParams, readonly [], never>({
  name: 'bandMask',
  args: [],
  traits: { class: 'creation', remat: 'free' },
  infer: (_, { rows, columns }) => [{ shape: [rows, columns], dtype: 'bool' }],
  cost: (inputs, outputs) => movementCost(inputs, outputs, avalBytes),
  saves: [],
  vjp: 'nondifferentiable',
  lower: {
    kind: 'kernel',
    template: (_, [out], { upper, lower }) => {
      const distance = e.sub(e.coord(1), e.coord(0));
      let inside: Expr = e.binary('le', distance, e.scalar(0, 'i32'));
      if (lower !== null) {
        inside = e.binary('and', inside, e.binary('gt', distance, e.scalar(1, 'i32')));
      }
      return {
        space: present(out).shape,
        reduced: [],
        inputs: [],
        outputs: [{ axes: ownAxes(present(out).shape), expr: inside }],
        scalars: [
          { type: 'i32', value: upper },
          ...(lower === null ? [] : [{ type: 'i32' as const, value: lower }]),
        ],
      };
    },
  },
  samples: [
    { label: 'triangle', inputs: [], params: { rows: 4, columns: 6, upper: 2, lower: null } },
    { label: 'band', inputs: [], params: { rows: 5, columns: 5, upper: 0, lower: -3 } },
  ],
});

/** bool [rows, columns]: true where lower < column - row <= upper; without `lower` no bound below. */
export function bandMask(rows: number, columns: number, upper: number, lower?: number): Tensor {
  return apply1(bandMaskOp, [], { rows, columns, upper, lower: lower ?? null });
}

/** The mask of T queries, aligned to the end, and S keys; `window` 0 hides none of the past. */
export function causalMask(T: number, S: number, window = 0): Tensor {
  const shift = S - T;
  return bandMask(T, S, shift, window > 0 ? shift - window : undefined);
}

/** Throws ArgumentError unless the window is an integer of at least 1, or not given. */
export function checkWindow(who: string, window: number | undefined, causal: boolean): number {
  if (window === undefined) return 0;
  if (!Number.isInteger(window) || window < 1 || !causal) {
    throw new ArgumentError(
      `${who}: a window is a number of keys from 1 up and needs a causal mask (got window ${window}, causal ` +
        `${causal}). Leave it out for all keys.`,
      { window },
    );
  }
  return window;
}
