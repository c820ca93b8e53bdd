/**
 * Packing: copies a matrix into panels of `width` floats per k, so that the micro-kernel reads memory
 * front to back. The last panel is filled up with zeros. Two source layouts:
 *
 *   copied:     src[p * stride + i]  (k outside: op(B) = B, op(A) = A transposed)
 *   transposed: src[i * stride + p]  (k inside:  op(A) = A, op(B) = B transposed)
 *
 * Panel q holds dst[(q * kc + p) * width + i - q * width].
 */

import type { FunctionBuilder, FunctionRef } from '../function.ts';
import type { ModuleBuilder } from '../module.ts';
import type { Ptr } from '../pointer.ts';
import type { I32 } from '../scalars.ts';
import { type F32x4, I64x2 } from '../vectors.ts';

/** dst, src, stride of src in bytes, count of i, count of p. */
export type Pack = FunctionRef<readonly ['ptr', 'ptr', 'ptr', 'i32', 'i32'], 'none'>;

const params = ['ptr', 'ptr', 'ptr', 'i32', 'i32'] as const;

/** Packs a source in which the floats of one p are neighbours. `width` must be even. */
export function packCopied(module: ModuleBuilder, name: string, width: number): Pack {
  return module.func(
    name,
    params,
    (f, dst, src, stride, count, kc) => {
      const row = f.local('ptr');
      const end = f.local('ptr');
      const panelBytes = f.let(f.stride(kc, 4 * width));
      f.whileLoop(
        () => count.geS(width),
        () => {
          row.set(src);
          end.set(dst.add(panelBytes));
          f.loop((again) => {
            for (let i = 0; i + 4 <= width; i += 4) f.store(dst, row.f32x4(4 * i), 4 * i);
            if (width % 4 !== 0) f.storeLow(dst, row.f32x4Low(4 * (width - 2)), 4 * (width - 2));
            row.set(row.add(stride));
            dst.set(dst.add(4 * width));
            f.brIf(again, dst.lt(end));
          });
          src.set(src.add(4 * width));
          count.set(count.sub(width));
        },
      );
      f.if(count.gtS(0), () => {
        const i = f.local('i32');
        f.fill(dst, 0, panelBytes);
        end.set(dst.add(panelBytes));
        f.whileLoop(
          () => dst.lt(end),
          () => {
            f.forRange(i, 0, count, 1, () => f.store(dst.at(i, 4), src.at(i, 4).f32()));
            src.set(src.add(stride));
            dst.set(dst.add(4 * width));
          },
        );
      });
    },
    { export: false },
  );
}

/** Packs a source in which the floats of one i are neighbours. */
export function packTransposed(module: ModuleBuilder, name: string, width: number): Pack {
  return module.func(
    name,
    params,
    (f, dst, src, stride, count, kc) => {
      const panelBytes = f.let(f.stride(kc, 4 * width));
      const rows = transposeRows(f, width, stride, kc);
      f.whileLoop(
        () => count.geS(width),
        () => {
          let i = 0;
          for (; i + 4 <= width; i += 4) rows(4, dst.add(4 * i), src, i === 0);
          for (; i + 2 <= width; i += 2) rows(2, dst.add(4 * i), src, false);
          dst.set(dst.add(panelBytes));
          src.set(rows.next());
          count.set(count.sub(width));
        },
      );
      f.if(count.gtS(0), () => {
        f.fill(dst, 0, panelBytes);
        f.whileLoop(
          () => count.geS(4),
          () => {
            rows(4, dst, src, true);
            src.set(rows.next());
            dst.set(dst.add(16));
            count.set(count.sub(4));
          },
        );
        f.whileLoop(
          () => count.gtS(0),
          () => {
            rows(1, dst, src, true);
            src.set(rows.next());
            dst.set(dst.add(4));
            count.set(count.sub(1));
          },
        );
      });
    },
    { export: false },
  );
}

/** Emits code that transposes 1, 2 or 4 rows of length kc into columns `width` floats apart. */
function transposeRows(
  f: FunctionBuilder,
  width: number,
  stride: Ptr,
  kc: I32,
): {
  (rows: 1 | 2 | 4, dst: Ptr, src: Ptr, first: boolean): void;
  /** The row after the last one transposed. */
  next(): Ptr;
} {
  const to = f.local('ptr');
  const following = f.local('ptr');
  const p = f.local('i32');
  const pointers = Array.from({ length: 4 }, () => f.local('ptr'));
  const vectors = Array.from({ length: 4 }, () => f.local('f32x4'));
  const step = 4 * width;
  const emit = (rows: 1 | 2 | 4, dst: Ptr, src: Ptr, first: boolean): void => {
    const used = pointers.slice(0, rows);
    used.forEach((pointer, i) => {
      const before = i === 0 ? (first ? src : following) : (used[i - 1] ?? src).add(stride);
      pointer.set(before);
    });
    to.set(dst);
    following.set((used[rows - 1] ?? src).add(stride));
    const advance = (count: number): void => {
      for (const pointer of used) pointer.set(pointer.add(4 * count));
      to.set(to.add(count * step));
    };
    f.forRange(p, 0, kc.and(-4), 4, () => {
      used.forEach((pointer, i) => {
        vectors[i]?.set(pointer.f32x4());
      });
      const [a, b, c, d] = vectors as unknown as [F32x4, F32x4, F32x4, F32x4];
      if (rows === 4) {
        transpose4(f, [a, b, c, d]).forEach((column, k) => {
          f.store(to, column, k * step);
        });
      } else if (rows === 2) {
        const low = f.let(interleaveLow(a, b));
        const high = f.let(interleaveHigh(a, b));
        [low, high].forEach((pair, half) => {
          f.storeLow(to, pair, 2 * half * step);
          f.storeLane(to, pair.as(I64x2), 1, (2 * half + 1) * step);
        });
      } else {
        for (let k = 0; k < 4; k++) f.storeLane(to, a, k, k * step);
      }
      advance(4);
    });
    f.forRange(p, kc.and(-4), kc, 1, () => {
      used.forEach((pointer, i) => {
        f.store(to, pointer.f32(), 4 * i);
      });
      advance(1);
    });
  };
  return Object.assign(emit, { next: () => following });
}

/** Columns of the 4 x 4 matrix whose rows are given. */
export function transpose4(
  f: FunctionBuilder,
  rows: readonly [F32x4, F32x4, F32x4, F32x4],
): F32x4[] {
  const [a, b, c, d] = rows;
  const ab = f.let(interleaveLow(a, b));
  const cd = f.let(interleaveLow(c, d));
  const abHigh = f.let(interleaveHigh(a, b));
  const cdHigh = f.let(interleaveHigh(c, d));
  return [
    ab.shuffle(cd, [0, 1, 4, 5]),
    ab.shuffle(cd, [2, 3, 6, 7]),
    abHigh.shuffle(cdHigh, [0, 1, 4, 5]),
    abHigh.shuffle(cdHigh, [2, 3, 6, 7]),
  ];
}

function interleaveLow(a: F32x4, b: F32x4): F32x4 {
  return a.shuffle(b, [0, 4, 1, 5]);
}

function interleaveHigh(a: F32x4, b: F32x4): F32x4 {
  return a.shuffle(b, [2, 6, 3, 7]);
}
