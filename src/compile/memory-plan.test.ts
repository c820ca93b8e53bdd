import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Lifetime, livePeak, planMemory } from './memory-plan.ts';

const block = 64;

test('lifetimes that do not meet share memory', () => {
  const plan = planMemory([
    { bytes: 2 * block, first: 0, last: 1 },
    { bytes: 2 * block, first: 2, last: 3 },
  ]);
  assert.equal(plan.arenaBytes, 2 * block);
  assert.deepEqual(plan.offsets, [0, 0]);
});

test('a chain a -> b -> c needs two blocks', () => {
  const plan = planMemory([
    { bytes: block, first: 0, last: 1 },
    { bytes: block, first: 1, last: 2 },
    { bytes: block, first: 2, last: 3 },
  ]);
  assert.equal(plan.arenaBytes, 2 * block);
});

test('saved activations of a forward and backward sweep leave no gaps', () => {
  // Layer i saves a block from step i to step 19 - i; each step has a temporary of its own.
  const lifetimes: Lifetime[] = [];
  for (let i = 0; i < 10; i++) lifetimes.push({ bytes: 3 * block, first: i, last: 19 - i });
  for (let i = 0; i < 20; i++) lifetimes.push({ bytes: 5 * block, first: i, last: i });
  const plan = planMemory(lifetimes);
  assert.equal(plan.lowerBoundBytes, (10 * 3 + 5) * block);
  assert.equal(plan.arenaBytes, plan.lowerBoundBytes);
});

test('no lifetimes need no memory', () => {
  assert.equal(planMemory([]).arenaBytes, 0);
});

test('random lifetimes: no overlap, and between the live-set bound and the sum', () => {
  const lifetime = fc.record({
    bytes: fc.integer({ min: 1, max: 40 }).map((n) => n * block),
    first: fc.nat(30),
    length: fc.nat(12),
  });
  fc.assert(
    fc.property(fc.array(lifetime, { maxLength: 40 }), (drawn) => {
      const lifetimes = drawn.map(({ bytes, first, length }) => ({
        bytes,
        first,
        last: first + length,
      }));
      const plan = planMemory(lifetimes);
      assertDisjoint(lifetimes, plan.offsets);
      const sum = lifetimes.reduce((total, { bytes }) => total + bytes, 0);
      assert.ok(plan.arenaBytes <= sum);
      assert.ok(plan.arenaBytes >= plan.lowerBoundBytes);
      lifetimes.forEach(({ bytes }, i) => {
        assert.ok((plan.offsets[i] ?? 0) + bytes <= plan.arenaBytes);
      });
    }),
  );
});

test('the live peak is what a plain count over steps gives', () => {
  const lifetime = fc.record({
    bytes: fc.integer({ min: 1, max: 9 }),
    first: fc.nat(10),
    length: fc.nat(5),
  });
  fc.assert(
    fc.property(fc.array(lifetime, { maxLength: 20 }), (drawn) => {
      const lifetimes = drawn.map(({ bytes, first, length }) => ({
        bytes,
        first,
        last: first + length,
      }));
      let expected = 0;
      for (let step = 0; step < 20; step++) {
        const live = lifetimes.filter(({ first, last }) => first <= step && step <= last);
        expected = Math.max(
          expected,
          live.reduce((total, { bytes }) => total + bytes, 0),
        );
      }
      assert.equal(livePeak(lifetimes).bytes, expected);
    }),
  );
});

function assertDisjoint(lifetimes: readonly Lifetime[], offsets: readonly number[]): void {
  lifetimes.forEach((a, i) => {
    lifetimes.slice(i + 1).forEach((b, k) => {
      const meet = a.first <= b.last && b.first <= a.last;
      const from = offsets[i] ?? 0;
      const other = offsets[i + 1 + k] ?? 0;
      const overlap = from < other + b.bytes && other < from + a.bytes;
      assert.ok(!(meet && overlap), `lifetimes ${i} and ${i + 1 + k} overlap`);
    });
  });
}
