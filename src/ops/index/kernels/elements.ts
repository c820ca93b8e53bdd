/** Kernels of gather and scatterAdd: an index for every element. Sizes are run-time values. */

import { kernelFunction } from '../../../codegen/wasm/kernel-function.ts';
import type { RoutineTarget, WasmRoutine } from '../../../ir/op.ts';
import { copyRow } from './row-work.ts';
import { moduleFor, outOfRange, type RowSizes } from './rows.ts';

const threadWork = 16384;

/** x [outer, size, inner], index [outer, count, inner] -> out[o, k, i] = x[o, index[o, k, i], i]. */
export function gatherElements(
  { outer, size, count, inner }: RowSizes,
  bytes: 1 | 2 | 4,
  target: RoutineTarget,
): WasmRoutine {
  return {
    key: `gather of ${bytes}-byte elements ${target.memory64}`,
    trap: outOfRange('gather', size),
    parallelUnits: Math.floor((outer * count * inner) / threadWork),
    values: [outer * count, count, size, inner].map((value) => ({ type: 'i32', value })),
    build: () => {
      const module = moduleFor(target);
      kernelFunction(module, 'main', (f, k) => {
        const [x, index, out] = [k.ptr(0), k.ptr(1), k.ptr(2)];
        const [rows, perTable, tableRows, width] = [k.i32(3), k.i32(4), k.i32(5), k.i32(6)];
        const step = f.let(f.stride(width, bytes));
        const [begin, end] = k.share(rows);
        const [row, column] = [f.local('i32'), f.local('i32')];
        f.forRange(row, begin, end, 1, () => {
          const table = f.let(x.add(step.mul(row.divU(perTable).mul(tableRows))));
          const numbers = f.let(index.add(f.stride(width, 4).mul(row)));
          const result = f.let(out.add(step.mul(row)));
          f.forRange(column, 0, width, 1, () => {
            const number = f.let(numbers.at(column, 4).i32());
            f.if(number.geU(tableRows), () => f.unreachable());
            const from = table.add(step.mul(number)).at(column, bytes);
            const to = result.at(column, bytes);
            if (bytes === 4) f.store(to, from.i32());
            else if (bytes === 2) f.store16(to, from.i16U());
            else f.store8(to, from.i8U());
          });
        });
      });
      return module.bytes();
    },
  };
}

/**
 * x [outer, size, inner], index and source [outer, count, inner] -> out = x, then
 * out[o, index[o, k, i], i] += source[o, k, i] in order of k. A thread owns tables, or columns of the only
 * table.
 */
export function scatterAddElements(
  { outer, size, count, inner }: RowSizes,
  type: 'f32' | 'i32',
  target: RoutineTarget,
): WasmRoutine {
  const byColumn = outer === 1;
  return {
    key: `scatterAdd ${type} by ${byColumn ? 'column' : 'table'} ${target.memory64}`,
    trap: outOfRange('scatterAdd', size),
    parallelUnits: Math.min(
      byColumn ? Math.ceil(inner / 16) : outer,
      Math.floor((outer * (size + count) * inner) / threadWork),
    ),
    values: [outer, size, count, inner].map((value) => ({ type: 'i32', value })),
    build: () => {
      const module = moduleFor(target);
      kernelFunction(module, 'main', (f, k) => {
        const [x, index, source, out] = [k.ptr(0), k.ptr(1), k.ptr(2), k.ptr(3)];
        const [tables, rows, given, width] = [k.i32(4), k.i32(5), k.i32(6), k.i32(7)];
        const step = f.let(f.stride(width, 4));
        const [begin, end] = byColumn ? k.share(width, 16) : k.share(tables);
        const first = f.let(byColumn ? begin : f.value('i32', 0));
        const last = f.let(byColumn ? end : width);
        const [table, row, column] = [f.local('i32'), f.local('i32'), f.local('i32')];
        const from = f.value('i32', 0);
        f.forRange(table, byColumn ? from : begin, byColumn ? tables : end, 1, () => {
          const result = f.let(out.add(step.mul(table.mul(rows))));
          const old = f.let(x.add(step.mul(table.mul(rows))));
          f.forRange(row, 0, rows, 1, () => {
            const offset = f.let(step.mul(row).at(first, 4));
            copyRow(f, f.let(result.add(offset)), f.let(old.add(offset)), last.sub(first).shl(2));
          });
          const numbers = f.let(index.add(step.mul(table.mul(given))));
          const parts = f.let(source.add(step.mul(table.mul(given))));
          f.forRange(row, 0, given, 1, () => {
            f.forRange(column, first, last, 1, () => {
              const number = f.let(numbers.at(column, 4).i32());
              f.if(number.geU(rows), () => f.unreachable());
              const to = f.let(result.add(step.mul(number)).at(column, 4));
              const part = parts.at(column, 4);
              if (type === 'f32') f.store(to, to.f32().add(part.f32()));
              else f.store(to, to.i32().add(part.i32()));
            });
            numbers.set(numbers.add(step));
            parts.set(parts.add(step));
          });
        });
      });
      return module.bytes();
    },
  };
}
