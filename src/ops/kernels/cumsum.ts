/** Kernel of cumsum: running sums along the middle axis of [outer, length, inner]. */

import { kernelFunction } from '../../codegen/wasm/kernel-function.ts';
import { ModuleBuilder } from '../../codegen/wasm/module.ts';
import type { RoutineTarget, WasmRoutine } from '../../ir/op.ts';

export interface CumsumShape {
  readonly outer: number;
  readonly length: number;
  readonly inner: number;
}

/** Operands x and out, dense, of one dtype; float32 accumulates in float64. */
export function cumsumKernel(
  shape: CumsumShape,
  type: 'f32' | 'i32',
  target: RoutineTarget,
): WasmRoutine {
  const { outer, length, inner } = shape;
  return {
    key: `cumsum ${type} ${outer} ${length} ${inner} ${target.memory64}`,
    parallelUnits: Math.max(1, Math.floor((outer * length * inner) / 16384)),
    build: () => {
      const module = new ModuleBuilder({
        address: target.memory64 ? 'i64' : 'i32',
        relaxed: target.relaxedSimd,
      });
      kernelFunction(module, 'main', (f, k) => {
        const x = k.ptr(0);
        const out = k.ptr(1);
        const [begin, end] = k.share(f.value('i32', outer * inner), 1);
        const lane = f.local('i32');
        const i = f.local('i32');
        f.forRange(lane, begin, end, 1, () => {
          const block = lane.divU(inner).mul(length * inner);
          const start = f.let(f.stride(block.add(lane.remU(inner)), 4));
          const from = f.local('ptr', x.add(start));
          const to = f.local('ptr', out.add(start));
          if (type === 'f32') {
            const total = f.local('f64', 0);
            f.forRange(i, 0, length, 1, () => {
              total.set(total.add(from.f32().toF64()));
              f.store(to, total.toF32());
              from.set(from.add(4 * inner));
              to.set(to.add(4 * inner));
            });
          } else {
            const total = f.local('i32', 0);
            f.forRange(i, 0, length, 1, () => {
              total.set(total.add(from.i32()));
              f.store(to, total);
              from.set(from.add(4 * inner));
              to.set(to.add(4 * inner));
            });
          }
        });
      });
      return module.bytes();
    },
  };
}
