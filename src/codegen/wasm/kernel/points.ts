/**
 * The pointwise schedule: nothing is reduced; one unit of work is a stretch of the innermost axis,
 * walked in groups of up to four vectors.
 */

import { I32, select, type Var } from '../scalars.ts';
import type { Evaluator } from './evaluate.ts';
import { lineCost, planPass } from './program.ts';
import { tailWidths } from './rows.ts';
import { moveWalkers, type Unit, walkersAt } from './units.ts';

/** Units a launch should have at least, so that threads can share them evenly. */
const wantedUnits = 64;
/** Elements that make the fixed work of a unit negligible. */
const smallestBlock = 1024;

/** Elements of the innermost axis in one unit: all, or a multiple of 16. */
export function pointBlock(length: number, outer: number): number {
  if (length <= smallestBlock || outer >= wantedUnits) return Math.max(length, 1);
  const pieces = Math.ceil(wantedUnits / Math.max(outer, 1));
  return Math.max(smallestBlock, Math.ceil(length / pieces / 16) * 16);
}

/** Emits the code of one stretch: block number `number`, `block` elements or what is left. */
export function emitPoints(
  ev: Evaluator,
  unit: Unit,
  unitCoords: readonly (I32 | undefined)[],
  number: Var<I32>,
  block: number,
): void {
  const { l, program, accesses } = ev;
  const { f } = l;
  const { vectorAxis, spec, lines } = program;
  const length = spec.space[vectorAxis]!;
  const blocks = Math.ceil(length / block);
  const vectorBit = 1 << vectorAxis;
  l.scope(() => {
    // Values that are the same along the whole stretch.
    const even = lines.flatMap((line, i) =>
      (line.varies & vectorBit) === 0 && !ev.known(i) ? [i] : [],
    );
    const pointers = new Map(unit.pointers.map((pointer, access) => [access, pointer]));
    ev.evaluateAndKeep(even, [4], { pointers, coords: unitCoords });

    const plan = planPass(program, program.roots, ev.known);
    const inputs = plan.order.flatMap((line) => {
      const { node } = lines[line]!;
      return node.kind === 'input' ? [node.index] : [];
    });
    const outputs = spec.outputs.map((_, output) => ev.outputAccess(output));
    const walkers = walkersAt(f, new Set([...inputs, ...outputs]), (a) => unit.pointers[a]!);
    const coords = [...unitCoords];
    const j = f.let(unitCoords[vectorAxis]!);
    coords[vectorAxis] = j;
    const site = { pointers: walkers, coords };
    const group = (widths: readonly number[]): void =>
      ev.evaluateGroup(plan, widths, site, (values, u, lanes) => {
        outputs.forEach((access, i) => {
          ev.store(access, values[i]!, u, lanes, site);
        });
      });

    const cost = plan.order.reduce((sum, line) => sum + lineCost(lines[line]!.node), 0);
    const random = plan.order.some((line) => lines[line]!.node.kind === 'random');
    const vectors = random || cost <= 16 ? 4 : cost <= 60 ? 2 : 1;
    const step = 4 * vectors;
    const rest = tailWidths(length % step);
    const whole = length - (length % step);
    const end =
      blocks === 1
        ? I32.of(whole)
        : f.let(select(number.eq(blocks - 1), I32.of(whole), unitCoords[vectorAxis]!.add(block)));
    const loop = (): void =>
      f.loop((again) => {
        group(new Array<number>(vectors).fill(4));
        moveWalkers(walkers, accesses, ({ strides }) => step * strides[vectorAxis]!);
        j.set(j.add(step));
        f.brIf(again, j.ltS(end));
      });
    if (blocks > 1) f.if(j.ltS(end), loop);
    else if (whole > 0) loop();
    if (rest.length > 0) {
      if (blocks === 1) group(rest);
      else f.if(number.eq(blocks - 1), () => group(rest));
    }
    ev.forget(even);
  });
}
