/** The linear layer's product: x times the transpose of a weight that is stored [out, in]. */

import { ShapeError, invariant } from '../../core/errors.ts';
import { formatShape } from '../../core/shape.ts';
import type { Op, Operand } from '../../ir/op.ts';
import { apply1 } from '../../tensor/apply.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { add } from '../arithmetic.ts';
import { cast } from '../broadcast.ts';
import { floats, present, routineOp } from '../define.ts';
import { requireFloat32 } from '../float32.ts';
import { acceptsMatrix, gemmCall } from './gemm-layout.ts';
import { type NoParams, asRows, checkProduct, matmul, matmulFlops, swapLast } from './matmul.ts';

/**
 * x [..., in], weight [out, in], float32. An op of its own beside matmul so that the gradient of the
 * weight is made in the weight's layout.
 */
export const linearOp: Op<Tensor, NoParams> = routineOp<
  NoParams,
  readonly ['x', 'weight'],
  'x' | 'weight'
>({
  name: 'linear',
  args: ['x', 'weight'],
  traits: { class: 'matmul', remat: 'costly' },
  infer: (inputs) => {
    const [x, weight] = [present(inputs[0]), present(inputs[1])];
    requireFloat32('linear', inputs);
    if (weight.shape.length !== 2 || x.shape.length === 0 || x.shape.at(-1) !== weight.shape[1]) {
      throw new ShapeError(
        `linear: the weight must be [out, in] with in equal to axis -1 of x (got x ${formatShape(x.shape)}, ` +
          `weight ${formatShape(weight.shape)}). Transpose the weight, or check the layer's sizes.`,
        { x: x.shape, weight: weight.shape },
      );
    }
    return [{ shape: [...x.shape.slice(0, -1), weight.shape[0] ?? 1], dtype: 'float32' }];
  },
  flops: ([x], [out]) => matmulFlops(present(out).shape, present(x).shape.at(-1) ?? 1),
  saves: (_, needs) => [
    ...(needs(1) ? (['x'] as const) : []),
    ...(needs(0) ? (['weight'] as const) : []),
  ],
  vjp: ([g], { needs, saved }) => {
    if (!g) return [];
    return [
      needs(0) ? matmul(g, saved('weight')) : undefined,
      needs(1) ? matmul(swapLast(asRows(g)), asRows(saved('x'))) : undefined,
    ];
  },
  routine: {
    acceptsLayout: (_, shape, strides) => acceptsMatrix(shape, strides),
    wasm: ([x, weight], [out]) => {
      const gemm = gemmCall(asMatrix(x), flipped(present(weight)), asMatrix(out), [0, 1, 2]);
      invariant(gemm, () => 'linear: an operand that BLAS cannot read');
      return { gemm };
    },
    wgsl: { none: 'the kernel is written for processors' },
    reference: ([x, weight], [out], avals) => {
      const [n, k] = present(avals.inputs[1]).shape as [number, number];
      const [a, b, c] = [present(x), present(weight), present(out)];
      for (let i = 0; i < c.length; i++) {
        const [row, column] = [Math.floor(i / n), i % n];
        let total = 0;
        for (let p = 0; p < k; p++) total += (a[row * k + p] ?? 0) * (b[column * k + p] ?? 0);
        c[i] = total;
      }
    },
  },
  samples: [
    { label: 'matrix', inputs: [floats([5, 7]), floats([3, 7])], params: {} },
    { label: 'batch', inputs: [floats([2, 3, 7]), floats([5, 7])], params: {} },
  ],
});

/**
 * x weight^T + bias (torch.nn.functional.linear): x [..., in], weight [out, in], bias [out]. 16-bit
 * floats multiply in float32 and round once. Throws ShapeError when the sizes do not fit, DTypeError for
 * integers or mixed dtypes.
 */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor): Tensor {
  checkProduct('linear', x, weight);
  if (bias && (bias.rank !== 1 || bias.shape[0] !== weight.shape[0])) {
    throw new ShapeError(
      `linear: the bias must have one value per output (got bias ${formatShape(bias.shape)}, weight ` +
        `${formatShape(weight.shape)}). Give a bias of shape [out].`,
      { bias: bias.shape, weight: weight.shape },
    );
  }
  if (x.dtype !== 'float32') {
    const wide = (t: Tensor): Tensor => cast(t, 'float32');
    return cast(linear(wide(x), wide(weight), bias && wide(bias)), x.dtype);
  }
  const product = apply1(linearOp, [x, weight], {});
  return bias ? add(product, bias) : product;
}

/** A vector as a row. */
function asMatrix(operand: Operand | undefined): Operand {
  const { aval, layout } = present(operand);
  if (aval.shape.length > 1) return present(operand);
  const shape = [1, aval.shape[0] ?? 1];
  return {
    aval: { shape, dtype: aval.dtype },
    layout: { offset: layout.offset, strides: [shape[1] ?? 1, layout.strides[0] ?? 1] },
  };
}

function flipped({ aval, layout }: Operand): Operand {
  return {
    aval: { shape: [...aval.shape].reverse(), dtype: aval.dtype },
    layout: { offset: layout.offset, strides: [...layout.strides].reverse() },
  };
}
