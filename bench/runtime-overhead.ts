/**
 * What the CPU backend costs beyond its kernels: launches, program steps, waking, allocation, copies;
 * and how matrix multiply scales with threads.
 *
 *   node bench/runtime-overhead.ts [--threads <n>]
 *
 * Prints minima over many rounds; the machine should be idle. Takes a few seconds.
 */

import { parseArgs } from 'node:util';
import { e } from '../src/ir/expr.ts';
import type { GemmCall, Operand } from '../src/ir/op.ts';
import type { Block } from '../src/runtime/allocator.ts';
import type { Executable, Lowered } from '../src/runtime/backend.ts';
import type { CpuBackend } from '../src/runtime/cpu/backend.ts';
import { createCpuBackend } from '../src/runtime/registry.ts';

const { values } = parseArgs({ options: { threads: { type: 'string', default: '2' } } });
const threads = Number(values.threads);

const backend = await started(createCpuBackend({ threads }));
const alone = createCpuBackend({ threads: 1 });
console.log(JSON.stringify(backend.info));

const small = addKernel(1024);
const large = addKernel(2 ** 16);

print('launch, 1024 elements, 1 thread', launches(backend, small));
print(`launch, 65536 elements, ${threads} threads`, launches(backend, large));
print('launch, 65536 elements, 1 thread', launches(alone, large));
print('program step, 1024 elements, 1 thread', steps(backend, small));
print(`program step, 65536 elements, ${threads} threads`, steps(backend, large));
print('program step, 65536 elements, 1 thread', steps(alone, large));
print('launch that wakes sleeping threads', await waking(backend));
print('allocate and free', allocation(backend));
console.log('');

for (const bytes of [2 ** 12, 2 ** 20, 2 ** 24]) bandwidth(bytes);
console.log('');

const shapes: readonly (readonly [m: number, n: number, k: number, batches: number])[] = [
  [1024, 1024, 1024, 1],
  [2048, 704, 256, 1],
  [256, 256, 256, 1],
  [64, 64, 64, 32],
  [64, 64, 64, 1],
  [8, 1024, 1024, 1],
  [1, 1024, 1024, 1],
];
const libraries = {
  [backend.info.matmul ?? 'blas']: { one: alone, all: backend },
  WebAssembly: {
    one: createCpuBackend({ threads: 1, matmul: 'wasm' }),
    all: await started(createCpuBackend({ threads, matmul: 'wasm' })),
  },
};
for (const [name, { one, all }] of Object.entries(libraries)) {
  console.log(`${name}: GFLOP/s on 1 thread, on ${threads}, B transposed`);
  for (const shape of shapes) {
    const call = gemm(...shape);
    const [m, n, k, batches] = shape;
    const rate = (each: CpuBackend): string =>
      ((2 * m * n * k * batches) / product(each, call) / 1e6).toFixed(1).padStart(8);
    console.log(`  ${`${m} x ${n} x ${k}, ${batches} times`.padEnd(30)}${rate(one)}${rate(all)}`);
  }
}
for (const { one, all } of Object.values(libraries)) for (const each of [one, all]) each.dispose();

async function started(each: CpuBackend): Promise<CpuBackend> {
  while (each.readyWorkers < threads - 1) await sleep(5);
  return each;
}

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

function print(what: string, milliseconds: number): void {
  console.log(`${what.padEnd(50)}${(milliseconds * 1000).toFixed(3).padStart(10)} us`);
}

/** Shortest time of one of `repeat` calls of `body`, over `rounds`. */
function shortest(rounds: number, repeat: number, body: () => void): number {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < rounds; round++) {
    const start = performance.now();
    for (let i = 0; i < repeat; i++) body();
    best = Math.min(best, (performance.now() - start) / repeat);
  }
  return best;
}

function addKernel(n: number): Lowered {
  const dense = { dtype: 'float32', offset: 0, strides: [1] } as const;
  return {
    kind: 'kernel',
    spec: {
      space: [n],
      reduced: [],
      inputs: [{ operand: 0, ...dense }],
      outputs: [{ operand: 1, ...dense, expr: e.add(e.input(0), e.f32(1)) }],
      operands: 2,
      scalars: [],
    },
    scalars: [],
  };
}

/** Blocks of `sizes` bytes, filled with zeros, while `body` runs. */
function withBlocks<R>(
  each: CpuBackend,
  sizes: readonly number[],
  body: (blocks: readonly Block[]) => R,
): R {
  const blocks = sizes.map((bytes) => each.allocator.alloc(bytes, 'temporary'));
  for (const block of blocks) each.fillZero({ block, byteOffset: 0 }, block.bytes);
  try {
    return body(blocks);
  } finally {
    for (const block of blocks) each.allocator.free(block);
  }
}

function launches(each: CpuBackend, lowered: Lowered): number {
  const kernel = each.prepare(lowered);
  return withBlocks(each, [2 ** 18, 2 ** 18], (blocks) => {
    const operands = blocks.map((block) => ({ block, byteOffset: 0 }));
    return shortest(50, 500, () => each.launch(kernel, [], operands));
  });
}

function steps(each: CpuBackend, lowered: Lowered): number {
  const executable: Executable = each.prepare(lowered);
  const step = {
    executable,
    scalars: [],
    operands: [
      { slot: 0, byteOffset: 0 },
      { slot: 1, byteOffset: 0 },
    ],
    label: 'add',
  };
  const count = 500;
  const program = each.createProgram(new Array(count).fill(step));
  const time = withBlocks(each, [2 ** 18, 2 ** 18], (blocks) =>
    shortest(50, 1, () => program.run(blocks)),
  );
  program.dispose();
  return time / count;
}

/** A product that is large enough to wake the others for, after they fell asleep. */
async function waking(each: CpuBackend): Promise<number> {
  const call = gemm(192, 192, 192, 1);
  const kernel = each.prepare(routineOf(call));
  const sizes = [2 ** 18, 2 ** 18, 2 ** 18];
  const blocks = sizes.map((bytes) => each.allocator.alloc(bytes, 'temporary'));
  const operands = blocks.map((block) => ({ block, byteOffset: 0 }));
  const awake = shortest(200, 1, () => each.launch(kernel, [], operands));
  let asleep = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 30; round++) {
    await sleep(3);
    asleep = Math.min(
      asleep,
      shortest(1, 1, () => each.launch(kernel, [], operands)),
    );
  }
  for (const block of blocks) each.allocator.free(block);
  return asleep - awake;
}

function allocation(each: CpuBackend): number {
  let size = 0;
  return shortest(50, 1000, () => {
    size = (size + 4096) % 65536;
    each.allocator.free(each.allocator.alloc(size, 'temporary'));
  });
}

function bandwidth(bytes: number): void {
  const data = new Uint8Array(bytes);
  withBlocks(backend, [bytes, bytes], (blocks) => {
    const at = { block: blocks[0] as Block, byteOffset: 0 };
    const slot = (index: number) => ({ slot: index, byteOffset: 0 });
    const executable = backend.prepare(small);
    const operands = [slot(0), slot(1)];
    const program = backend.createProgram([
      { executable, scalars: [], operands, copyBytes: bytes, label: 'copy' },
    ]);
    const times = {
      write: shortest(30, 1, () => backend.write(at, data)),
      read: shortest(30, 1, () => backend.read(at, bytes)),
      'fill with zero': shortest(30, 1, () => backend.fillZero(at, bytes)),
      copy: shortest(30, 1, () => program.run(blocks)),
    };
    program.dispose();
    const rates = Object.entries(times).map(
      ([what, time]) => `${what} ${(bytes / time / 1e6).toFixed(1)}`,
    );
    console.log(`${String(bytes).padStart(10)} bytes: ${rates.join(', ')} GB/s`);
  });
}

function gemm(m: number, n: number, k: number, batches: number): GemmCall {
  const entry = (i: number) => ({ a: i * m * k, b: i * k * n, c: i * m * n });
  return {
    m,
    n,
    k,
    transA: false,
    transB: true,
    lda: k,
    ldb: k,
    ldc: n,
    alpha: 1,
    beta: 0,
    batches: Array.from({ length: batches }, (_, i) => entry(i)),
    operands: [0, 1, 2],
  };
}

function routineOf(call: GemmCall): Lowered {
  const operand: Operand = {
    aval: { shape: [1], dtype: 'float32' },
    layout: { offset: 0, strides: [1] },
  };
  return {
    kind: 'routine',
    name: 'matmul',
    routine: { wasm: () => ({ gemm: call }), wgsl: { none: 'a benchmark' }, reference: () => {} },
    inputs: [operand, operand],
    outputs: [operand],
    params: {},
  };
}

/** Milliseconds of one product. */
function product(each: CpuBackend, call: GemmCall): number {
  const { m, n, k, batches } = call;
  const kernel = each.prepare(routineOf(call));
  const sizes = [m * k, k * n, m * n].map((count) => 4 * count * batches.length);
  return withBlocks(each, sizes, (blocks) => {
    const operands = blocks.map((block) => ({ block, byteOffset: 0 }));
    const rounds = m * n * k * batches.length > 1e8 ? 12 : 100;
    return shortest(rounds, 1, () => each.launch(kernel, [], operands));
  });
}
