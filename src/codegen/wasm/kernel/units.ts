/**
 * The loops around the vectors: units of work, which threads share out among themselves, and nested
 * loops over the reduced axes of one unit.
 */

import type { FunctionBuilder } from '../function.ts';
import type { KernelArguments } from '../kernel-function.ts';
import type { Ptr } from '../pointer.ts';
import { I32, type Var } from '../scalars.ts';
import type { Access } from './evaluate.ts';

/** One axis of the grid of units. */
export interface UnitAxis {
  readonly size: number;
  /** Axis of the kernel's space whose coordinate this is, or -1 for a number of a block. */
  readonly axis: number;
  /** Elements per step, for each access. */
  readonly strides: readonly number[];
}

export interface Unit {
  /** Coordinate along each unit axis. */
  readonly coords: readonly Var<I32>[];
  /** Address of each access at the unit's first element. */
  readonly pointers: readonly Var<Ptr>[];
}

/** Runs `body` for each of this thread's units, in row-major order of `axes`. */
export function forEachUnit(
  f: FunctionBuilder,
  args: KernelArguments,
  axes: readonly UnitAxis[],
  accesses: readonly Access[],
  body: (unit: Unit) => void,
): void {
  const count = axes.reduce((product, axis) => product * axis.size, 1);
  const [begin, end] = args.share(I32.of(count));
  f.if(begin.ltS(end), () => {
    const coords = axes.map(() => f.local('i32'));
    const rest = f.let(begin);
    for (let i = axes.length - 1; i >= 0; i--) {
      coords[i]!.set(i === 0 ? rest : rest.remU(axes[i]!.size));
      if (i > 0) rest.set(rest.divU(axes[i]!.size));
    }
    const pointers = accesses.map((access, a) => {
      const pointer = f.let(args.ptr(access.operand).add(access.offset * access.bytes));
      axes.forEach((axis, i) => {
        const step = axis.strides[a]! * access.bytes;
        if (step !== 0) pointer.set(pointer.at(coords[i]!, step));
      });
      return pointer;
    });
    const unit = f.let(begin);
    f.loop((again) => {
      body({ coords, pointers });
      advanceUnit(f, axes, accesses, { coords, pointers }, axes.length - 1);
      unit.set(unit.add(1));
      f.brIf(again, unit.ltS(end));
    });
  });
}

/** To the next unit: one step along axis `i`, carrying into the axis before it at the end. */
function advanceUnit(
  f: FunctionBuilder,
  axes: readonly UnitAxis[],
  accesses: readonly Access[],
  unit: Unit,
  i: number,
): void {
  const axis = axes[i];
  if (!axis) return;
  const move = (elements: (access: number) => number): void =>
    accesses.forEach((access, a) => {
      movePointer(unit.pointers[a]!, elements(a) * access.bytes);
    });
  const coord = unit.coords[i]!;
  coord.set(coord.add(1));
  move((a) => axis.strides[a]!);
  if (i === 0) return;
  f.if(coord.eq(axis.size), () => {
    coord.set(0);
    move((a) => -axis.size * axis.strides[a]!);
    advanceUnit(f, axes, accesses, unit, i - 1);
  });
}

/** Adds a constant number of bytes, which may be negative, to a pointer variable. */
export function movePointer(pointer: Var<Ptr>, bytes: number): void {
  if (bytes === 0) return;
  pointer.set(pointer.add(pointer.type === 'i32' ? bytes | 0 : bytes));
}

/** Pointers that a pass walks with, by access. */
export type Walkers = ReadonlyMap<number, Var<Ptr>>;

/** Fresh walkers at the given addresses. */
export function walkersAt(
  f: FunctionBuilder,
  accesses: Iterable<number>,
  at: (access: number) => Ptr,
): Walkers {
  return new Map([...accesses].map((access) => [access, f.let(at(access))]));
}

/** Moves all walkers by a number of elements along one axis. */
export function moveWalkers(
  walkers: Walkers,
  accesses: readonly Access[],
  elements: (access: Access) => number,
): void {
  for (const [access, pointer] of walkers) {
    const { bytes } = accesses[access]!;
    movePointer(pointer, elements(accesses[access]!) * bytes);
  }
}

/**
 * Nested loops over `axes` of the space, outermost first. `body` may advance the walkers along
 * `bodyAxis` by `bodySteps` steps; the loops allow for that.
 */
export function nestLoops(
  f: FunctionBuilder,
  space: readonly number[],
  axes: readonly number[],
  walkers: Walkers,
  accesses: readonly Access[],
  coords: (I32 | undefined)[],
  advanced: { readonly axis: number; readonly steps: number },
  body: () => void,
): void {
  const [axis, ...inner] = axes;
  if (axis === undefined) {
    body();
    return;
  }
  const counter = f.local('i32');
  coords[axis] = counter;
  f.forRange(counter, 0, space[axis]!, 1, () => {
    nestLoops(f, space, inner, walkers, accesses, coords, advanced, body);
    const below = inner[0] ?? advanced.axis;
    const steps = inner.length > 0 ? space[inner[0]!]! : advanced.steps;
    moveWalkers(walkers, accesses, ({ strides }) => {
      return strides[axis]! - (steps === 0 ? 0 : steps * strides[below]!);
    });
  });
}
