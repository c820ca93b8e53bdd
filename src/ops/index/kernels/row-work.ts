/** Copying and adding rows of elements. */

import type { FunctionBuilder } from '../../../codegen/wasm/function.ts';
import type { Ptr } from '../../../codegen/wasm/pointer.ts';
import type { I32, Var } from '../../../codegen/wasm/scalars.ts';

/** Below this many bytes a loop of vectors beats memory.copy. */
const copyBytes = 512;

/** Copies `bytes` bytes; the ranges do not overlap. */
export function copyRow(f: FunctionBuilder, to: Ptr, from: Var<Ptr>, bytes: I32): void {
  f.if(
    bytes.gtS(copyBytes),
    () => f.copy(to, from, bytes),
    () => {
      const at = f.local('ptr');
      const shift = f.let(to.sub(from));
      const full = f.let(from.at(bytes.and(-16), 1));
      const end = f.let(from.at(bytes, 1));
      f.forRange(at, from, full, 16, () => f.store(at.add(shift), at.i8x16()));
      const words = f.let(from.at(bytes.and(-4), 1));
      f.forRange(at, full, words, 4, () => f.store(at.add(shift), at.i32()));
      f.forRange(at, words, end, 1, () => f.store8(at.add(shift), at.i8U()));
    },
  );
}

/** to[i] += from[i] for `count` elements. */
export function addRow(
  f: FunctionBuilder,
  to: Var<Ptr>,
  from: Ptr,
  count: I32,
  type: 'f32' | 'i32',
): void {
  const at = f.local('ptr');
  const shift = f.let(from.sub(to));
  const full = f.let(to.at(count.and(-4), 4));
  const end = f.let(to.at(count, 4));
  f.forRange(at, to, full, 16, () => {
    const other = at.add(shift);
    f.store(at, type === 'f32' ? at.f32x4().add(other.f32x4()) : at.i32x4().add(other.i32x4()));
  });
  f.forRange(at, full, end, 4, () => {
    const other = at.add(shift);
    f.store(at, type === 'f32' ? at.f32().add(other.f32()) : at.i32().add(other.i32()));
  });
}
