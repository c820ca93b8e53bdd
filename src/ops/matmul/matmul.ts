/**
 * Matrix multiplication: the matmul op and torch.matmul. Operands are read through their strides, so
 * transposed views cost nothing, and a batch that shares its right operand is one tall product.
 */

import { DTypeError, ShapeError, invariant } from '../../core/errors.ts';
import {
  broadcastShapes,
  broadcastStrides,
  contiguousStrides,
  formatShape,
  numElements,
} from '../../core/shape.ts';
import type { Shape } from '../../core/shape.ts';
import { type Aval, formatAval } from '../../ir/aval.ts';
import type { Op, ReferenceArray } from '../../ir/op.ts';
import { apply1 } from '../../tensor/apply.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { cast, reshape, sumTo } from '../broadcast.ts';
import { floats, present, requireFloat, routineOp } from '../define.ts';
import { requireFloat32 } from '../float32.ts';
import { transpose } from '../views.ts';
import { acceptsMatrix, gemmCall } from './gemm-layout.ts';

export type NoParams = Readonly<Record<never, never>>;

/** a [..., m, k] times b [..., k, n], float32, both of two axes at least; batch axes broadcast. */
export const matmulOp: Op<Tensor, NoParams> = routineOp<NoParams, readonly ['a', 'b'], 'a' | 'b'>({
  name: 'matmul',
  args: ['a', 'b'],
  traits: { class: 'matmul', remat: 'costly' },
  infer: (inputs) => {
    const [a, b] = [present(inputs[0]), present(inputs[1])];
    requireFloat32('matmul', inputs);
    checkInner('matmul', a, b);
    const batch = broadcastShapes('matmul', a.shape.slice(0, -2), b.shape.slice(0, -2));
    return [{ shape: [...batch, a.shape.at(-2) ?? 1, b.shape.at(-1) ?? 1], dtype: 'float32' }];
  },
  flops: ([a], [out]) => matmulFlops(present(out).shape, present(a).shape.at(-1) ?? 1),
  saves: (_, needs) => productSaves(needs),
  vjp: ([g], { needs, inputs, saved }) => {
    if (!g) return [];
    const [a, b] = [present(inputs[0]), present(inputs[1])];
    return [
      needs(0) ? sumTo(matmul(g, swapLast(saved('b'))), a.shape) : undefined,
      needs(1) ? rightGradient(saved('a'), g, b.shape) : undefined,
    ];
  },
  routine: {
    acceptsLayout: (_, shape, strides) => acceptsMatrix(shape, strides),
    wasm: ([a, b], [out]) => {
      const gemm = gemmCall(present(a), present(b), present(out), [0, 1, 2]);
      invariant(gemm, () => 'matmul: an operand that BLAS cannot read');
      return { gemm };
    },
    wgsl: { none: 'the kernel is written for processors' },
    reference: ([a, b], [out], avals) => {
      const [avalA, avalB, avalC] = [avals.inputs[0], avals.inputs[1], avals.outputs[0]];
      referenceProduct(
        present(a),
        present(avalA),
        present(b),
        present(avalB),
        present(out),
        present(avalC),
      );
    },
  },
  samples: [
    { label: 'odd', inputs: [floats([7, 13]), floats([13, 5])], params: {} },
    { label: 'batchBroadcast', inputs: [floats([2, 1, 4, 5]), floats([3, 5, 6])], params: {} },
    { label: 'sharedRight', inputs: [floats([3, 4, 5]), floats([5, 6])], params: {} },
  ],
});

/**
 * Matrix product of the last two axes; leading axes broadcast (torch.matmul). A vector on the left is a
 * row, on the right a column, and its axis is dropped from the result. 16-bit floats multiply in float32
 * and round once. Throws ShapeError when the inner sizes differ, DTypeError for integers or two dtypes.
 */
export function matmul(a: Tensor, b: Tensor): Tensor {
  checkProduct('matmul', a, b);
  if (a.dtype !== 'float32') {
    return cast(matmul(cast(a, 'float32'), cast(b, 'float32')), a.dtype);
  }
  if (a.rank === 0 || b.rank === 0) {
    throw new ShapeError(
      `matmul: a number has no axis to sum over (got a ${formatAval(a)}, b ${formatAval(b)}). Use mul.`,
    );
  }
  checkInner('matmul', a, b);
  const left = a.rank === 1 ? reshape(a, [1, a.size]) : a;
  const right = b.rank === 1 ? reshape(b, [b.size, 1]) : b;
  const out = apply1(matmulOp, [left, right], {});
  if (a.rank > 1 && b.rank > 1) return out;
  const shape = out.shape.slice(0, -2);
  if (a.rank > 1) shape.push(a.shape.at(-2) ?? 1);
  if (b.rank > 1) shape.push(b.shape.at(-1) ?? 1);
  return reshape(out, shape);
}

/** Multiply-adds count two. */
export function matmulFlops(out: Shape, k: number): number {
  return 2 * numElements(out) * k;
}

/** What a product saves: each factor's gradient needs the other one. */
export function productSaves(needs: (input: number) => boolean): ('a' | 'b')[] {
  const names: ('a' | 'b')[] = [];
  if (needs(1)) names.push('a');
  if (needs(0)) names.push('b');
  return names;
}

/** The last two axes swapped: a view. */
export function swapLast(x: Tensor): Tensor {
  return transpose(x, -2, -1);
}

/** All leading axes merged into one: [..., n] as [rows, n]. */
export function asRows(x: Tensor): Tensor {
  const columns = x.shape.at(-1) ?? 1;
  return x.rank === 2 ? x : reshape(x, [numElements(x.shape.slice(0, -1)), columns]);
}

/** Throws DTypeError unless both are floats of one dtype. */
export function checkProduct(who: string, a: Tensor, b: Tensor): void {
  requireFloat(who, a, 'a');
  requireFloat(who, b, 'b');
  if (a.dtype === b.dtype) return;
  throw new DTypeError(
    `${who}: both operands must have one dtype (got a ${formatAval(a)}, b ${formatAval(b)}). Cast one of them.`,
    { a: a.dtype, b: b.dtype },
  );
}

function rightGradient(a: Tensor, g: Tensor, shape: Shape): Tensor {
  if (shape.length === 2) return matmul(swapLast(asRows(a)), asRows(g));
  return sumTo(matmul(swapLast(a), g), shape);
}

function checkInner(who: string, a: Aval, b: Aval): void {
  const inner = a.shape.at(-1) ?? 1;
  const other = b.shape.length === 1 ? (b.shape[0] ?? 1) : (b.shape.at(-2) ?? 1);
  if (inner === other) return;
  const axis = b.shape.length === 1 ? 0 : -2;
  throw new ShapeError(
    `${who}: the inner sizes differ (got a ${formatShape(a.shape)} and b ${formatShape(b.shape)}: axis -1 of a is ` +
      `${inner}, axis ${axis} of b is ${other}). Transpose or reshape one of them.`,
    { a: a.shape, b: b.shape },
  );
}

/** Plain loops over dense row-major arrays. */
function referenceProduct(
  a: ReferenceArray,
  avalA: Aval,
  b: ReferenceArray,
  avalB: Aval,
  out: ReferenceArray,
  avalC: Aval,
): void {
  const batch = avalC.shape.slice(0, -2);
  const [m, n] = [avalC.shape.at(-2) ?? 1, avalC.shape.at(-1) ?? 1];
  const k = avalA.shape.at(-1) ?? 1;
  const stepsA = batchSteps(avalA.shape, batch);
  const stepsB = batchSteps(avalB.shape, batch);
  const rows = contiguousStrides(batch);
  for (let entry = 0; entry < numElements(batch); entry++) {
    let [baseA, baseB] = [0, 0];
    batch.forEach((dim, axis) => {
      const at = Math.floor(entry / (rows[axis] ?? 1)) % dim;
      baseA += at * (stepsA[axis] ?? 0);
      baseB += at * (stepsB[axis] ?? 0);
    });
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        let total = 0;
        for (let p = 0; p < k; p++) {
          total += (a[baseA + i * k + p] ?? 0) * (b[baseB + p * n + j] ?? 0);
        }
        out[(entry * m + i) * n + j] = total;
      }
    }
  }
}

function batchSteps(shape: Shape, batch: Shape): number[] {
  const own = shape.slice(0, -2);
  return broadcastStrides(own, contiguousStrides(shape).slice(0, own.length), batch);
}
