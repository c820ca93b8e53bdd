/** Products that are added to something: torch.addmm, and its in-place form for accumulating gradients. */

import { ShapeError, invariant } from '../../core/errors.ts';
import { broadcastShapes, formatShape, sameShape } from '../../core/shape.ts';
import type { Op } from '../../ir/op.ts';
import { apply1 } from '../../tensor/apply.ts';
import { adoptInPlace } from '../adopt-in-place.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { add, mul } from '../arithmetic.ts';
import { floats, present, routineOp } from '../define.ts';
import { requireFloat32 } from '../float32.ts';
import { acceptsMatrix, gemmCall, matrixLayout } from './gemm-layout.ts';
import { matmul, matmulFlops, productSaves, swapLast } from './matmul.ts';

export type AddmmParams = { readonly alpha: number; readonly beta: number };

/** c [m, n] becomes beta * c + alpha * a b, with a [m, k] and b [k, n]; float32. */
export const addmmInPlaceOp: Op<Tensor, AddmmParams> = routineOp<
  AddmmParams,
  readonly ['c', 'a', 'b'],
  'a' | 'b'
>({
  name: 'addmmInPlace',
  args: ['c', 'a', 'b'],
  traits: { class: 'matmul', remat: 'costly', updates: [{ input: 0, out: 0 }] },
  infer: (inputs) => {
    requireFloat32('addmmInPlace', inputs);
    const [c, a, b] = [present(inputs[0]), present(inputs[1]), present(inputs[2])];
    const fits =
      c.shape.length === 2 &&
      a.shape.length === 2 &&
      b.shape.length === 2 &&
      a.shape[1] === b.shape[0] &&
      sameShape(c.shape, [a.shape[0] ?? 0, b.shape[1] ?? 0]);
    if (!fits) {
      throw new ShapeError(
        `addmmInPlace: wants c [m, n], a [m, k], b [k, n] (got c ${formatShape(c.shape)}, a ${formatShape(a.shape)}, ` +
          `b ${formatShape(b.shape)}). Reshape them to matrices that fit.`,
        { c: c.shape, a: a.shape, b: b.shape },
      );
    }
    return [c];
  },
  flops: ([, a], [out]) => matmulFlops(present(out).shape, present(a).shape[1] ?? 1),
  saves: (_, needs) => productSaves((input) => needs(input + 1)),
  vjp: ([g], { params, needs, saved }) => {
    if (!g) return [];
    const scaled = (x: Tensor, factor: number): Tensor => (factor === 1 ? x : mul(x, factor));
    return [
      needs(0) ? scaled(g, params.beta) : undefined,
      needs(1) ? scaled(matmul(g, swapLast(saved('b'))), params.alpha) : undefined,
      needs(2) ? scaled(matmul(swapLast(saved('a')), g), params.alpha) : undefined,
    ];
  },
  routine: {
    acceptsLayout: (operand, shape, strides) => {
      if (operand > 0) return acceptsMatrix(shape, strides);
      const [rows = 1, columns = 1] = shape;
      const layout = matrixLayout(rows, columns, strides[0] ?? 0, strides[1] ?? 0);
      return layout !== undefined && !layout.trans;
    },
    wasm: ([, a, b], [out], params) => {
      const gemm = gemmCall(present(a), present(b), present(out), [1, 2, 3], params);
      invariant(gemm, () => 'addmmInPlace: an operand that BLAS cannot read');
      return { gemm };
    },
    wgsl: { none: 'the kernel is written for processors' },
    reference: ([c, a, b], [out], avals, { alpha, beta }) => {
      const [old, left, right, result] = [present(c), present(a), present(b), present(out)];
      const [m = 0, n = 0] = present(avals.outputs[0]).shape;
      const k = present(avals.inputs[1]).shape[1] ?? 0;
      for (let i = 0; i < m; i++) {
        for (let j = 0; j < n; j++) {
          let total = 0;
          for (let p = 0; p < k; p++) total += (left[i * k + p] ?? 0) * (right[p * n + j] ?? 0);
          const at = i * n + j;
          result[at] = alpha * total + (beta === 0 ? 0 : beta * (old[at] ?? 0));
        }
      }
    },
  },
  samples: [
    {
      label: 'plain',
      inputs: [floats([5, 3]), floats([5, 7]), floats([7, 3])],
      params: { alpha: 1, beta: 1 },
    },
    {
      label: 'scaled',
      inputs: [floats([2, 9]), floats([2, 4]), floats([4, 9])],
      params: { alpha: -0.5, beta: 0.75 },
    },
  ],
});

export interface AddmmOptions {
  /** Factor of the product; default 1. */
  readonly alpha?: number;
  /** Factor of the addend; default 1. With 0 the addend is not read, as in BLAS. */
  readonly beta?: number;
}

/**
 * c becomes beta * c + alpha * a b in c's memory (torch.Tensor.addmm_): c [m, n], a [m, k], b [k, n], all
 * float32. Returns c. Throws ShapeError when they do not fit, DTypeError for another dtype.
 */
export function addmmInPlace(c: Tensor, a: Tensor, b: Tensor, options: AddmmOptions = {}): Tensor {
  const { alpha = 1, beta = 1 } = options;
  return adoptInPlace(c, apply1(addmmInPlaceOp, [c, a, b], { alpha, beta }));
}

/**
 * beta * c + alpha * a b for matrices (torch.addmm); c broadcasts to [m, n]. Throws ShapeError when it does
 * not.
 */
export function matmulAdd(c: Tensor, a: Tensor, b: Tensor, options: AddmmOptions = {}): Tensor {
  const { alpha = 1, beta = 1 } = options;
  const product = matmul(a, b);
  const common = broadcastShapes('matmulAdd', c.shape, product.shape);
  if (a.rank !== 2 || b.rank !== 2 || !sameShape(common, product.shape)) {
    throw new ShapeError(
      `matmulAdd: wants matrices a [m, k], b [k, n] and c that broadcasts to [m, n] (got c ${formatShape(c.shape)}, ` +
        `a ${formatShape(a.shape)}, b ${formatShape(b.shape)}). Use add(matmul(a, b), c) for other shapes.`,
      { c: c.shape, a: a.shape, b: b.shape },
    );
  }
  const scaled = alpha === 1 ? product : mul(product, alpha);
  if (beta === 0) return scaled;
  return add(scaled, beta === 1 ? c : mul(c, beta));
}
