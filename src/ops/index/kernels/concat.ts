/** Kernel of concat: rows of each operand, one after another. */

import { kernelFunction } from '../../../codegen/wasm/kernel-function.ts';
import { I32 } from '../../../codegen/wasm/scalars.ts';
import type { RoutineTarget, WasmRoutine } from '../../../ir/op.ts';
import { copyRow } from './row-work.ts';
import { moduleFor } from './rows.ts';

/** `outer` rows; a row of the output is `widths[i]` bytes of each operand i in turn. */
export function concatRows(
  outer: number,
  widths: readonly number[],
  target: RoutineTarget,
): WasmRoutine {
  const total = widths.reduce((sum, width) => sum + width, 0);
  // Many rows are shared out whole; few long ones are cut.
  const byRow = outer >= 16;
  return {
    key: `concat ${outer} x ${widths.join('+')} ${target.memory64}`,
    parallelUnits: Math.floor((outer * total) / 2 ** 17),
    build: () => {
      const module = moduleFor(target);
      kernelFunction(module, 'main', (f, k) => {
        const out = k.ptr(widths.length);
        const [first, last] = byRow ? k.share(I32.of(outer)) : [I32.of(0), I32.of(outer)];
        const row = f.local('i32');
        let offset = 0;
        widths.forEach((width, operand) => {
          if (width === 0) return;
          const source = k.ptr(operand);
          const [from, to] = byRow ? [I32.of(0), I32.of(width)] : k.share(I32.of(width), 64);
          const to0 = f.let(out.add(offset).at(first, total).at(from, 1));
          const from0 = f.let(source.at(first, width).at(from, 1));
          const bytes = f.let(to.sub(from));
          f.forRange(row, first, last, 1, () => {
            copyRow(f, to0, from0, bytes);
            to0.set(to0.add(total));
            from0.set(from0.add(width));
          });
          offset += width;
        });
      });
      return module.bytes();
    },
  };
}
