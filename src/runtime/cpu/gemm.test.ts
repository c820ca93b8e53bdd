import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import { kernelFunction, importGemm } from '../../codegen/wasm/kernel-function.ts';
import { ModuleBuilder } from '../../codegen/wasm/module.ts';
import type { GemmCall } from '../../ir/op.ts';
import type { Block } from '../allocator.ts';
import type { Lowered } from '../backend.ts';
import { CpuBackend } from './backend.ts';
import { gemmPieces, gemmThreads } from './gemm-call.ts';

interface Case {
  readonly call: GemmCall;
  readonly a: Float32Array;
  readonly b: Float32Array;
  readonly c: Float32Array;
}

interface Sizes {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly transA: boolean;
  readonly transB: boolean;
  readonly alpha: number;
  readonly beta: number;
  readonly batches: number;
  /** Elements between rows beyond the row's own. */
  readonly gap: number;
}

function callOf(sizes: Sizes): GemmCall {
  const { m, n, k, transA, transB, alpha, beta, batches, gap } = sizes;
  const lda = (transA ? m : k) + gap;
  const ldb = (transB ? k : n) + gap;
  const ldc = n + gap;
  const sizeA = (transA ? k : m) * lda;
  return {
    m,
    n,
    k,
    transA,
    transB,
    lda,
    ldb,
    ldc,
    alpha,
    beta,
    // All entries share B, as a batch of inputs shares a weight.
    batches: Array.from({ length: batches }, (_, i) => ({ a: i * sizeA, b: 0, c: i * m * ldc })),
    operands: [0, 1, 2],
  };
}

function makeCase(sizes: Sizes): Case {
  const { m, n, k, transA, transB, beta, batches } = sizes;
  const call = callOf(sizes);
  const random = pseudoRandom(m * 31 + n * 7 + k);
  const fill = (count: number): Float32Array => Float32Array.from({ length: count }, random);
  const sizeC = m * call.ldc * batches;
  return {
    call,
    a: fill((transA ? k : m) * call.lda * batches),
    b: fill((transB ? n : k) * call.ldb),
    // What lies in C must not matter when beta is 0.
    c: beta === 0 ? new Float32Array(sizeC).fill(Number.NaN) : fill(sizeC),
  };
}

function pseudoRandom(seed: number): () => number {
  let state = seed | 1;
  return () => {
    state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9;
    return ((state >>> 8) & 0xffff) / 0x8000 - 1;
  };
}

function expected({ call, a, b, c }: Case): Float64Array {
  const out = Float64Array.from(c);
  const { m, n, k, lda, ldb, ldc, transA, transB, alpha, beta } = call;
  for (const offset of call.batches) {
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        let sum = 0;
        for (let p = 0; p < k; p++) {
          const x = a[offset.a + (transA ? p * lda + i : i * lda + p)]!;
          sum += x * b[offset.b + (transB ? j * ldb + p : p * ldb + j)]!;
        }
        const at = offset.c + i * ldc + j;
        out[at] = alpha * sum + (beta === 0 ? 0 : beta * c[at]!);
      }
    }
  }
  return out;
}

function lowered(call: GemmCall): Lowered {
  const operand = { aval: { shape: [1], dtype: 'float32' }, layout: { offset: 0, strides: [1] } };
  return {
    kind: 'routine',
    name: 'matmul',
    routine: { wasm: () => ({ gemm: call }), wgsl: { none: 'a test' }, reference: () => {} },
    inputs: [operand, operand] as never,
    outputs: [operand] as never,
    params: {},
  };
}

function floats(backend: CpuBackend, values: Float32Array): Block {
  const block = backend.allocator.alloc(values.byteLength, 'temporary');
  backend.write({ block, byteOffset: 0 }, new Uint8Array(values.buffer));
  return block;
}

function run(backend: CpuBackend, lower: Lowered, arrays: Case): Float32Array {
  const blocks = [arrays.a, arrays.b, arrays.c].map((values) => floats(backend, values));
  backend.launch(
    backend.prepare(lower),
    [],
    blocks.map((block) => ({ block, byteOffset: 0 })),
  );
  const out = backend.read({ block: blocks[2]!, byteOffset: 0 }, arrays.c.byteLength);
  for (const block of blocks) backend.allocator.free(block);
  return new Float32Array(out.buffer);
}

/** A kernel that multiplies through the import, on its last thread. Slots as in the call's operands. */
function throughImport({ call }: Case, memory64: boolean): Lowered {
  const module = new ModuleBuilder({ address: memory64 ? 'i64' : 'i32' });
  const gemm = importGemm(module);
  kernelFunction(module, 'main', (f, k) => {
    f.if(k.thread.eq(k.threads.sub(1)), () => {
      const { transA, transB, m, n, k: depth, alpha, lda, ldb, beta, ldc } = call;
      const [a, b, c] = [k.ptr(0), k.ptr(1), k.ptr(2)];
      f.call(gemm, [+transA, +transB, m, n, depth, alpha, a, lda, b, ldb, beta, c, ldc]);
    });
  });
  const key = `throughImport ${JSON.stringify(call)}`;
  const base = lowered(call);
  return {
    ...base,
    routine: {
      wasm: () => ({ key, build: () => module.bytes() }),
      wgsl: { none: 'a test' },
      reference: () => {},
    },
  } as Lowered;
}

const sizes = fc.record<Sizes>({
  m: fc.integer({ min: 1, max: 70 }),
  n: fc.integer({ min: 1, max: 90 }),
  k: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constantFrom(64, 257, 300)),
  transA: fc.boolean(),
  transB: fc.boolean(),
  alpha: fc.constantFrom(1, 0.5, -2),
  beta: fc.constantFrom(0, 1, 0.25),
  batches: fc.integer({ min: 1, max: 5 }),
  gap: fc.constantFrom(0, 0, 3),
});

const plain: Sizes = {
  m: 200,
  n: 130,
  k: 90,
  transA: false,
  transB: false,
  alpha: 1,
  beta: 0,
  batches: 1,
  gap: 0,
};

const bothWays = [
  [false, false],
  [false, true],
  [true, false],
  [true, true],
] as const;

function assertClose(actual: Float32Array, wanted: Float64Array, k: number): void {
  for (let i = 0; i < actual.length; i++) {
    if (Number.isNaN(wanted[i])) continue;
    const error = Math.abs(actual[i]! - wanted[i]!);
    if (!(error <= 1e-6 * (8 + k))) assert.fail(`element ${i}: ${actual[i]}, wanted ${wanted[i]}`);
  }
}

describe('matrix multiply', () => {
  const backends: CpuBackend[] = [];
  let blas: CpuBackend | undefined;

  before(async () => {
    for (const threads of [1, 2, 3]) backends.push(new CpuBackend({ threads, matmul: 'wasm' }));
    try {
      blas = new CpuBackend({ threads: 3, matmul: 'blas' });
      void blas.info;
    } catch {
      blas?.dispose();
      blas = undefined;
    }
    const all = blas ? [...backends, blas] : backends;
    const wait = (): boolean => all.every((b) => b.readyWorkers === Number(b.info.threads) - 1);
    while (!wait()) await new Promise((resolve) => setTimeout(resolve, 5));
  });
  after(() => {
    for (const backend of blas ? [...backends, blas] : backends) backend.dispose();
  });

  it('in WebAssembly is right, and the same to the bit on 1, 2 and 3 threads', () => {
    fc.assert(
      fc.property(sizes, (shape) => {
        const arrays = makeCase(shape);
        const [one, two, three] = backends.map((backend) =>
          run(backend, lowered(arrays.call), arrays),
        );
        assertClose(one!, expected(arrays), shape.k);
        assert.deepEqual(two, one);
        assert.deepEqual(three, one);
      }),
      { numRuns: 60 },
    );
    for (const [transA, transB] of bothWays) {
      const arrays = makeCase({ ...plain, transA, transB });
      const [one, two, three] = backends.map((backend) =>
        run(backend, lowered(arrays.call), arrays),
      );
      assertClose(one!, expected(arrays), plain.k);
      assert.deepEqual(two, one);
      assert.deepEqual(three, one);
    }
  });

  it('is right for single rows and columns', () => {
    for (const [m, n, k] of [
      [1, 700, 300],
      [700, 1, 300],
      [1, 1, 50],
      [5, 1100, 400],
    ] as const) {
      for (const [transA, transB] of bothWays) {
        for (const beta of [0, 0.5]) {
          const arrays = makeCase({ ...plain, m, n, k, transA, transB, beta, gap: 3 });
          const wanted = expected(arrays);
          for (const backend of blas ? [...backends, blas] : backends) {
            assertClose(run(backend, lowered(arrays.call), arrays), wanted, k);
          }
        }
      }
    }
  });

  it('through BLAS is right on 3 threads', (t) => {
    if (!blas) return t.skip('no BLAS library was found on this machine');
    const backend = blas;
    fc.assert(
      fc.property(sizes, (shape) => {
        const arrays = makeCase(shape);
        assertClose(run(backend, lowered(arrays.call), arrays), expected(arrays), shape.k);
      }),
      { numRuns: 60 },
    );
    for (const [transA, transB] of bothWays) {
      const arrays = makeCase({ ...plain, transA, transB });
      assertClose(run(backend, lowered(arrays.call), arrays), expected(arrays), plain.k);
    }
  });

  it('can be imported by kernels on every thread', () => {
    const arrays = makeCase({ ...plain, m: 33, n: 20, gap: 3, beta: 0.5 });
    for (const backend of blas ? [...backends, blas] : backends) {
      const actual = run(backend, throughImport(arrays, false), arrays);
      assertClose(actual, expected(arrays), plain.k);
    }
  });

  for (const matmul of ['wasm', 'blas'] as const) {
    it(`works with 64-bit addresses (${matmul})`, (t) => {
      if (matmul === 'blas' && !blas) return t.skip('no BLAS library was found on this machine');
      const wide = new CpuBackend({ threads: 1, matmul, memory64: true });
      const arrays = makeCase({ ...plain, transA: true, beta: 1 });
      assertClose(run(wide, lowered(arrays.call), arrays), expected(arrays), plain.k);
      assertClose(run(wide, throughImport(arrays, true), arrays), expected(arrays), plain.k);
      wide.dispose();
    });
  }

  it('without terms leaves beta * C', () => {
    for (const backend of blas ? [...backends, blas] : backends) {
      const arrays = makeCase({ ...plain, m: 3, n: 4, k: 1, beta: 0.5 });
      const none = { ...arrays, call: { ...arrays.call, k: 0, lda: 1 } };
      const actual = run(backend, lowered(none.call), none);
      assert.deepEqual(
        actual,
        arrays.c.map((value) => value / 2),
      );
    }
  });

  it('deals out every element exactly once', () => {
    fc.assert(
      fc.property(sizes, fc.integer({ min: 1, max: 9 }), (shape, threads) => {
        const call = callOf(shape);
        const seen = new Uint8Array(call.batches.length * call.m * call.n);
        for (let thread = 0; thread < threads; thread++) {
          for (const { batch, row, rows, column, columns } of gemmPieces(call, thread, threads)) {
            for (let i = row; i < row + rows; i++) {
              for (let j = column; j < column + columns; j++) {
                seen[(batch * call.m + i) * call.n + j]!++;
              }
            }
          }
        }
        assert.ok(seen.every((count) => count === 1));
      }),
    );
  });

  it('keeps small products on one thread', () => {
    const threadsOf = (m: number, n: number, k: number): number =>
      gemmThreads(callOf({ ...plain, m, n, k }), 8);
    assert.equal(threadsOf(32, 32, 32), 1);
    assert.equal(threadsOf(64, 64, 64), 2);
    assert.equal(threadsOf(256, 256, 256), 8);
    assert.equal(threadsOf(1, 4096, 4096), 8);
    assert.equal(threadsOf(1, 17, 100_000), 2);
  });
});
