/** oneHot, tril and triu: kernels that compare coordinates. */

import { ShapeError } from '../../core/errors.ts';
import { formatShape } from '../../core/shape.ts';
import { e } from '../../ir/expr.ts';
import { type Op, movementCost } from '../../ir/op.ts';
import { avalBytes } from '../../ir/aval.ts';
import { apply1 } from '../../tensor/apply.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import {
  arithmeticCost,
  defineOp,
  floats,
  inputExpr,
  ownAxes,
  present,
  storedAs,
} from '../define.ts';
import { asIndex } from './axis-view.ts';

type ClassParams = { readonly classes: number };

export const oneHotOp: Op<Tensor, ClassParams> = defineOp<ClassParams, readonly ['index'], never>({
  name: 'oneHot',
  args: ['index'],
  traits: { class: 'index', remat: 'cheap' },
  infer: ([index], { classes }) => [{ shape: [...present(index).shape, classes], dtype: 'int32' }],
  cost: (inputs, outputs) => movementCost(inputs, outputs, avalBytes),
  saves: [],
  vjp: 'nondifferentiable',
  lower: {
    kind: 'kernel',
    template: ([index], [out]) => {
      const { shape } = present(index);
      const space = present(out).shape;
      const hit = e.binary('eq', inputExpr(0, present(index)), e.coord(shape.length));
      return {
        space,
        reduced: [],
        inputs: [{ operand: 0, axes: [...ownAxes(shape), -1] }],
        outputs: [{ axes: ownAxes(space), expr: storedAs(hit, present(out)) }],
      };
    },
  },
  samples: [
    {
      label: 'vector',
      inputs: [{ shape: [5], dtype: 'int32', range: [0, 4] }],
      params: { classes: 4 },
    },
    {
      label: 'matrix',
      inputs: [{ shape: [2, 3], dtype: 'int32', range: [0, 7] }],
      params: { classes: 7 },
    },
  ],
});

/**
 * int32 [...index.shape, classes] with 1 where the class is the index, else 0 (torch.nn.functional.one_hot).
 * An index outside the classes gives a row of zeros. Throws DTypeError for indices that are not integers.
 */
export function oneHot(index: Tensor, classes: number): Tensor {
  if (!Number.isInteger(classes) || classes < 0) {
    throw new ShapeError(
      `oneHot: the number of classes must be an integer from 0 up (got ${classes}).`,
    );
  }
  return apply1(oneHotOp, [asIndex('oneHot', index)], { classes });
}

type DiagonalParams = { readonly diagonal: number };

function triangleOp(name: 'tril' | 'triu'): Op<Tensor, DiagonalParams> {
  return defineOp<DiagonalParams, readonly ['x'], never>({
    name,
    args: ['x'],
    traits: { class: 'elementwise', remat: 'cheap' },
    infer: ([input]) => {
      const x = present(input);
      if (x.shape.length < 2) {
        throw new ShapeError(
          `${name}: wants a matrix or a batch of them (got ${formatShape(x.shape)}). Reshape it.`,
        );
      }
      return [x];
    },
    cost: (inputs, outputs) => arithmeticCost(inputs, outputs, 0),
    saves: [],
    vjp: ([g], { params }) => [g && (name === 'tril' ? tril : triu)(g, params.diagonal)],
    lower: {
      kind: 'kernel',
      template: ([input], [output], { diagonal }) => {
        const [x, out] = [present(input), present(output)];
        const rank = x.shape.length;
        const above = e.sub(e.coord(rank - 1), e.coord(rank - 2));
        const kept = e.binary(name === 'tril' ? 'le' : 'ge', above, e.scalar(0, 'i32'));
        const value = inputExpr(0, x);
        const expr = e.select(kept, value, e.constant(0, value.type));
        return {
          space: x.shape,
          reduced: [],
          inputs: [{ operand: 0, axes: ownAxes(x.shape) }],
          outputs: [{ axes: ownAxes(x.shape), expr: storedAs(expr, out) }],
          scalars: [{ type: 'i32', value: diagonal }],
        };
      },
    },
    samples: [
      { label: 'main', inputs: [floats([4, 6])], params: { diagonal: 0 } },
      { label: 'batch', inputs: [floats([2, 5, 3])], params: { diagonal: -1 } },
    ],
  });
}

export const trilOp: Op<Tensor, DiagonalParams> = triangleOp('tril');

/** Elements on and below a diagonal of the last two axes, zero elsewhere (torch.tril). */
export function tril(x: Tensor, diagonal = 0): Tensor {
  return apply1(trilOp, [x], { diagonal: integer('tril', diagonal) });
}

export const triuOp: Op<Tensor, DiagonalParams> = triangleOp('triu');

/** Elements on and above a diagonal of the last two axes, zero elsewhere (torch.triu). */
export function triu(x: Tensor, diagonal = 0): Tensor {
  return apply1(triuOp, [x], { diagonal: integer('triu', diagonal) });
}

function integer(who: string, diagonal: number): number {
  if (Number.isInteger(diagonal)) return diagonal;
  throw new ShapeError(`${who}: the diagonal must be an integer (got ${diagonal}). Round it.`);
}
