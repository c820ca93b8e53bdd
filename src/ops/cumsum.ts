/** Running sums. */

import { isFloat } from '../core/dtype.ts';
import { DTypeError } from '../core/errors.ts';
import { type Shape, normalizeAxis, numElements } from '../core/shape.ts';
import { formatAval } from '../ir/aval.ts';
import type { Op } from '../ir/op.ts';
import { apply1 } from '../tensor/apply.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { cast } from './broadcast.ts';
import { floats, present, routineOp } from './define.ts';
import { type CumsumShape, cumsumKernel } from './kernels/cumsum.ts';
import { flip } from './slice.ts';

type AxisParams = { readonly axis: number };

export const cumsumOp: Op<Tensor, AxisParams> = routineOp<AxisParams, readonly ['x'], never>({
  name: 'cumsum',
  args: ['x'],
  traits: { class: 'reduction', remat: 'cheap' },
  infer: ([input]) => {
    const x = present(input);
    if (x.dtype !== 'float32' && x.dtype !== 'int32') {
      throw new DTypeError(
        `cumsum: the kernel takes float32 and int32 (got ${formatAval(x)}). Call the function cumsum, which casts.`,
      );
    }
    return [x];
  },
  flops: ([x]) => numElements(present(x).shape),
  saves: [],
  vjp: ([g], { params: { axis } }) => [g && flip(cumsum(flip(g, axis), axis), axis)],
  routine: {
    wasm: ([x], _, { axis }, target) => {
      const { aval } = present(x);
      const type = aval.dtype === 'float32' ? 'f32' : 'i32';
      return cumsumKernel(around(aval.shape, axis), type, target);
    },
    wgsl: { none: 'not written yet' },
    reference: ([x], [out], avals, { axis }) => {
      const { outer, length, inner } = around(present(avals.inputs[0]).shape, axis);
      for (let lane = 0; lane < outer * inner; lane++) {
        const first = Math.floor(lane / inner) * length * inner + (lane % inner);
        let total = 0;
        for (let i = 0; i < length; i++) {
          total += present(present(x)[first + i * inner]);
          present(out)[first + i * inner] = total;
        }
      }
    },
  },
  samples: [
    { label: 'rows', inputs: [floats([3, 19])], params: { axis: 1 } },
    { label: 'middle', inputs: [floats([2, 5, 3])], params: { axis: 1 } },
    {
      label: 'ints',
      inputs: [{ shape: [7], dtype: 'int32', range: [-9, 9] }],
      params: { axis: 0 },
    },
  ],
});

function around(shape: Shape, axis: number): CumsumShape {
  return {
    outer: numElements(shape.slice(0, axis)),
    length: shape[axis] ?? 1,
    inner: numElements(shape.slice(axis + 1)),
  };
}

/**
 * Running sums along an axis (torch.cumsum). 16-bit floats add up in float32 and round once; bools and
 * integers give int32.
 */
export function cumsum(x: Tensor, axis: number): Tensor {
  const at = normalizeAxis('cumsum', axis, x.rank);
  if (x.rank === 0) return cast(x, isFloat(x.dtype) ? x.dtype : 'int32');
  const wide = isFloat(x.dtype) ? 'float32' : 'int32';
  const total = apply1(cumsumOp, [cast(x, wide)], { axis: at });
  return isFloat(x.dtype) ? cast(total, x.dtype) : total;
}
