/** Random programs whose saved tensors wait in a file: the same bits, and nothing left anywhere. */

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { ActivationOffload, liveBytes, scope, toHost } from '../../src/index.ts';
import { checkLiveBytes } from '../support/backend.ts';
import { checkOffloadingPrograms } from './check-programs.ts';
import { type Program, type Regions, inputsOf, programs, runProgram } from './random-programs.ts';

checkLiveBytes();

const dir = mkdtempSync(join(tmpdir(), 'retune-offload-programs-'));
after(() => rmSync(dir, { recursive: true, force: true }));

function bytesOf(program: Program, regions: Regions, offload?: ActivationOffload): Uint8Array[] {
  return scope(() => {
    const inputs = inputsOf(program);
    const run = () => runProgram(program, inputs, regions);
    return (offload ? offload.run(run) : run()).map((result) => toHost(result).data.slice());
  });
}

test('random programs: equal bits with every saved tensor moved, with and without regions', () => {
  const settings = fc.record({
    depth: fc.nat(4),
    regions: fc.constantFrom<Regions>('none', 'plain', 'selective'),
  });
  fc.assert(
    fc.property(programs, settings, (program, { depth, regions }) => {
      const before = liveBytes();
      const offload = new ActivationOffload({ dir, depth, minBytes: 0 });
      const got = bytesOf(program, regions, offload);
      offload.assertEmpty();
      assert.deepEqual(got, bytesOf(program, 'none'));
      assert.equal(liveBytes(), before);
    }),
    { numRuns: 150 },
  );
});

test('random programs, compiled: regions whose policies offload give equal bits within the planned peak', () => {
  checkOffloadingPrograms(20);
});
