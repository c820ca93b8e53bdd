/** Schedules with repeated runs: whatever is run again, wherever, results keep their bits. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { backward } from '../autograd/backward.ts';
import type { PlanGraph, Step } from '../plan/graph.ts';
import { addInPlace } from '../ops/in-place.ts';
import '../ops/methods.ts';
import { mul } from '../ops/arithmetic.ts';
import { sum } from '../ops/broadcast.ts';
import { matmul } from '../ops/matmul/matmul.ts';
import { sin, tanh } from '../ops/unary.ts';
import { noGrad } from '../tensor/context.ts';
import { tensor } from '../tensor/factory.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { Sgd } from '../optim/sgd.ts';
import { checkLiveBytes } from '../../test/support/backend.ts';
import { values } from '../../test/support/compiled.ts';
import { inputsOf, programs, runProgram } from '../../test/property/random-programs.ts';
import { compile } from './compile.ts';
import type { MakePlanner } from './remat-search.ts';

checkLiveBytes();

/** A planner that runs things again at will: after each op, some that ran before. */
function restless(seed: number, seen: (reruns: number) => void): MakePlanner {
  const scheduleOf = (graph: PlanGraph): Step[] => {
    let state = seed + 1;
    const random = (below: number): number => {
      state = (state * 1103515245 + 12345) % 2147483648;
      return Math.floor((state / 2147483648) * below);
    };
    const repeatable: number[] = [];
    const schedule: Step[] = [];
    graph.nodes.forEach((node, i) => {
      if (node.kind !== 'op') return;
      schedule.push(['run', i]);
      if (node.recompute !== false) repeatable.push(i);
      for (let n = random(3); n > 0 && repeatable.length > 0; n--) {
        schedule.push(['run', repeatable[random(repeatable.length)] ?? 0]);
      }
    });
    seen(schedule.length - opCount(graph));
    return schedule;
  };
  return (graph) => ({ plan: () => ({ ...nothingKnown, schedule: scheduleOf(graph) }) });
}

const counters = { ops: 0, storages: 0, maxFlows: 0, repairs: 0, movesTried: 0, movesKept: 0 };
const times = { baseNs: 0, extraNs: 0, extraHardNs: 0, lowerBoundNs: 0 };
const nothingKnown = { peakBytes: 0, ...times, gap: 0, counters };

function opCount(graph: PlanGraph): number {
  return graph.nodes.filter((node) => node.kind === 'op').length;
}

test('random programs under random repetition keep their bits', () => {
  let reruns = 0;
  fc.assert(
    fc.property(programs, fc.nat(1e6), (program, seed) => {
      scope(() => {
        const want = runProgram(program, inputsOf(program), 'none').map(values);
        const inputs = inputsOf(program);
        const compiled = compile(() => runProgram(program, inputs, 'none'), {
          verify: true,
          budget: '1GiB',
          planner: restless(seed, (count) => {
            reruns += count;
          }),
        });
        try {
          assert.deepEqual(compiled().map(values), want);
        } finally {
          compiled.dispose();
        }
      });
    }),
    { numRuns: 60 },
  );
  assert.ok(reruns > 500);
});

test('state that the step changes is never read again after the change', () => {
  const run = (planner?: MakePlanner): number[][] =>
    scope(() => {
      const w = tensor([[0.5, -1], [2, 0.25]], { requiresGrad: true }); // biome-ignore format: one line
      const count = tensor([1]);
      const optimizer = new Sgd([w], { lr: 0.5 });
      const step = (x: Tensor): Tensor => {
        const h = tanh(matmul(x, w));
        const scaled = mul(h, mul(count, 2));
        noGrad(() => addInPlace(count, 1));
        const loss = sum(mul(sin(scaled), mul(count, 3)));
        backward(loss);
        optimizer.step();
        optimizer.zeroGrad();
        return loss;
      };
      const options = planner ? { verify: true, budget: '1GiB', planner } : {};
      const compiled = compile(step, options);
      try {
        const x = tensor([[1, 2], [3, -1]]); // biome-ignore format: one line
        const losses = [0, 1, 2].map(() => values(compiled(x)));
        return [...losses, values(w), values(count)];
      } finally {
        compiled.dispose();
        optimizer.dispose();
      }
    });
  const want = run();
  let reruns = 0;
  for (let seed = 0; seed < 20; seed++) {
    assert.deepEqual(run(restless(seed, (count) => (reruns += count))), want, `seed ${seed}`);
  }
  assert.ok(reruns > 100);
});
