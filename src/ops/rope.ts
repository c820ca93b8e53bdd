/** Rotary position embedding ("RoFormer", arXiv 2104.09864), in Llama's rotate-half convention. */

import { ShapeError } from '../core/errors.ts';
import { type Layout, type Shape, formatShape, numElements } from '../core/shape.ts';
import type { Aval } from '../ir/aval.ts';
import { e } from '../ir/expr.ts';
import type { KernelTemplate, Op } from '../ir/op.ts';
import { apply1 } from '../tensor/apply.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { add, mul, sub } from './arithmetic.ts';
import { gradientTo, sum } from './broadcast.ts';
import { arithmeticCost, defineOp, floats, inputExpr, present, requireFloat } from './define.ts';
import { narrow } from './slice.ts';

/** `inverse` rotates backwards: the gradient's direction. */
type RopeParams = { readonly inverse: boolean };

export const ropeOp: Op<Tensor, RopeParams> = defineOp<
  RopeParams,
  readonly ['x', 'cos', 'sin'],
  'x' | 'cos' | 'sin'
>({
  name: 'rope',
  args: ['x', 'cos', 'sin'],
  traits: { class: 'elementwise', remat: 'cheap' },
  infer: ([x, cos, sin]) => {
    checkTables(present(x), present(cos), present(sin));
    return [present(x)];
  },
  cost: (inputs, outputs) =>
    arithmeticCost(inputs, outputs, 3 * numElements(present(outputs[0]).shape)),
  saves: (_, needs) => (needs(1) || needs(2) ? ['x', 'cos', 'sin'] : ['cos', 'sin']),
  vjp: ([g], { params, saved, needs, inputs }) => {
    if (!g) return [];
    const tables = [saved('cos'), saved('sin')] as const;
    const dx = needs(0) ? apply1(ropeOp, [g, ...tables], { inverse: !params.inverse }) : undefined;
    if (!needs(1) && !needs(2)) return [dx];
    const [g1, g2] = halves(g);
    const [x1, x2] = halves(saved('x'));
    const forCos = needs(1) ? add(mul(g1, x1), mul(g2, x2)) : undefined;
    const forSin = needs(2)
      ? params.inverse
        ? sub(mul(g1, x2), mul(g2, x1))
        : sub(mul(g2, x1), mul(g1, x2))
      : undefined;
    return [
      dx,
      forCos && toTable(forCos, present(inputs[1])),
      forSin && toTable(forSin, present(inputs[2])),
    ];
  },
  lower: {
    kind: 'kernel',
    template: ([x, cos, sin], _, { inverse }): KernelTemplate => {
      const { shape } = present(x);
      const [batch, time, heads, width] = [0, 1, 2, 3].map((axis) => present(shape[axis]));
      const half = present(width) / 2;
      // Space [B, T, H, 2, D/2]: the last axis of x in its two halves.
      const space = [present(batch), present(time), present(heads), 2, half];
      const split = (layout: Layout): Layout => splitLast(layout, half, false);
      const swapped = (layout: Layout): Layout => splitLast(layout, half, true);
      const own = [0, 1, 2, 3, 4];
      const tableAxes = present(cos).shape.length === 2 ? [-1, 0, -1, -1, 1] : [0, 1, -1, -1, 2];
      const turned = e.mul(inputExpr(1, present(x)), inputExpr(3, present(sin)));
      // First half: x1 cos - x2 sin; second half: x2 cos + x1 sin.
      const minus = e.binary('eq', e.coord(3), e.i32(inverse ? 1 : 0));
      const kept = e.mul(inputExpr(0, present(x)), inputExpr(2, present(cos)));
      const signed = e.select(minus, e.unary('neg', turned), turned);
      return {
        space,
        reduced: [],
        inputs: [
          { operand: 0, axes: own, relayout: split },
          { operand: 0, axes: own, relayout: swapped },
          { operand: 1, axes: tableAxes },
          { operand: 2, axes: tableAxes },
        ],
        outputs: [{ axes: own, expr: e.add(kept, signed), relayout: split }],
      };
    },
  },
  samples: [
    {
      label: 'shared',
      inputs: [floats([2, 5, 3, 8]), floats([5, 4]), floats([5, 4])],
      params: { inverse: false },
    },
    {
      label: 'perRow',
      inputs: [floats([2, 3, 1, 6]), floats([2, 3, 3]), floats([2, 3, 3])],
      params: { inverse: true },
    },
  ],
});

/**
 * Rotates pairs (j, j + D/2) of each head: x1 cos - x2 sin, x2 cos + x1 sin. x [B, T, H, D]; cos and sin
 * [T, D/2] for positions that all rows share, or [B, T, D/2]. Throws ShapeError when they do not fit.
 */
export function applyRope(x: Tensor, cos: Tensor, sin: Tensor): Tensor {
  return apply1(ropeOp, [x, cos, sin], { inverse: false });
}

/** The last axis as [2, half]; `swap` exchanges the halves. */
function splitLast(layout: Layout, half: number, swap: boolean): Layout {
  const outer = layout.strides.slice(0, -1);
  const step = present(layout.strides[layout.strides.length - 1]);
  const jump = step * half;
  return swap
    ? { offset: layout.offset + jump, strides: [...outer, -jump, step] }
    : { offset: layout.offset, strides: [...outer, jump, step] };
}

function halves(x: Tensor): readonly [Tensor, Tensor] {
  const half = present(x.shape[3]) / 2;
  return [narrow(x, 3, 0, half), narrow(x, 3, half, half)];
}

/** A gradient [B, T, H, D/2] as that of a table. */
function toTable(g: Tensor, table: Aval): Tensor {
  const overHeads = sum(g, 2, { dtype: 'float32' });
  return gradientTo(table.shape.length === 2 ? sum(overHeads, 0) : overHeads, table);
}

function checkTables(x: Aval, cos: Aval, sin: Aval): void {
  requireFloat('applyRope', x);
  const [batch, time, , width] = x.shape;
  const fits = (table: Shape): boolean => {
    const [rows, length, pairs] = table.length === 2 ? [batch, ...table] : table;
    return (
      (table.length === 2 || table.length === 3) &&
      rows === batch &&
      length === time &&
      pairs === (width ?? 0) / 2
    );
  };
  if (
    x.shape.length === 4 &&
    fits(cos.shape) &&
    fits(sin.shape) &&
    cos.shape.length === sin.shape.length
  ) {
    return;
  }
  throw new ShapeError(
    `applyRope: x must be [B, T, H, D] and the tables [T, D/2] or [B, T, D/2] (got x ${formatShape(x.shape)}, ` +
      `cos ${formatShape(cos.shape)}, sin ${formatShape(sin.shape)}). Cut the tables to the positions of x.`,
    { x: x.shape, cos: cos.shape, sin: sin.shape },
  );
}
