/**
 * Kernel of sort and topk: each row is sorted by merging. Sorted are 64-bit words with an
 * order-preserving form of the value in the upper half and the position in the lower one, so equal
 * values keep their order whatever the algorithm does.
 */

import type { FunctionBuilder, FunctionRef } from '../../../codegen/wasm/function.ts';
import { kernelFunction } from '../../../codegen/wasm/kernel-function.ts';
import type { ModuleBuilder } from '../../../codegen/wasm/module.ts';
import type { Ptr } from '../../../codegen/wasm/pointer.ts';
import { type I32, select } from '../../../codegen/wasm/scalars.ts';
import type { RoutineTarget, WasmRoutine } from '../../../ir/op.ts';
import { moduleFor } from './rows.ts';

export type SortedType = 'float32' | 'int32' | 'uint32';

export interface SortSizes {
  readonly rows: number;
  readonly length: number;
  /** How many of the first sorted elements are wanted. */
  readonly count: number;
}

/** x [rows, length] -> values [rows, count], indices int32 [rows, count]. */
export function sortRows(
  { rows, length, count }: SortSizes,
  type: SortedType,
  descending: boolean,
  target: RoutineTarget,
): WasmRoutine {
  const half = Math.ceil((length * 8) / 64) * 64;
  return {
    key: `sort ${type} ${descending} ${target.memory64}`,
    parallelUnits: Math.min(rows, Math.floor((rows * length * Math.log2(length + 2)) / 2 ** 15)),
    scratchBytes: 2 * half,
    values: [rows, length, count, half].map((value) => ({ type: 'i32', value })),
    build: () => {
      const module = moduleFor(target);
      const merge = mergePass(module);
      kernelFunction(module, 'main', (f, k) => {
        const [x, values, indices] = [k.ptr(0), k.ptr(1), k.ptr(2)];
        const [rowCount, width, wanted, halfBytes] = [k.i32(4), k.i32(5), k.i32(6), k.i32(7)];
        const a = f.let(k.ptr(3).at(k.thread.mul(halfBytes), 2));
        const b = f.let(a.at(halfBytes, 1));
        const [row, i, run] = [f.local('i32'), f.local('i32'), f.local('i32')];
        const [from, to, swap] = [f.local('ptr'), f.local('ptr'), f.local('ptr')];
        const [begin, end] = k.share(rowCount);
        f.forRange(row, begin, end, 1, () => {
          const source = f.let(x.add(f.stride(width, 4).mul(row)));
          f.forRange(i, 0, width, 1, () => {
            const key = sortKey(f, source.at(i, 4), type, descending);
            const word = key.toI64S().shl(f.value('i64', 32)).or(i.toI64U());
            f.store(a.at(i, 8), word);
          });
          from.set(a);
          to.set(b);
          run.set(1);
          f.whileLoop(
            () => run.ltS(width),
            () => {
              f.call(merge, [from, to, width, run]);
              swap.set(from);
              from.set(to);
              to.set(swap);
              run.set(run.shl(1));
            },
          );
          const result = f.stride(wanted, 4).mul(row);
          const valueAt = f.let(values.add(result));
          const indexAt = f.let(indices.add(result));
          f.forRange(i, 0, wanted, 1, () => {
            const position = f.let(from.at(i, 8).i32());
            f.store(indexAt.at(i, 4), position);
            f.store(valueAt.at(i, 4), source.at(position, 4).i32());
          });
        });
      });
      return module.bytes();
    },
  };
}

/** A signed number that orders as the element does: NaN is the largest, -0 equals 0. */
function sortKey(f: FunctionBuilder, at: Ptr, type: SortedType, descending: boolean): I32 {
  const bits = f.let(at.i32());
  if (type === 'uint32') bits.set(bits.xor(-0x80000000));
  if (type === 'float32') {
    bits.set(select(bits.eq(-0x80000000), f.value('i32', 0), bits));
    bits.set(select(at.f32().ne(at.f32()), f.value('i32', 0x7fffffff), bits));
    bits.set(bits.xor(bits.shrS(31).and(0x7fffffff)));
  }
  return descending ? bits.xor(-1) : bits;
}

/** from, to, length, run: merges neighbouring sorted runs of `run` words. */
function mergePass(
  module: ModuleBuilder,
): FunctionRef<readonly ['ptr', 'ptr', 'i32', 'i32'], 'none'> {
  return module.func(
    'mergePass',
    ['ptr', 'ptr', 'i32', 'i32'] as const,
    (f, from, to, length, run) => {
      const start = f.local('i32');
      const [left, right, out] = [f.local('ptr'), f.local('ptr'), f.local('ptr')];
      out.set(to);
      const [x, y] = [f.local('i64'), f.local('i64')];
      f.forRange(start, 0, length, run.shl(1), () => {
        const leftEnd = f.let(from.at(start.add(run).minS(length), 8));
        const rightEnd = f.let(from.at(start.add(run.shl(1)).minS(length), 8));
        left.set(from.at(start, 8));
        right.set(leftEnd);
        f.whileLoop(
          () => left.lt(leftEnd).and(right.lt(rightEnd)),
          () => {
            x.set(left.i64());
            y.set(right.i64());
            const takeLeft = f.let(x.leS(y));
            f.store(out, select(takeLeft, x, y));
            left.set(left.add(takeLeft.shl(3)));
            right.set(right.add(takeLeft.xor(1).shl(3)));
            out.set(out.add(8));
          },
        );
        f.if(left.lt(leftEnd), () => {
          f.copy(out, left, leftEnd.sub(left));
          out.set(out.add(leftEnd.sub(left)));
        });
        f.if(right.lt(rightEnd), () => {
          f.copy(out, right, rightEnd.sub(right));
          out.set(out.add(rightEnd.sub(right)));
        });
      });
    },
    { export: false },
  );
}
