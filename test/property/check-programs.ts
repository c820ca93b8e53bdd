/** The check itself, shared by the short run of `npm test` and the long nightly one. */

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { compile, currentBackend, liveBytes, scope, toHost } from '../../src/index.ts';
import { type Program, type Regions, inputsOf, programs, runProgram } from './random-programs.ts';

/** Runs `numRuns` random programs; a failure prints the seed and the shrunk program. */
export function checkPrograms(numRuns: number, seed?: number): void {
  const options = { numRuns, ...(seed === undefined ? {} : { seed }) };
  fc.assert(fc.property(programs, checkProgram), options);
}

function checkProgram(program: Program): void {
  const before = liveBytes();
  const want = eager(program, 'none');
  assert.deepEqual(compiled(program, 'none'), want, 'compiled without regions');
  for (const regions of ['plain', 'selective'] as const) {
    assert.deepEqual(eager(program, regions), want, `eager, ${regions} regions`);
    assert.deepEqual(compiled(program, regions), want, `compiled, ${regions} regions`);
  }
  assert.equal(liveBytes(), before, 'nothing stays allocated');
}

function eager(program: Program, regions: Regions): Uint8Array[] {
  return scope(() => bytesOf(() => runProgram(program, inputsOf(program), regions)));
}

function compiled(program: Program, regions: Regions): Uint8Array[] {
  return scope(() => {
    const { x, weights, generator } = inputsOf(program);
    const step = compile(
      (input: typeof x) => runProgram(program, { x: input, weights, generator }, regions),
      { verify: true },
    );
    const bytes = bytesOf(() => step(x));
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
