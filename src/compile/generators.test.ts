/** Random generators in compiled steps: draws, positions that the step sets or reads, generators it makes. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkLiveBytes } from '../../test/support/backend.ts';
import { values, withCompiled } from '../../test/support/compiled.ts';
import '../ops/methods.ts';
import { mul } from '../ops/arithmetic.ts';
import { uniform } from '../ops/random.ts';
import { Generator } from '../tensor/generator.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';

checkLiveBytes();

/** `make(generator)` run three times, eagerly and compiled: equal draws, and the generator ends in one place. */
function agrees(make: (generator: Generator) => () => Tensor[], plans: number): void {
  const run = (compiled: boolean): unknown[] =>
    scope(() => {
      const generator = new Generator(3);
      const step = make(generator);
      const seen: unknown[] = [];
      const look = (body: () => Tensor[]): void => {
        for (let i = 0; i < 3; i++) seen.push(body().map(values), generator.getState());
      };
      if (!compiled) look(step);
      else {
        withCompiled(step, (made) => {
          look(made);
          assert.equal(made.plans.length, plans);
        });
      }
      return seen;
    });
  assert.deepEqual(run(true), run(false));
}

const draw = (generator: Generator): Tensor => uniform([3], { generator });

test('draws go on from run to run', () => {
  agrees((generator) => () => [draw(generator), draw(generator)], 1);
});

test('a step that seeds its generator draws the same each time', () => {
  agrees(
    (generator) => () => {
      const free = draw(generator);
      generator.manualSeed(9);
      return [free, draw(generator), mul(draw(generator), 2)];
    },
    1,
  );
});

test('a generator that the step makes is new in each run', () => {
  agrees((generator) => () => [draw(new Generator(5)), draw(generator)], 1);
});

test('a position that the step reads is a condition, with the draws before it counted', () => {
  agrees((generator) => {
    const seen: number[] = [];
    return () => {
      const first = draw(generator);
      seen.push(generator.offset);
      const state = generator.getState();
      const second = draw(generator);
      generator.setState(state);
      return [first, second, draw(generator)];
    };
  }, 3);
});
