/** Where the extremes of an axis are. */

import { ShapeError } from '../core/errors.ts';
import { formatShape, normalizeAxis, numElements } from '../core/shape.ts';
import { e } from '../ir/expr.ts';
import type { Op, Params } from '../ir/op.ts';
import { apply1 } from '../tensor/apply.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { reshape } from './broadcast.ts';
import {
  arithmeticCost,
  defineOp,
  floats,
  inputExpr,
  keptAxes,
  ownAxes,
  present,
  reducedShape,
} from './define.ts';
import type { ReduceOptions } from './reductions.ts';

interface ArgParams extends Params {
  readonly axis: number;
  readonly keepDims: boolean;
}

function argOp(name: string, op: 'max' | 'min'): Op<Tensor, ArgParams> {
  return defineOp<ArgParams, readonly ['x'], never>({
    name,
    args: ['x'],
    traits: { class: 'reduction', remat: 'cheap' },
    infer: ([x], { axis, keepDims }) => {
      const { shape } = present(x);
      if (shape[axis] === 0) {
        throw new ShapeError(
          `${name}: axis ${axis} is empty (got shape ${formatShape(shape)}). Choose one that is not.`,
        );
      }
      return [{ shape: reducedShape(shape, { axes: [axis], keepDims }), dtype: 'int32' }];
    },
    cost: (inputs, outputs) =>
      arithmeticCost(inputs, outputs, 3 * numElements(present(inputs[0]).shape)),
    saves: [],
    vjp: 'nondifferentiable',
    lower: {
      kind: 'kernel',
      template: ([input], _, { axis, keepDims }) => {
        const { shape } = present(input);
        const raw = inputExpr(0, present(input));
        const x = raw.type === 'bool' ? e.cast(raw, 'i32') : raw;
        const extreme = e.reduce(op, x);
        const equal = e.binary('eq', x, extreme);
        // A NaN is the extreme of its row; the first one counts.
        const hit =
          x.type === 'f32'
            ? e.select(e.unary('isNan', extreme), e.unary('isNan', x), equal)
            : equal;
        const index = e.select(hit, e.coord(axis), e.i32(2 ** 31 - 1));
        return {
          space: shape,
          reduced: [axis],
          inputs: [{ operand: 0, axes: ownAxes(shape) }],
          outputs: [
            { axes: keptAxes(shape.length, [axis], keepDims), expr: e.reduce('min', index) },
          ],
        };
      },
    },
    samples: [
      { label: 'rows', inputs: [floats([3, 19])], params: { axis: 1, keepDims: false } },
      { label: 'middle', inputs: [floats([2, 5, 3])], params: { axis: 1, keepDims: true } },
    ],
  });
}

function runArg(
  op: Op<Tensor, ArgParams>,
  x: Tensor,
  axis: number | undefined,
  options: ReduceOptions,
): Tensor {
  const keepDims = options.keepDims ?? false;
  if (axis === undefined || x.rank === 0) {
    const index = apply1(op, [reshape(x, [x.size])], { axis: 0, keepDims: false });
    return keepDims ? reshape(index, new Array<number>(x.rank).fill(1)) : index;
  }
  return apply1(op, [x], { axis: normalizeAxis(op.name, axis, x.rank), keepDims });
}

export const argmaxOp: Op<Tensor, ArgParams> = argOp('argmax', 'max');
/** Index of the first largest element along an axis, int32; of the flattened tensor without one (torch.argmax). */
export function argmax(x: Tensor, axis?: number, options: ReduceOptions = {}): Tensor {
  return runArg(argmaxOp, x, axis, options);
}

export const argminOp: Op<Tensor, ArgParams> = argOp('argmin', 'min');
/** Index of the first smallest element along an axis, int32 (torch.argmin). */
export function argmin(x: Tensor, axis?: number, options: ReduceOptions = {}): Tensor {
  return runArg(argminOp, x, axis, options);
}
