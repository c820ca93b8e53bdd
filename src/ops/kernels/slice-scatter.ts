/**
 * Kernel of sliceScatter: zeros, with a dense operand written into a strided part. Works on raw
 * elements of 1, 2 or 4 bytes. Axes that are copied whole are merged first, so that most uses are a
 * memory.fill and a memory.copy per row of the part.
 */

import type { FunctionBuilder } from '../../codegen/wasm/function.ts';
import { kernelFunction } from '../../codegen/wasm/kernel-function.ts';
import { ModuleBuilder } from '../../codegen/wasm/module.ts';
import type { Ptr } from '../../codegen/wasm/pointer.ts';
import { I32, type Var } from '../../codegen/wasm/scalars.ts';
import type { RoutineTarget, WasmRoutine } from '../../ir/op.ts';

/** One axis of the output: `size` elements of the part at start, start + step, ... */
export interface ScatterAxis {
  readonly dim: number;
  readonly start: number;
  readonly step: number;
  readonly size: number;
}

/** Operand 0: the part, dense; operand 1: the output, dense, all axes. */
export function sliceScatterKernel(
  axes: readonly ScatterAxis[],
  bytes: 1 | 2 | 4,
  target: RoutineTarget,
): WasmRoutine {
  const merged = mergeAxes(axes);
  const text = merged.map((axis) => `${axis.dim}:${axis.start}:${axis.step}:${axis.size}`);
  const elements = axes.reduce((count, axis) => count * axis.dim, 1);
  return {
    key: `sliceScatter ${bytes} ${text.join(' ')} ${target.memory64}`,
    parallelUnits: Math.max(1, Math.floor(elements / 16384)),
    build: () => build(merged, bytes, target),
  };
}

/** Fewer axes with the same meaning: an axis taken whole joins the one before it. */
export function mergeAxes(axes: readonly ScatterAxis[]): ScatterAxis[] {
  const merged: ScatterAxis[] = [];
  for (const axis of axes) {
    const before = merged[merged.length - 1];
    const whole = axis.start === 0 && axis.step === 1 && axis.size === axis.dim;
    if (before && whole && before.step === 1) {
      merged[merged.length - 1] = {
        dim: before.dim * axis.dim,
        start: before.start * axis.dim,
        step: 1,
        size: before.size * axis.dim,
      };
    } else if (axis.dim !== 1 || axis.size !== 1) {
      merged.push(axis);
    }
  }
  return merged.length > 0 ? merged : [{ dim: 1, start: 0, step: 1, size: 1 }];
}

function build(axes: readonly ScatterAxis[], bytes: 1 | 2 | 4, target: RoutineTarget): Uint8Array {
  const module = new ModuleBuilder({
    address: target.memory64 ? 'i64' : 'i32',
    relaxed: target.relaxedSimd,
  });
  const outer = axes.slice(0, -1);
  const inner = axes[axes.length - 1]!;
  const rows = outer.reduce((count, axis) => count * axis.dim, 1);
  kernelFunction(module, 'main', (f, k) => {
    const part = k.ptr(0);
    const out = k.ptr(1);
    // Few long rows are shared by their elements, many rows by rows.
    const byElement = rows < 16 && inner.step === 1;
    const [begin, end] = k.share(I32.of(byElement ? inner.dim : rows), byElement ? 64 : 1);
    const row = f.local('i32');
    f.forRange(row, byElement ? 0 : begin, byElement ? rows : end, 1, () => {
      const target = f.let(out.add(f.stride(row, bytes * inner.dim)));
      const from = byElement ? begin : I32.of(0);
      const to = byElement ? end : I32.of(inner.dim);
      f.fill(target.at(from, bytes), 0, f.stride(to.sub(from), bytes));
      const source = f.local('i32', 0);
      const inside = f.local('i32', inner.size > 0 ? 1 : 0);
      sourceRow(f, row, outer, source, inside);
      f.if(inside.ne(0), () => {
        const at = f.let(part.add(f.stride(source, bytes * inner.size)));
        writeRow(f, target, at, inner, bytes, from, to);
      });
    });
  });
  return module.bytes();
}

/** Sets `source` to the part's row for output row `row`; clears `inside` when there is none. */
function sourceRow(
  f: FunctionBuilder,
  row: I32,
  outer: readonly ScatterAxis[],
  source: Var<I32>,
  inside: Var<I32>,
): void {
  const rest = f.local('i32', row as Var<I32>);
  let weight = 1;
  for (const axis of [...outer].reverse()) {
    const coordinate = f.let(rest.remU(axis.dim));
    rest.set(rest.divU(axis.dim));
    const sign = axis.step < 0 ? -1 : 1;
    const pace = Math.abs(axis.step);
    const distance = f.let(coordinate.sub(axis.start).mul(sign));
    const index = f.let(distance.divS(pace));
    const hit = distance.geS(0).and(index.ltS(axis.size)).and(index.mul(pace).eq(distance));
    inside.set(inside.and(hit));
    source.set(source.add(index.mul(weight)));
    weight *= axis.size;
  }
}

function writeRow(
  f: FunctionBuilder,
  target: Ptr,
  part: Ptr,
  inner: ScatterAxis,
  bytes: 1 | 2 | 4,
  from: I32,
  to: I32,
): void {
  if (inner.step === 1) {
    const first = f.let(from.maxS(inner.start));
    const last = f.let(to.minS(inner.start + inner.size));
    f.if(first.ltS(last), () => {
      const source = part.at(first.sub(inner.start), bytes);
      f.copy(target.at(first, bytes), source, f.stride(last.sub(first), bytes));
    });
    return;
  }
  const i = f.local('i32');
  f.forRange(i, 0, inner.size, 1, () => {
    const source = part.at(i, bytes);
    const at = target.at(i.mul(inner.step).add(inner.start), bytes);
    if (bytes === 4) f.store(at, source.i32());
    else if (bytes === 2) f.store16(at, source.i16U());
    else f.store8(at, source.i8U());
  });
}
