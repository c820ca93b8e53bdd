/**
 * Kernels that move rows by number. Sizes are run-time values, so one module serves all shapes.
 * A row number outside the table traps, which the backend reports as an ArgumentError.
 */

import { I32 } from '../../../codegen/wasm/scalars.ts';
import { kernelFunction } from '../../../codegen/wasm/kernel-function.ts';
import { ModuleBuilder } from '../../../codegen/wasm/module.ts';
import type { RoutineTarget, WasmRoutine } from '../../../ir/op.ts';
import { addRow, copyRow } from './row-work.ts';

export interface RowSizes {
  /** Independent tables one after another. */
  readonly outer: number;
  /** Rows of the table. */
  readonly size: number;
  /** Row numbers. */
  readonly count: number;
  /** Elements of a row. */
  readonly inner: number;
}

/** Elements moved that are worth one thread. */
const threadWork = 16384;

export function moduleFor(target: RoutineTarget): ModuleBuilder {
  return new ModuleBuilder({
    address: target.memory64 ? 'i64' : 'i32',
    relaxed: target.relaxedSimd,
  });
}

/** Text of the error for an index outside an axis. */
export function outOfRange(who: string, size: number): string {
  return (
    `${who}: an index is out of range for an axis of size ${size} (got one that is negative or too large). ` +
    `Use indices from 0 to ${size - 1}.`
  );
}

function values(...list: readonly number[]): NonNullable<WasmRoutine['values']> {
  return list.map((value) => ({ type: 'i32', value }));
}

/** table [outer, size, inner], index [count] int32 -> out [outer, count, inner]. */
export function gatherRows(sizes: RowSizes, bytes: number, target: RoutineTarget): WasmRoutine {
  const { outer, size, count, inner } = sizes;
  return {
    key: `rows by index ${target.memory64}`,
    trap: outOfRange('indexSelect', size),
    parallelUnits: Math.floor((outer * count * inner) / threadWork),
    values: values(outer * count, count, size, inner * bytes),
    build: () => {
      const module = moduleFor(target);
      kernelFunction(module, 'main', (f, k) => {
        const [table, index, out] = [k.ptr(0), k.ptr(1), k.ptr(2)];
        const [rows, perTable, tableRows, rowBytes] = [k.i32(3), k.i32(4), k.i32(5), k.i32(6)];
        const [begin, end] = k.share(rows);
        const row = f.local('i32');
        f.forRange(row, begin, end, 1, () => {
          const number = f.let(index.at(row.remU(perTable), 4).i32());
          f.if(number.geU(tableRows), () => f.unreachable());
          const from = row.divU(perTable).mul(tableRows).add(number);
          const step = f.let(f.stride(rowBytes, 1));
          copyRow(f, f.let(out.add(step.mul(row))), f.let(table.add(step.mul(from))), rowBytes);
        });
      });
      return module.bytes();
    },
  };
}

/** Rows that one thread owns at a time when sums are dealt out. */
const ownedRows = 16;

/**
 * source [outer, count, inner], index [count] -> out [outer, size, inner]: out[index[k]] += source[k], in
 * order of k. Float32. Each thread owns rows of `out`, so nothing depends on how many there are.
 */
export function sumRows(sizes: RowSizes, target: RoutineTarget): WasmRoutine {
  const { outer, size, count, inner } = sizes;
  return {
    key: `sum of rows by index ${target.memory64}`,
    trap: outOfRange('segmentSum', size),
    parallelUnits: Math.floor((outer * (count + size) * inner) / threadWork),
    values: values(outer, size, count, inner),
    build: () => {
      const module = moduleFor(target);
      kernelFunction(module, 'main', (f, k) => {
        const [source, index, out] = [k.ptr(0), k.ptr(1), k.ptr(2)];
        const [tables, rows, given, width] = [k.i32(3), k.i32(4), k.i32(5), k.i32(6)];
        const step = f.let(f.stride(width, 4));
        const [table, row, item] = [f.local('i32'), f.local('i32'), f.local('i32')];
        f.forRange(table, 0, tables, 1, () => {
          const result = f.let(out.add(step.mul(table.mul(rows))));
          row.set(k.thread.mul(ownedRows));
          f.whileLoop(
            () => row.ltS(rows),
            () => {
              const some = f.let(rows.sub(row).minS(ownedRows));
              f.fill(result.add(step.mul(row)), 0, step.mul(some));
              row.set(row.add(k.threads.mul(ownedRows)));
            },
          );
          const from = f.let(source.add(step.mul(table.mul(given))));
          f.forRange(item, 0, given, 1, () => {
            const number = f.let(index.at(item, 4).i32());
            f.if(number.geU(rows), () => f.unreachable());
            f.if(number.divU(ownedRows).remU(k.threads).eq(k.thread), () => {
              const at = f.let(result.add(step.mul(number)));
              addRow(f, at, from, I32.of(width), 'f32');
            });
            from.set(from.add(step));
          });
        });
      });
      return module.bytes();
    },
  };
}
