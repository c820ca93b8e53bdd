import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import fc from 'fast-check';
import { difference } from '../../../test/support/fixtures.ts';
import { checkLiveBytes } from '../../../test/support/backend.ts';
import { grad } from '../../autograd/backward.ts';
import { createCpuBackend, createReferenceBackend } from '../../runtime/registry.ts';
import type { Backend } from '../../runtime/backend.ts';
import { currentBackend, setBackend } from '../../tensor/backend.ts';
import { noGrad } from '../../tensor/context.ts';
import { tensor, toArray } from '../../tensor/factory.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { scope } from '../../tensor/with-scope.ts';
import { mul } from '../arithmetic.ts';
import { sum } from '../broadcast.ts';
import { slice } from '../slice.ts';
import '../methods.ts';
import { permute, transpose } from '../views.ts';
import { type AttentionOptions, attention, scaledDotProductAttention } from './attention.ts';
import { causalMask } from './mask.ts';

checkLiveBytes();

interface Problem {
  readonly B: number;
  readonly T: number;
  readonly S: number;
  readonly K: number;
  readonly group: number;
  readonly D: number;
  readonly V: number;
  readonly causal: boolean;
  readonly window: number | undefined;
  /** Operands lie as [B, H, T, D] in memory. */
  readonly headsFirst: boolean;
}

const small: Problem = {
  B: 2,
  T: 5,
  S: 9,
  K: 2,
  group: 2,
  D: 4,
  V: 6,
  causal: true,
  window: undefined,
  headsFirst: false,
};

function random(shape: readonly number[], seed: number): Tensor {
  let state = seed | 1;
  const values = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return (state >> 8) / 2 ** 22;
  });
  return tensor(values, { shape });
}

function operands({ B, T, S, K, group, D, V, headsFirst }: Problem): Tensor[] {
  const make = (shape: readonly [number, number, number, number], seed: number): Tensor => {
    const [b, positions, heads, width] = shape;
    if (!headsFirst) return random(shape, seed);
    return permute(random([b, heads, positions, width], seed), [0, 2, 1, 3]);
  };
  return [
    make([B, T, K * group, D], 3),
    make([B, S, K, D], 7),
    make([B, S, K, V], 11),
    make([B, T, K * group, V], 13),
  ];
}

/** Output and gradients of query, key and value. */
function run(backend: Backend, problem: Problem): Float64Array[] {
  const before = currentBackend();
  setBackend(backend);
  try {
    return scope(() => {
      const [query, key, value, cotangent] = operands(problem);
      const inputs = [query!, key!, value!];
      for (const input of inputs) input.requiresGrad = true;
      const { causal, window } = problem;
      const out = attention(query!, key!, value!, { causal, window });
      const gradients = grad(sum(mul(out, cotangent!)), inputs);
      return [out, ...gradients].map((x) => toArray(x!));
    });
  } finally {
    setBackend(before);
  }
}

function same(got: readonly Float64Array[], want: readonly Float64Array[]): void {
  got.forEach((values, i) => {
    // A softmax over one key has no gradient; what rounding leaves of it is measured against 1.
    const scale = want[i]!.reduce((most, x) => Math.max(most, Math.abs(x)), 1);
    const off = values
      .map((x, k) => Math.abs(x - want[i]![k]!))
      .reduce((a, b) => Math.max(a, b), 0);
    assert.ok(off <= 5e-6 * scale, `result ${i} is off by ${off} of ${scale}`);
  });
}

const reference = createReferenceBackend();

describe('attention', () => {
  test('equals the definition for any shape, mask and layout', () => {
    const cpu = createCpuBackend({ threads: 1 });
    const size = (max: number): fc.Arbitrary<number> => fc.integer({ min: 1, max });
    fc.assert(
      fc.property(
        fc.record({
          B: size(2),
          T: size(12),
          S: size(20),
          K: size(2),
          group: size(3),
          D: size(9),
          V: size(9),
          causal: fc.boolean(),
          window: fc.option(size(8), { nil: undefined }),
          headsFirst: fc.boolean(),
        }),
        (problem) => {
          const legal = problem.causal ? problem : { ...problem, window: undefined };
          same(run(cpu, legal), run(reference, legal));
        },
      ),
      { numRuns: 60 },
    );
    cpu.dispose();
  });

  for (const matmul of ['auto', 'wasm'] as const) {
    test(`crosses tile borders, multiplying with ${matmul}`, () => {
      const cpu = createCpuBackend({ threads: 2, matmul });
      for (const sizes of [
        { B: 1, T: 130, S: 130, K: 1, group: 2, window: undefined },
        { B: 1, T: 70, S: 1100, K: 1, group: 1, window: undefined },
        { B: 1, T: 200, S: 700, K: 1, group: 1, window: 90 },
      ]) {
        const problem = { ...small, ...sizes };
        same(run(cpu, problem), run(reference, problem));
      }
      cpu.dispose();
    });
  }

  // With one key head, several threads take other items than one thread does.
  for (const sizes of [
    { B: 3, T: 150, S: 150, window: undefined },
    { B: 1, K: 1, T: 150, S: 600, window: undefined },
    { B: 1, K: 1, T: 400, S: 700, window: 300 },
  ]) {
    test(`gives the same bits on any number of threads, ${JSON.stringify(sizes)}`, async () => {
      const problem: Problem = { ...small, D: 16, V: 16, ...sizes };
      const results: Float64Array[][] = [];
      for (const threads of [1, 2, 3]) {
        const cpu = createCpuBackend({ threads });
        while (cpu.readyWorkers < threads - 1) await setTimeout(1);
        results.push(run(cpu, problem));
        cpu.dispose();
      }
      assert.deepEqual(results[1], results[0]);
      assert.deepEqual(results[2], results[0]);
      same(results[0]!, run(reference, problem));
    });
  }

  test('memory does not grow with T x S', () => {
    const { allocator } = currentBackend();
    scope(() => {
      const [query, key, value] = operands({ ...small, T: 1024, S: 1024, K: 1, group: 1, B: 1 });
      const inputs = [query!, key!, value!];
      for (const input of inputs) input.requiresGrad = true;
      allocator.resetPeak();
      const start = allocator.stats().live;
      scope(() => void grad(sum(attention(query!, key!, value!, { causal: true })), inputs));
      const used = allocator.stats().peak - start;
      assert.ok(used < 1024 * 1024, `${used} bytes`);
    });
  });

  test('a cache with room to spare: the first kvLength keys count', () => {
    scope(() => {
      for (const [T, length, window] of [
        [1, 7, undefined],
        [3, 9, undefined],
        [3, 6, 2],
      ] as const) {
        const [query, key, value] = operands({ ...small, T });
        const options: AttentionOptions = { causal: true, window };
        const got = attention(query!, key!, value!, {
          ...options,
          kvLength: tensor([length], { dtype: 'int32' }),
        });
        const cut = (x: Tensor): Tensor => slice(x, [null, [0, length]]);
        const want = attention(query!, cut(key!), cut(value!), options);
        assert.equal(
          difference(toArray(got), toArray(want), { rtol: 1e-6, atolScale: 1e-6 }),
          null,
        );
      }
    });
  });

  test('queries that see no key give zeros and no gradient', () => {
    const cpu = currentBackend();
    const [out, dquery] = run(cpu, { ...small, T: 6, S: 2, window: 1 });
    const perBatch = 6 * 4 * 6;
    assert.ok(out!.subarray(0, 4 * 4 * 6).every((x) => x === 0));
    assert.ok(out!.subarray(4 * 4 * 6, perBatch).every((x) => x !== 0));
    assert.ok([...out!, ...dquery!].every(Number.isFinite));
  });

  test('NaN in a visible key reaches the queries that see it, and no other', () => {
    scope(() => {
      const [query, key, value] = operands({ ...small, B: 1, T: 9 });
      const poison = new Float32Array(9 * 2 * 4);
      poison.fill(Number.NaN, 5 * 8, 6 * 8);
      const spoiled = tensor(poison, { shape: [1, 9, 2, 4] });
      const out = toArray(attention(query!, mul(spoiled, key!), value!, { causal: true }));
      const row = 4 * 6;
      assert.ok(out.subarray(0, 5 * row).every(Number.isFinite));
      assert.ok(out.subarray(5 * row).every(Number.isNaN));
    });
  });

  test('a mask tensor gives what the same causal mask gives', () => {
    scope(() => {
      const [query, key, value] = operands(small).map((x) => transpose(x, 1, 2));
      const options = { enableGqa: true } as const;
      const want = scaledDotProductAttention(query!, key!, value!, { ...options, isCausal: true });
      for (const attnMask of [causalMask(5, 9), mul(sub1(causalMask(5, 9)), 1e30)]) {
        const got = scaledDotProductAttention(query!, key!, value!, { ...options, attnMask });
        assert.equal(
          difference(toArray(got), toArray(want), { rtol: 2e-5, atolScale: 2e-6 }),
          null,
        );
      }
    });
  });

  test('says what does not fit', () => {
    scope(() => {
      const [query, key, value] = operands(small);
      const wrong = random([2, 9, 3, 4], 1);
      assert.throws(() => attention(query!, wrong, value!), /H a multiple of K.*\[2, 9, 3, 4\]/s);
      assert.throws(() => attention(query!, key!, value!, { window: 3 }), /needs a causal mask/);
      assert.throws(() => attention(query!, key!, value!, { scale: 0 }), /other than 0/);
      assert.throws(() => scaledDotProductAttention(query!, wrong, wrong), /enableGqa: true/);
      query!.requiresGrad = true;
      const kvLength = tensor([3], { dtype: 'int32' });
      assert.throws(() => attention(query!, key!, value!, { kvLength }), /no gradient/);
      noGrad(() => attention(query!, key!, value!, { kvLength }));
    });
  });
});

/** Bool to 0 where true, -1 where false. */
function sub1(mask: Tensor): Tensor {
  return mask.cast('float32').sub(1);
}
