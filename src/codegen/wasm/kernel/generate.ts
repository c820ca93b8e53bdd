/**
 * KernelSpec to WebAssembly: one module per kernel, exporting `main(args, thread, threads)` by the
 * calling convention of kernel-function.ts. Slot k holds the pointer of operand k, then one slot per
 * scalar. Sizes, strides and offsets are constants of the code.
 *
 * Every element goes through the same vector instructions wherever it lies, so a value depends neither
 * on the layout of its operands nor on the number of threads.
 */

import type { KernelSpec } from '../../../ir/kernel.ts';
import { kernelShape, normalizeKernel } from '../../../ir/kernel-space.ts';
import type { FunctionBuilder } from '../function.ts';
import { type KernelArguments, kernelFunction } from '../kernel-function.ts';
import { ModuleBuilder } from '../module.ts';
import type { I32 } from '../scalars.ts';
import { emitColumns } from './columns.ts';
import { Evaluator } from './evaluate.ts';
import { Lanes } from './lanes.ts';
import { type KernelProgram, kernelProgram, lineCost } from './program.ts';
import { emitPoints, pointBlock } from './points.ts';
import { emitRow, tailWidths } from './rows.ts';
import { forEachUnit, type Unit, type UnitAxis } from './units.ts';

export interface KernelTarget {
  readonly relaxedSimd: boolean;
  readonly memory64: boolean;
}

export interface GeneratedKernel {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Units that threads share out; more threads than units do nothing. */
  readonly units: number;
  /** Rough work of one launch, in simple vector instructions: what waking threads is weighed against. */
  readonly cost: number;
}

/** Generates the module of a kernel. The memory it imports is `env.memory`, shared. */
export function generateKernel(spec: KernelSpec, target: KernelTarget): GeneratedKernel {
  const normal = normalizeKernel(spec);
  // A single point is a row of one.
  const program = kernelProgram(normal.space.length > 0 ? normal : withUnitAxis(normal));
  const grid = unitGrid(program);
  const module = new ModuleBuilder({
    address: target.memory64 ? 'i64' : 'i32',
    relaxed: target.relaxedSimd,
  });
  kernelFunction(module, 'main', (f, args) => {
    if (grid.units > 0) emitKernel(f, args, program, grid);
  });
  const points = program.spec.space.reduce((product, size) => product * size, 1);
  const cost = program.lines.reduce((sum, line) => sum + lineCost(line.node), 0);
  return { bytes: module.bytes(), units: grid.units, cost: (points / 4) * cost };
}

interface Grid {
  readonly shape: ReturnType<typeof kernelShape>;
  readonly axes: readonly UnitAxis[];
  readonly units: number;
  /** Elements of the vector axis in one unit; the last block may be shorter. */
  readonly block: number;
}

/** Cuts the kept axes into units of work. */
function unitGrid(program: KernelProgram): Grid {
  const { spec, vectorAxis, reducedMask } = program;
  const shape = kernelShape(spec);
  const accesses = [...spec.inputs, ...spec.outputs];
  const kept = spec.space.flatMap((_, axis) => (reducedMask & (1 << axis) ? [] : [axis]));
  const axes = kept
    .filter((axis) => axis !== vectorAxis)
    .map(
      (axis): UnitAxis => ({
        axis,
        size: spec.space[axis]!,
        strides: accesses.map(({ strides }) => strides[axis]!),
      }),
    );
  const length = spec.space[vectorAxis]!;
  let block = length;
  if (shape !== 'row') {
    const outer = axes.reduce((product, axis) => product * axis.size, 1);
    block = shape === 'column' ? columnBlock(program) : pointBlock(length, outer);
    axes.push({
      axis: -1,
      size: Math.ceil(length / block),
      strides: accesses.map(({ strides }) => strides[vectorAxis]! * block),
    });
  }
  return { shape, axes, block, units: axes.reduce((product, axis) => product * axis.size, 1) };
}

/** Columns of one unit: enough accumulators to hide latency, few enough to stay in registers. */
function columnBlock(program: KernelProgram): number {
  const cost = program.lines.reduce((sum, line) => sum + lineCost(line.node), 0);
  return cost <= 12 ? 32 : cost <= 60 ? 16 : 8;
}

function emitKernel(
  f: FunctionBuilder,
  args: KernelArguments,
  program: KernelProgram,
  grid: Grid,
): void {
  const ev = new Evaluator(new Lanes(f), program, args);
  const { space } = program.spec;
  const { vectorAxis } = program;
  // Inputs that are the same at every point are read once.
  const base = new Map(
    ev.accesses.flatMap((access, i) =>
      access.strides.every((stride) => stride === 0)
        ? [[i, args.ptr(access.operand).add(access.offset * access.bytes)] as const]
        : [],
    ),
  );
  const whole = { pointers: base, coords: [] };
  program.lines.forEach((line, i) => {
    if (line.node.kind === 'random') ev.prepareRandom(i, whole);
    if (line.varies === 0 && line.stage === 0 && line.node.kind !== 'const') {
      ev.evaluateAndKeep([i], [4], whole);
    }
  });
  forEachUnit(f, args, grid.axes, ev.accesses, (unit) => {
    const coords: (I32 | undefined)[] = new Array<undefined>(space.length).fill(undefined);
    grid.axes.forEach(({ axis }, i) => {
      if (axis >= 0) coords[axis] = unit.coords[i]!;
    });
    if (grid.shape === 'row') {
      emitRow(ev, unit, coords);
      return;
    }
    const number = unit.coords.at(-1)!;
    const start = f.let(number.mul(grid.block));
    coords[vectorAxis] = start;
    if (grid.shape === 'pointwise') emitPoints(ev, unit, coords, number, grid.block);
    else emitBlockOfColumns(ev, unit, coords, number, grid.block);
  });
}

/** Full blocks and the narrower last one get code of their own. */
function emitBlockOfColumns(
  ev: Evaluator,
  unit: Unit,
  coords: readonly (I32 | undefined)[],
  number: I32,
  block: number,
): void {
  const length = ev.program.spec.space[ev.program.vectorAxis]!;
  const full = Math.floor(length / block);
  const last = tailWidths(length % block);
  const widths = new Array<number>(block / 4).fill(4);
  if (full === 0) emitColumns(ev, unit, coords, last);
  else if (last.length === 0) emitColumns(ev, unit, coords, widths);
  else {
    ev.l.f.if(
      number.ltS(full),
      () => emitColumns(ev, unit, coords, widths),
      () => emitColumns(ev, unit, coords, last),
    );
  }
}

function withUnitAxis(spec: KernelSpec): KernelSpec {
  return {
    ...spec,
    space: [1],
    inputs: spec.inputs.map((input) => ({ ...input, strides: [0] })),
    outputs: spec.outputs.map((output) => ({ ...output, strides: [0] })),
  };
}
