import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { hasMemory64, hasRelaxedSimd } from '../features.ts';
import { type Blocking, gemmScratchBytes, narrowBlocking, wideBlocking } from './blocking.ts';
import { emitGemm, type GemmOptions } from './gemm.ts';

type Gemm = (
  transA: boolean,
  transB: boolean,
  m: number,
  n: number,
  k: number,
  alpha: number,
  a: number,
  lda: number,
  b: number,
  ldb: number,
  beta: number,
  c: number,
  ldc: number,
) => void;

interface Fixture {
  readonly floats: Float32Array;
  /** Offsets are in floats. */
  readonly gemm: Gemm;
}

const base = 1 << 20;

function instantiate(options: GemmOptions): Fixture {
  const wide = options.address === 'i64';
  const memory = new WebAssembly.Memory(
    wide
      ? { initial: 128n, maximum: 65536n, shared: true, address: 'i64' }
      : { initial: 128, maximum: 65536, shared: true },
  );
  const module = new WebAssembly.Module(emitGemm({ relaxed: hasRelaxedSimd(), ...options }));
  const raw = new WebAssembly.Instance(module, { env: { memory } }).exports.gemm as unknown as (
    ...args: (number | bigint)[]
  ) => void;
  const at = (floats: number): number | bigint => (wide ? BigInt(4 * floats) : 4 * floats);
  assert.ok(gemmScratchBytes(options.blocking) <= 4 * base);
  return {
    floats: new Float32Array(memory.buffer),
    gemm: (transA, transB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc) =>
      raw(at(0), +transA, +transB, m, n, k, alpha, at(a), lda, at(b), ldb, beta, at(c), ldc),
  };
}

function fill(data: Float32Array, seed: number): void {
  let state = seed | 1;
  for (let i = 0; i < data.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    data[i] = (state >> 8) / 2 ** 23;
  }
}

interface Problem {
  readonly transA: boolean;
  readonly transB: boolean;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly alpha: number;
  readonly beta: number;
  /** Extra floats at the end of each row of A, B and C. */
  readonly pad: readonly [number, number, number];
}

/** Runs one problem on random data and compares every element of C, padding included. */
function check(fixture: Fixture, p: Problem): void {
  const { floats, gemm } = fixture;
  const lda = (p.transA ? p.m : p.k) + p.pad[0];
  const ldb = (p.transB ? p.k : p.n) + p.pad[1];
  const ldc = p.n + p.pad[2];
  const a = base + 1;
  const b = a + (p.transA ? p.k : p.m) * lda + 3;
  const c = b + (p.transB ? p.n : p.k) * ldb + 2;
  const end = c + p.m * ldc + 8;
  fill(floats.subarray(a, end), p.m * 7919 + p.n * 31 + p.k);
  const before = floats.slice(c - 2, end);
  if (p.beta === 0) floats.fill(Number.NaN, c, end - 8);
  for (let i = 0; i < p.m; i++) {
    for (let j = p.n; j < ldc; j++) floats[c + i * ldc + j] = before[2 + i * ldc + j]!;
  }
  gemm(p.transA, p.transB, p.m, p.n, p.k, p.alpha, a, lda, b, ldb, p.beta, c, ldc);
  const label = JSON.stringify(p);
  for (let i = 0; i < p.m; i++) {
    for (let j = 0; j < ldc; j++) {
      const old = before[2 + i * ldc + j]!;
      const got = floats[c + i * ldc + j]!;
      if (j >= p.n) {
        assert.equal(got, old, `${label} wrote outside C at ${i}, ${j}`);
        continue;
      }
      let sum = 0;
      let size = 1;
      for (let q = 0; q < p.k; q++) {
        const x = floats[a + (p.transA ? q * lda + i : i * lda + q)]!;
        const y = floats[b + (p.transB ? j * ldb + q : q * ldb + j)]!;
        sum += x * y;
        size += Math.abs(x * y);
      }
      const want = p.alpha * sum + p.beta * old;
      const error = Math.abs(got - want);
      assert.ok(
        error <= 4e-7 * (1 + Math.abs(p.alpha)) * size,
        `${label} at ${i}, ${j}: ${got} is not ${want}`,
      );
    }
  }
  for (let i = 0; i < 8; i++) assert.equal(floats[end - 8 + i], before[before.length - 8 + i]);
}

/** Small blocks, so that small problems cross every kind of boundary. */
const tiny: Blocking = { mr: 6, nr: 8, mc: 12, kc: 10, nc: 24 };

const variants: readonly (readonly [name: string, options: GemmOptions])[] = [
  ['6 x 8', { blocking: narrowBlocking }],
  ['6 x 16', { blocking: wideBlocking }],
  ['tiny blocks', { blocking: tiny }],
  ['tiny wide blocks', { blocking: { ...tiny, nr: 16, nc: 32 } }],
  ['without relaxed SIMD', { blocking: tiny, relaxed: false }],
  ...(hasMemory64() ? [['memory64', { blocking: tiny, address: 'i64' }] as const] : []),
];

for (const [name, options] of variants) {
  describe(`gemm, ${name}`, () => {
    const fixture = instantiate(options);

    test('agrees with a float64 product for any shape, layout, alpha and beta', () => {
      const size = fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 70 }));
      const scalar = fc.constantFrom(0, 1, -1, 0.5);
      const pad = fc.integer({ min: 0, max: 5 });
      fc.assert(
        fc.property(
          fc.record({
            transA: fc.boolean(),
            transB: fc.boolean(),
            m: size,
            n: size,
            k: size,
            alpha: scalar,
            beta: scalar,
            pad: fc.tuple(pad, pad, pad),
          }),
          (problem) => check(fixture, problem),
        ),
        { numRuns: 150 },
      );
    });

    test('crosses the block sizes in every dimension', () => {
      const pad = [0, 0, 0] as const;
      for (const [m, n, k] of [
        [1, 1, 600],
        [193, 9, 257],
        [7, 513, 20],
        [2, 530, 300],
      ] as const) {
        for (const transB of [false, true]) {
          const transA = m === 193;
          check(fixture, { transA, transB, m, n, k, alpha: 1, beta: 1, pad });
        }
      }
    });

    test('empty dimensions: nothing to write, or C scaled by beta', () => {
      const { floats, gemm } = fixture;
      const c = base;
      floats.fill(3, c, c + 12);
      gemm(false, false, 0, 4, 4, 1, c, 4, c, 4, 0, c, 4);
      gemm(false, false, 4, 0, 4, 1, c, 4, c, 4, 0, c, 4);
      assert.ok(floats.subarray(c, c + 12).every((x) => x === 3));
      gemm(false, false, 2, 3, 0, 1, c, 4, c, 4, 2, c, 5);
      assert.deepEqual([...floats.subarray(c, c + 10)], [6, 6, 6, 3, 3, 6, 6, 6, 3, 3]);
      gemm(false, false, 2, 3, 0, 1, c, 4, c, 4, 0, c, 5);
      assert.deepEqual([...floats.subarray(c, c + 10)], [0, 0, 0, 3, 3, 0, 0, 0, 3, 3]);
    });

    test('cutting C by rows and columns does not change a bit', () => {
      const { floats, gemm } = fixture;
      const [m, n, k] = [45, 77, 300];
      const a = base;
      const b = a + m * k;
      const whole = b + k * n;
      const parts = whole + m * n;
      fill(floats.subarray(a, whole), 5);
      for (const transA of [false, true]) {
        for (const transB of [false, true]) {
          const lda = transA ? m : k;
          const ldb = transB ? k : n;
          gemm(transA, transB, m, n, k, 0.3, a, lda, b, ldb, 0, whole, n);
          fc.assert(
            fc.property(
              fc.integer({ min: 1, max: m }),
              fc.integer({ min: 1, max: n }),
              (rows, columns) => {
                floats.fill(0, parts, parts + m * n);
                for (let i = 0; i < m; i += rows) {
                  for (let j = 0; j < n; j += columns) {
                    const height = Math.min(rows, m - i);
                    const width = Math.min(columns, n - j);
                    const from = a + (transA ? i : i * lda);
                    const to = b + (transB ? j * ldb : j);
                    const at = parts + i * n + j;
                    gemm(transA, transB, height, width, k, 0.3, from, lda, to, ldb, 0, at, n);
                  }
                }
                const same = floats
                  .subarray(whole, parts)
                  .every((x, i) => Object.is(x, floats[parts + i]));
                assert.ok(same, `rows ${rows}, columns ${columns}`);
              },
            ),
            { numRuns: 12 },
          );
        }
      }
    });
  });
}

test('tile shape, packing and layout do not change a bit', () => {
  const [m, n, k] = [50, 60, 513];
  const a = base;
  const b = a + m * k;
  const c = b + k * n;
  const results = [narrowBlocking, wideBlocking].map((blocking) => {
    const { floats, gemm } = instantiate({ blocking });
    fill(floats.subarray(a, c), 9);
    gemm(false, false, m, n, k, 1, a, k, b, n, 0, c, n);
    const plain = floats.slice(c, c + m * n);
    for (let i = 0; i < m; i++) {
      for (let p = 0; p < k; p++) floats[c + m * n + p * m + i] = floats[a + i * k + p]!;
    }
    gemm(true, false, m, n, k, 1, c + m * n, m, b, n, 0, c, n);
    assert.deepEqual(floats.slice(c, c + m * n), plain);
    return plain;
  });
  assert.deepEqual(results[0], results[1]);
});
