/**
 * The column schedule: the innermost axis is kept and outer axes are reduced. One unit of work is a
 * block of neighbouring columns, one accumulator vector per four of them; each column takes in its
 * elements one by one, in row-major order of the reduced axes.
 */

import type { I32 } from '../scalars.ts';
import type { Evaluator, Widths } from './evaluate.ts';
import { combineLanes } from './operations.ts';
import { emitUnitPasses, type Walk, walkSite } from './passes.ts';
import { nestLoops, type Unit, walkersAt } from './units.ts';

/** Emits the code of one block of columns, four or fewer per vector. */
export function emitColumns(
  ev: Evaluator,
  unit: Unit,
  coords: readonly (I32 | undefined)[],
  widths: Widths,
): void {
  const pointers = new Map(unit.pointers.map((pointer, access) => [access, pointer]));
  emitUnitPasses(ev, {
    widths,
    accumulators: widths.length,
    walk: (walk) => walkColumns(ev, unit, coords, widths, walk),
    finish: ({ accumulators }) => accumulators,
    site: { pointers, coords },
    storedLanes: (u) => widths[u]!,
  });
}

function walkColumns(
  ev: Evaluator,
  unit: Unit,
  keptCoords: readonly (I32 | undefined)[],
  widths: Widths,
  walk: Walk,
): void {
  const { l, program, accesses } = ev;
  const { space, reduced } = program.spec;
  if (reduced.some((axis) => space[axis] === 0)) return;
  const coords = [...keptCoords];
  const walkers = walkersAt(l.f, walk.accesses, (access) => unit.pointers[access]!);
  const still = { axis: program.vectorAxis, steps: 0 };
  nestLoops(l.f, space, reduced, walkers, accesses, coords, still, () => {
    const site = walkSite(walkers, coords);
    ev.evaluateGroup(walk.plan, widths, site, (values, u, lanes) => {
      walk.store(values, u, lanes, site);
      walk.reductions.forEach(({ op, type, accumulators }, i) => {
        const sum = accumulators[u]!;
        sum.set(combineLanes(l, op, type, sum, values[i]!));
      });
    });
  });
}
