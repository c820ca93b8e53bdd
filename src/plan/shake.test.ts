import assert from 'node:assert/strict';
import { test } from 'node:test';
import { randomGraph } from '../../test/support/plan-graphs.ts';
import { improve } from './exchange.ts';
import { buildProblem } from './problem.ts';
import { realize } from './realize.ts';
import { type SearchWork, repair } from './repair.ts';
import { extraOf, profileOf } from './sequence.ts';
import { shake } from './shake.ts';

const plenty = (): SearchWork => ({ left: 1e7, tried: 0, kept: 0 });

test('shaking finds plans that single exchanges do not, within the budget, the same each time', () => {
  let plans = 0;
  let better = 0;
  for (let seed = 1; seed <= 12; seed++) {
    const problem = buildProblem(randomGraph(seed, 40));
    const { sequence } = realize(problem, []);
    const budget = Math.floor(0.6 * profileOf(problem, sequence).peak);
    const start = repair(problem, sequence, budget, plenty());
    if (!start) continue;
    const improved = improve(problem, start, budget, plenty(), () => false);
    const shaken = (): Int32Array =>
      shake(problem, improved, budget, { work: plenty(), bound: 0, enough: () => false });
    const found = shaken();
    assert.deepEqual(shaken(), found, `seed ${seed}`);
    assert.ok(profileOf(problem, found).peak <= budget, `seed ${seed}`);
    const [before, after] = [improved, found].map((plan) => extraOf(problem, plan).cost);
    assert.ok((after as number) <= (before as number), `seed ${seed}`);
    plans++;
    if ((after as number) < (before as number)) better++;
  }
  assert.ok(plans >= 6, `${plans} plans`);
  assert.ok(better >= 2, `${better} of ${plans} are better`);
});

test('no work left: the sequence stays as it is', () => {
  const problem = buildProblem(randomGraph(1, 40));
  const { sequence } = realize(problem, []);
  const work = { left: 0, tried: 0, kept: 0 };
  const options = { work, bound: 0, enough: () => false };
  assert.equal(shake(problem, sequence, Number.POSITIVE_INFINITY, options), sequence);
  assert.equal(work.tried, 0);
});
