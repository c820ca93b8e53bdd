/**
 * One row (or one block of columns) of a kernel with reductions: the values that do not change along
 * the reduced axes, the reduction passes in their order, then the outputs of each point, then those of
 * the row. The row and the column schedule differ only in how a pass walks the points.
 */

import { invariant } from '../../../core/errors.ts';
import type { ComputeType, ReduceOp } from '../../../ir/expr.ts';
import { reduceNeutral } from '../../../ir/kernel-space.ts';
import type { Ptr } from '../pointer.ts';
import type { Var } from '../scalars.ts';
import type { Evaluator, Site, Widths } from './evaluate.ts';
import type { Lane4 } from './lanes.ts';
import { combineLanes } from './operations.ts';
import { keptValues, type PassPlan, planPass } from './program.ts';

/** Accumulators of one reduction: variables that the walk combines elements into. */
export interface Reduction {
  readonly op: ReduceOp;
  readonly type: ComputeType;
  readonly accumulators: readonly (Lane4 & { set(value: Lane4): void })[];
}

/** One walk over the points of the unit. */
export interface Walk {
  readonly plan: PassPlan;
  /** Input accesses that the pass reads and output accesses it touches. */
  readonly accesses: ReadonlySet<number>;
  readonly reductions: readonly Reduction[];
  /** Gets the plan's roots at each vector, before or instead of the reductions. */
  readonly store: (values: readonly Lane4[], u: number, lanes: number, site: Site) => void;
}

export interface UnitSchedule {
  /** Widths of the vectors that hold per-unit values: one full vector, or the block of columns. */
  readonly widths: Widths;
  /** Number of accumulator vectors of each reduction. */
  readonly accumulators: number;
  readonly walk: (walk: Walk) => void;
  /** The value of a reduction for each vector of the unit, from its accumulators. */
  readonly finish: (reduction: Reduction, combine: Combine) => readonly Lane4[];
  /** Where per-unit values are loaded and stored. */
  readonly site: Site;
  /** Lanes of vector `u` that a per-row output stores. */
  readonly storedLanes: (u: number) => number;
}

export type Combine = (sum: Lane4, x: Lane4) => Lane4;

/** Emits all passes of one unit. */
export function emitUnitPasses(ev: Evaluator, schedule: UnitSchedule): void {
  const { program, l } = ev;
  const { lines, spec } = program;
  const made: number[] = [];
  l.scope(() => {
    const unitLevel = lines.flatMap((line, i) =>
      (line.varies & program.reducedMask) === 0 && line.node.kind !== 'reduce' && !ev.known(i)
        ? [i]
        : [],
    );
    const level = new Set(unitLevel);
    const kept = keptValues(
      program,
      (line) => level.has(line) || lines[line]!.node.kind === 'reduce' || ev.known(line),
    );
    const keepUnitValues = (stage: number): void => {
      const now = unitLevel.filter((line) => lines[line]!.stage === stage);
      ev.evaluateAndKeep(now, schedule.widths, schedule.site);
      made.push(...now);
    };
    keepUnitValues(0);
    for (let stage = 1; stage <= program.stages; stage++) {
      const reduces = lines.flatMap(({ node, operands, stage: own }, line) =>
        node.kind === 'reduce' && own === stage ? [{ node, line, from: operands[0]! }] : [],
      );
      const reductions = reduces.map(({ node }): Reduction => {
        const neutral = reduceNeutral(node.op, node.type);
        invariant(neutral.kind === 'const', () => 'reduceNeutral: not a constant');
        const start = ev.constant(neutral.value, node.type);
        const accumulators = Array.from({ length: schedule.accumulators }, () =>
          l.temporary(start),
        );
        return {
          op: node.op,
          type: node.type,
          accumulators: accumulators as unknown as Reduction['accumulators'],
        };
      });
      const saved = kept.filter((value) => value.stage === stage);
      const plan = planPass(
        program,
        [...reduces.map(({ from }) => from), ...saved.map(({ line }) => line)],
        ev.known,
      );
      schedule.walk({
        plan,
        accesses: touched(
          ev,
          plan,
          saved.map(({ output }) => ev.outputAccess(output)),
        ),
        reductions,
        store: (values, u, lanes, site) =>
          saved.forEach(({ output }, i) => {
            ev.store(ev.outputAccess(output), values[reduces.length + i]!, u, lanes, site);
          }),
      });
      reduces.forEach(({ node, line }, i) => {
        const combine: Combine = (sum, x) => combineLanes(l, node.op, node.type, sum, x);
        ev.setValue(line, schedule.finish(reductions[i]!, combine));
        made.push(line);
      });
      for (const { line, output } of saved) {
        ev.setWaiting(line, ev.outputAccess(output));
        made.push(line);
      }
      keepUnitValues(stage);
    }

    const outputs = spec.outputs.map((_, output) => output);
    const pointOutputs = outputs.filter((output) => !program.perRow[output]);
    if (pointOutputs.length > 0) {
      const plan = planPass(
        program,
        pointOutputs.map((output) => program.roots[output]!),
        ev.known,
      );
      schedule.walk({
        plan,
        accesses: touched(
          ev,
          plan,
          pointOutputs.map((output) => ev.outputAccess(output)),
        ),
        reductions: [],
        store: (values, u, lanes, site) =>
          pointOutputs.forEach((output, i) => {
            ev.store(ev.outputAccess(output), values[i]!, u, lanes, site);
          }),
      });
    }
    for (const output of outputs) {
      if (!program.perRow[output]) continue;
      schedule.widths.forEach((lanes, u) => {
        const value = ev.valueAt(program.roots[output]!, u, lanes, schedule.site);
        ev.store(ev.outputAccess(output), value, u, schedule.storedLanes(u), schedule.site);
      });
    }
  });
  ev.forget(made);
}

/** The accesses that a pass needs walkers for. */
function touched(ev: Evaluator, plan: PassPlan, outputs: readonly number[]): ReadonlySet<number> {
  const accesses = new Set(outputs);
  for (const line of plan.order) {
    const { node } = ev.program.lines[line]!;
    if (node.kind === 'input') accesses.add(node.index);
  }
  const readers = [
    ...plan.order.flatMap((line) => ev.program.lines[line]!.operands),
    ...plan.roots,
  ];
  for (const line of readers) {
    const access = ev.waitingIn(line);
    if (access !== undefined) accesses.add(access);
  }
  return accesses;
}

/** A site whose pointers are a pass's walkers. */
export function walkSite(
  walkers: ReadonlyMap<number, Var<Ptr>>,
  coords: Site['coords'],
  unaligned = false,
): Site {
  return { pointers: walkers, coords, unaligned };
}
