/** The check itself, shared by the short run of `npm test` and the long nightly one. */

import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  InfeasibleBudgetError,
  compile,
  currentBackend,
  liveBytes,
  scope,
  toHost,
} from '../../src/index.ts';
import { type Program, type Regions, inputsOf, programs, runProgram } from './random-programs.ts';

/** Runs `numRuns` random programs; a failure prints the seed and the shrunk program. */
export function checkPrograms(numRuns: number, seed?: number): void {
  const options = { numRuns, ...(seed === undefined ? {} : { seed }) };
  fc.assert(fc.property(programs, fc.integer({ min: 20, max: 100 }), checkProgram), options);
}

/** `percent`: a budget, of the step memory without checkpointing. */
export function checkProgram(program: Program, percent: number): void {
  const before = liveBytes();
  const want = eager(program, 'none');
  assert.deepEqual(compiled(program, 'none'), want, 'compiled without regions');
  assert.deepEqual(withinBudget(program, `${percent}%`), want, `compiled within ${percent} %`);
  for (const regions of ['plain', 'selective'] as const) {
    assert.deepEqual(eager(program, regions), want, `eager, ${regions} regions`);
    assert.deepEqual(compiled(program, regions), want, `compiled, ${regions} regions`);
  }
  assert.equal(liveBytes(), before, 'nothing stays allocated');
}

/**
 * Random programs whose regions order values out of memory, compiled: planned, as written, and under budgets.
 * Needs a folder for files, RETUNE_OFFLOAD_DIR or the system's.
 */
export function checkOffloadingPrograms(numRuns: number): void {
  fc.assert(
    fc.property(programs, fc.integer({ min: 30, max: 100 }), (program, percent) => {
      const want = eager(program, 'none');
      assert.deepEqual(compiled(program, 'offloading'), want, 'planned');
      assert.deepEqual(
        compiled(program, 'offloading', undefined, ['planRegions']),
        want,
        'as written',
      );
      assert.deepEqual(withinBudget(program, `${percent}%`, 'offloading'), want, 'within a budget');
    }),
    { numRuns },
  );
}

function eager(program: Program, regions: Regions): Uint8Array[] {
  return scope(() => bytesOf(() => runProgram(program, inputsOf(program), regions)));
}

/** Under the budget, or under the smallest that the error for an infeasible one names. */
function withinBudget(
  program: Program,
  budget: number | string,
  regions: Regions = 'none',
): Uint8Array[] {
  try {
    return compiled(program, regions, budget);
  } catch (error) {
    if (!(error instanceof InfeasibleBudgetError)) throw error;
    return compiled(program, regions, error.details.smallestBytes as number);
  }
}

function compiled(
  program: Program,
  regions: Regions,
  budget?: number | string,
  disable: readonly string[] = [],
): Uint8Array[] {
  return scope(() => {
    const { x, weights, generator } = inputsOf(program);
    const step = compile(
      (input: typeof x) => runProgram(program, { x: input, weights, generator }, regions),
      { verify: true, disable, ...(budget !== undefined && { budget }) },
    );
    const bytes = bytesOf(() => step(x));
    const { choice, peakBytes = 0 } = step.plans[0]?.plan ?? {};
    assert.ok(peakBytes <= (choice?.budgetBytes ?? peakBytes), 'the peak keeps the budget');
    const { allocator } = currentBackend();
    const live = allocator.stats().live;
    allocator.resetPeak();
    scope(() => {
      step(x);
    });
    // The generator's state is written to a block of its own while the step runs.
    const draws = generator.offset > 0 ? 64 : 0;
    const measured = allocator.stats().peak - live;
    assert.equal(measured, (step.plans[0]?.peakBytes ?? 0) + draws, 'measured equals planned');
    step.dispose();
    return bytes;
  });
}

function bytesOf(run: () => ReturnType<typeof runProgram>): Uint8Array[] {
  return scope(() => run().map((tensor) => toHost(tensor).data.slice()));
}
