/**
 * The ops of a planned graph that move a value out of memory and back. They are no ops that a user could apply: a graph
 * has them only once it is planned, and programs carry them out in four steps (runtime/backend.ts, TransferStep).
 */

import type { Shape } from '../core/shape.ts';
import type { DType } from '../core/dtype.ts';
import { avalBytes } from '../ir/aval.ts';
import { type Op, movementCost } from '../ir/op.ts';
import { defineOp } from '../ops/define.ts';
import type { Tensor } from '../tensor/tensor.ts';

type NoParams = Readonly<Record<never, never>>;
type FetchParams = { readonly shape: Shape; readonly dtype: DType };

/** x -> a token without bytes that stands for the copy of x. */
export const storeOp: Op<Tensor, NoParams> = defineOp<NoParams, readonly ['x'], never>({
  name: 'store',
  args: ['x'],
  traits: { class: 'barrier', remat: 'never', transfer: 'store' },
  infer: () => [{ shape: [0], dtype: 'int8' }],
  cost: (inputs, outputs) => movementCost(inputs, outputs, avalBytes),
  saves: [],
  vjp: 'nondifferentiable',
  lower: { kind: 'transfer' },
  samples: [],
});

/** token -> the value that was stored, in memory of its own. */
export const fetchOp: Op<Tensor, FetchParams> = defineOp<FetchParams, readonly ['token'], never>({
  name: 'fetch',
  args: ['token'],
  traits: { class: 'barrier', remat: 'costly', transfer: 'fetch' },
  infer: (_, { shape, dtype }) => [{ shape, dtype }],
  cost: (inputs, outputs) => movementCost(inputs, outputs, avalBytes),
  saves: [],
  vjp: 'nondifferentiable',
  lower: { kind: 'transfer' },
  samples: [],
});
