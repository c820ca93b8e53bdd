/**
 * GFLOP/s of the generated matrix multiply on one thread, next to OpenBLAS where koffi finds it.
 *
 *   node bench/gemm-wasm.ts [--narrow] [--memory64]
 *
 * --narrow leaves V8's flags alone: 128-bit vectors only.
 * Minimum over interleaved rounds; the machine should be idle. Takes about ten seconds.
 */

import { hasRelaxedSimd } from '../src/codegen/wasm/features.ts';
import { gemmScratchBytes } from '../src/codegen/wasm/gemm/blocking.ts';
import { compileGemm } from '../src/codegen/wasm/gemm/choose.ts';

const shapes: readonly (readonly [m: number, n: number, k: number])[] = [
  [1024, 1024, 1024],
  [2048, 704, 256],
  [512, 512, 512],
  [128, 128, 128],
  [64, 64, 64],
  [64, 64, 1024],
  [32, 32, 32],
  [16, 256, 256],
  [4, 1024, 1024],
  [2, 1024, 1024],
  [1, 1024, 1024],
  [127, 129, 65],
];
const layouts = ['NN', 'NT', 'TN', 'TT'] as const;

/** transA, transB, m, n, k, a, lda, b, ldb, c, ldc: C = op(A) op(B), addresses in bytes. */
type Product = (...args: readonly number[]) => void;

const memory64 = process.argv.includes('--memory64');

const memory = new WebAssembly.Memory(
  memory64
    ? { initial: 1024n, maximum: 1024n, shared: true, address: 'i64' }
    : { initial: 1024, maximum: 1024, shared: true },
);
const floats = new Float32Array(memory.buffer);
for (let i = 0; i < floats.length; i++) floats[i] = ((i * 40503) % 997) / 997 - 0.5;

const options = { relaxed: hasRelaxedSimd(), address: memory64 ? 'i64' : 'i32' } as const;
const begin = performance.now();
const compiled = compileGemm({ ...options, wide: !process.argv.includes('--narrow') });
const { blocking } = compiled;
console.log(`compiled in ${(performance.now() - begin).toFixed(0)} ms`);
const wasm = generated();
const blas = await openBlas();
const unit = blas ? 'GFLOP/s (and over OpenBLAS)' : 'GFLOP/s';
console.log(
  `tile ${blocking.mr} x ${blocking.nr}, ${options.address} addresses, 1 thread: ${unit}`,
);
console.log(['m x n x k'.padEnd(16), ...layouts.map((layout) => layout.padStart(16))].join(''));
for (const [m, n, k] of shapes) {
  const cells = layouts.map((layout) => measure(m, n, k, layout).padStart(16));
  console.log([`${m}x${n}x${k}`.padEnd(16), ...cells].join(''));
}

function measure(m: number, n: number, k: number, layout: (typeof layouts)[number]): string {
  const transA = layout[0] === 'T' ? 1 : 0;
  const transB = layout[1] === 'T' ? 1 : 0;
  const a = 4 << 20;
  const b = a + 4 * m * k;
  const c = b + 4 * k * n;
  const args = [transA, transB, m, n, k, a, transA ? m : k, b, transB ? k : n, c, n];
  const repeat = Math.max(1, Math.ceil(4e6 / (m * n * k)));
  const time = (run: Product): number => {
    const start = performance.now();
    for (let i = 0; i < repeat; i++) run(...args);
    return (performance.now() - start) / repeat;
  };
  let [ours, theirs] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  for (let round = 0; round < (m * n * k > 1e8 ? 6 : 40); round++) {
    ours = Math.min(ours, time(wasm));
    if (blas) theirs = Math.min(theirs, time(blas));
  }
  const rate = (2e-6 * m * n * k) / ours;
  return rate.toFixed(1) + (blas ? ` (${(theirs / ours).toFixed(2)})` : '');
}

function generated(): Product {
  const scratch = 65536;
  if (scratch + gemmScratchBytes(blocking) > 4 << 20) throw new RangeError('scratch too small');
  const { gemm } = new WebAssembly.Instance(compiled.module, { env: { memory } }).exports;
  const call = gemm as unknown as (...args: (number | bigint)[]) => void;
  const at = (bytes: number): number | bigint => (memory64 ? BigInt(bytes) : bytes);
  return (
    transA = 0,
    transB = 0,
    m = 0,
    n = 0,
    k = 0,
    a = 0,
    lda = 0,
    b = 0,
    ldb = 0,
    c = 0,
    ldc = 0,
  ) => call(at(scratch), transA, transB, m, n, k, 1, at(a), lda, at(b), ldb, 0, at(c), ldc);
}

async function openBlas(): Promise<Product | undefined> {
  try {
    const { default: koffi } = await import('koffi');
    const library = koffi.load('libopenblas.so.0');
    library.func('void openblas_set_num_threads(int)')(1);
    const sgemm = library.func(
      'void cblas_sgemm(int, int, int, int, int, int, float, void*, int, void*, int, float, void*, int)',
    );
    const [rowMajor, plain] = [101, 111];
    const at = (bytes: number): Uint8Array => new Uint8Array(memory.buffer, bytes);
    return (transA = 0, transB = 0, m, n, k, a = 0, lda, b = 0, ldb, c = 0, ldc) => {
      const [opA, opB] = [plain + transA, plain + transB];
      sgemm(rowMajor, opA, opB, m, n, k, 1, at(a), lda, at(b), ldb, 0, at(c), ldc);
    };
  } catch {
    return undefined;
  }
}
