/**
 * The row schedule: the innermost axis is reduced, and one unit of work is one row. Element i of a row
 * belongs to partial result i mod 16, held in four vectors; the partials are folded as kernel.ts says.
 */

import type { I32, Var } from '../scalars.ts';
import { I32x4 } from '../vectors.ts';
import type { Evaluator, Site } from './evaluate.ts';
import { asI32, type Lane4 } from './lanes.ts';
import { combineLanes } from './operations.ts';
import { type Combine, emitUnitPasses, type Reduction, type Walk, walkSite } from './passes.ts';
import { lineCost } from './program.ts';
import { moveWalkers, nestLoops, type Unit, type Walkers, walkersAt } from './units.ts';

/** Emits the code of one row. `coords` are the coordinates of the kept axes. */
export function emitRow(ev: Evaluator, unit: Unit, coords: readonly (I32 | undefined)[]): void {
  const { spec } = ev.program;
  const rowLength = spec.reduced.reduce((product, axis) => product * spec.space[axis]!, 1);
  const pointers = new Map(unit.pointers.map((pointer, access) => [access, pointer]));
  emitUnitPasses(ev, {
    widths: [4],
    accumulators: Math.min(4, Math.max(1, Math.ceil(rowLength / 4))),
    walk: (walk) => walkRow(ev, unit, coords, walk, rowLength),
    finish: (reduction, combine) => [fold(ev, reduction, combine)],
    site: { pointers, coords },
    storedLanes: () => 1,
  });
}

function walkRow(
  ev: Evaluator,
  unit: Unit,
  keptCoords: readonly (I32 | undefined)[],
  walk: Walk,
  rowLength: number,
): void {
  const { l, program, accesses } = ev;
  const { f } = l;
  const { space, reduced } = program.spec;
  if (rowLength === 0) return;
  const { vectorAxis } = program;
  const coords = [...keptCoords];
  const walkers = walkersAt(f, walk.accesses, (access) => unit.pointers[access]!);
  const length = space[vectorAxis]!;
  const outer = reduced.slice(0, -1);
  const j = f.local('i32');
  coords[vectorAxis] = j;

  if (outer.length > 0 && length % 16 !== 0 && walk.reductions.length > 0) {
    // Partials carry on across the inner rows at any phase: element by element.
    const phase = f.local('i32', 0);
    nestLoops(f, space, reduced, walkers, accesses, coords, { axis: vectorAxis, steps: 0 }, () => {
      const site = walkSite(walkers, coords, true);
      ev.evaluateGroup(walk.plan, [1], site, (values, u, lanes) => {
        walk.store(values, u, lanes, site);
        accumulateAtPhase(ev, walk, values, phase);
      });
      phase.set(phase.add(1).and(15));
    });
    return;
  }

  const cost = walk.plan.order.reduce((sum, line) => sum + lineCost(program.lines[line]!.node), 0);
  const vectors = walk.reductions.length > 0 || cost <= 24 ? 4 : 2;
  const step = 4 * vectors;
  const whole = length - (length % step);
  const group = (widths: readonly number[], site: Site): void =>
    ev.evaluateGroup(walk.plan, widths, site, (values, u, lanes) => {
      walk.store(values, u, lanes, site);
      accumulate(ev, walk, values, u, lanes);
    });
  nestLoops(f, space, outer, walkers, accesses, coords, { axis: vectorAxis, steps: whole }, () => {
    const site = walkSite(walkers, coords);
    emitInner(ev, walkers, j, whole, step, () => group(new Array<number>(vectors).fill(4), site));
    const rest = tailWidths(length - whole);
    if (rest.length > 0) {
      j.set(whole);
      group(rest, site);
    }
  });
}

/** Runs `body` for j = 0, step, ... below `count`, a multiple of `step`, moving the walkers along. */
function emitInner(
  ev: Evaluator,
  walkers: Walkers,
  j: Var<I32>,
  count: number,
  step: number,
  body: () => void,
): void {
  if (count === 0) return;
  const { f } = ev.l;
  const { vectorAxis } = ev.program;
  j.set(0);
  f.loop((again) => {
    body();
    moveWalkers(walkers, ev.accesses, ({ strides }) => step * strides[vectorAxis]!);
    if (count === step) return;
    j.set(j.add(step));
    f.brIf(again, j.ltS(count));
  });
}

/** Widths of the vectors that hold the last `count` elements. */
export function tailWidths(count: number): number[] {
  const widths = new Array<number>(Math.floor(count / 4)).fill(4);
  if (count % 4 > 0) widths.push(count % 4);
  return widths;
}

function accumulate(
  ev: Evaluator,
  walk: Walk,
  values: readonly Lane4[],
  u: number,
  lanes: number,
): void {
  const { l } = ev;
  walk.reductions.forEach(({ op, type, accumulators }, i) => {
    const sum = accumulators[u]!;
    const next = combineLanes(l, op, type, sum, values[i]!);
    if (lanes === 4) sum.set(next);
    else sum.set(l.select<Lane4>(laneMask(ev, lanes), l.hold(next), sum));
  });
}

/** Takes lane 0 of the values into partial number `phase`. */
function accumulateAtPhase(
  ev: Evaluator,
  walk: Walk,
  values: readonly Lane4[],
  phase: Var<I32>,
): void {
  const { l } = ev;
  const at = l.hold(I32x4.splat(phase));
  walk.reductions.forEach(({ op, type, accumulators }, i) => {
    const value = l.hold(broadcast(values[i]!));
    accumulators.forEach((sum, u) => {
      const mask = at.eq(l.i32Lanes([4 * u, 4 * u + 1, 4 * u + 2, 4 * u + 3]));
      const next = l.hold(combineLanes(l, op, type, sum, value));
      sum.set(l.select<Lane4>(mask, next, sum));
    });
  });
}

/** The 16 partials as one value in every lane: 8 and 8, 4 and 4, 2 and 2, 1 and 1. */
function fold(ev: Evaluator, reduction: Reduction, combine: Combine): Lane4 {
  const { l } = ev;
  let parts: Lane4[] = [...reduction.accumulators];
  // Missing vectors would hold neutral elements, which change nothing.
  for (const half of [2, 1]) {
    parts = parts.slice(0, half).map((part, i) => {
      const other = parts[i + half];
      return other ? l.hold(combine(part, other)) : part;
    });
  }
  const four = parts[0]!;
  const two = l.hold(combine(four, pick(four, [2, 3, 2, 3])));
  return l.hold(broadcast(l.hold(combine(two, pick(two, [1, 1, 1, 1])))));
}

function broadcast(value: Lane4): Lane4 {
  return pick(value, [0, 0, 0, 0]);
}

function pick(value: Lane4, lanes: readonly number[]): Lane4 {
  const bits = asI32(value);
  const Class = value.constructor as new (code: Lane4['code']) => Lane4;
  return new Class(bits.shuffle(bits, lanes).code);
}

/** All bits set in the first `lanes` lanes. */
function laneMask(ev: Evaluator, lanes: number): I32x4 {
  const bit = (lane: number): number => (lane < lanes ? -1 : 0);
  return ev.l.i32Lanes([bit(0), bit(1), bit(2), bit(3)]);
}
