/**
 * Single-threaded float32 matrix multiply on the calling thread: the host's BLAS or the generated
 * WebAssembly one. The main thread chooses once and writes the choice into shared memory as a
 * MatmulSetup; every thread binds it for itself when it first multiplies.
 */

import { invariant } from '../../core/errors.ts';
import { ModuleBuilder } from '../../codegen/wasm/module.ts';
import { gemmParams } from '../../codegen/wasm/kernel-function.ts';
import { bindBlas } from './blas.ts';
import { word } from './control.ts';
import { loadAddress, type SharedMemory } from './memory.ts';

/** The choice, as JSON in shared memory. */
export type MatmulSetup =
  | { readonly kind: 'blas'; readonly path: string }
  | {
      readonly kind: 'wasm';
      /** The generated module. */
      readonly address: number;
      readonly bytes: number;
      /** Packing scratch of thread t begins at scratch + t * scratchBytes. */
      readonly scratch: number;
      readonly scratchBytes: number;
    };

/** C = alpha op(A) op(B) + beta C, row-major; addresses are bytes in the shared memory. */
export type Gemm = (
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

export interface ThreadMatmul {
  readonly gemm: Gemm;
  /** The same with the types of `env.gemm`, to be imported by kernel modules. */
  readonly import: WebAssembly.ExportValue;
}

/** Binds the choice that was made for this memory. */
export function threadMatmul(memory: SharedMemory, thread: number): ThreadMatmul {
  const { control } = memory;
  const length = control[word.matmulBytes]!;
  invariant(length > 0, () => 'threadMatmul: matrix multiply was not set up');
  const text = memory.view(loadAddress(control, word.matmulAddress), length).slice();
  const setup = JSON.parse(new TextDecoder().decode(text)) as MatmulSetup;
  return setup.kind === 'blas' ? blasMatmul(setup.path, memory) : wasmMatmul(setup, memory, thread);
}

/** Rows of C up to which OpenBLAS does better on slices of B that its small-product kernels take. */
const fewRows = 8;

/** Multiply-adds that those kernels take. */
const smallProduct = 1e6;

function blasMatmul(path: string, memory: SharedMemory): ThreadMatmul {
  const { sgemm, sgemv, base } = bindBlas(path, memory.buffer);
  const gemm: Gemm = (transA, transB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc) => {
    const [atA, atB, atC] = [base + a, base + b, base + c];
    if (k === 0 || (m > fewRows && n > 1)) {
      sgemm(transA, transB, m, n, k, alpha, atA, lda, atB, ldb, beta, atC, ldc);
    } else if (m === 1) {
      if (beta === 0) clear(memory, c, n, 1);
      // A row of C: C^T = op(B)^T op(A)^T.
      const [rows, columns] = transB ? [n, k] : [k, n];
      sgemv(!transB, rows, columns, alpha, atB, ldb, atA, transA ? lda : 1, beta, atC, 1);
    } else if (n === 1) {
      if (beta === 0) clear(memory, c, m, ldc);
      const [rows, columns] = transA ? [k, m] : [m, k];
      sgemv(transA, rows, columns, alpha, atA, lda, atB, transB ? 1 : ldb, beta, atC, ldc);
    } else {
      const slice = transB ? Math.max(16, Math.floor(smallProduct / (m * k * 16)) * 16) : n;
      for (let j = 0; j < n; j += slice) {
        const columns = Math.min(slice, n - j);
        const from = atB + 4 * j * ldb;
        sgemm(transA, transB, m, columns, k, alpha, atA, lda, from, ldb, beta, atC + 4 * j, ldc);
      }
    }
  };
  type Narrow = (
    ...args: [
      number,
      number,
      number,
      number,
      number,
      number,
      number,
      number,
      number,
      number,
      number,
      number,
      number,
    ]
  ) => void;
  const narrow: Narrow = (transA, transB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc) => {
    gemm(
      transA !== 0,
      transB !== 0,
      m,
      n,
      k,
      alpha,
      a >>> 0,
      lda,
      b >>> 0,
      ldb,
      beta,
      c >>> 0,
      ldc,
    );
  };
  const wide = (
    transA: number,
    transB: number,
    m: number,
    n: number,
    k: number,
    alpha: number,
    a: bigint,
    lda: number,
    b: bigint,
    ldb: number,
    beta: number,
    c: bigint,
    ldc: number,
  ): void => {
    gemm(
      transA !== 0,
      transB !== 0,
      m,
      n,
      k,
      alpha,
      Number(a),
      lda,
      Number(b),
      ldb,
      beta,
      Number(c),
      ldc,
    );
  };
  return { gemm, import: memory.memory64 ? wide : narrow };
}

/** Some libraries' sgemv multiplies what lies in y by beta even when that is 0. */
function clear(memory: SharedMemory, address: number, count: number, step: number): void {
  const floats = new Float32Array(memory.buffer, address, (count - 1) * step + 1);
  for (let i = 0; i < count; i++) floats[i * step] = 0;
}

function wasmMatmul(
  setup: MatmulSetup & { readonly kind: 'wasm' },
  memory: SharedMemory,
  thread: number,
): ThreadMatmul {
  const env = { memory: memory.memory };
  const module = new WebAssembly.Module(memory.view(setup.address, setup.bytes).slice());
  const raw = new WebAssembly.Instance(module, { env }).exports.gemm;
  invariant(typeof raw === 'function', () => 'wasmMatmul: the generated module has no gemm');
  const scratch = setup.scratch + thread * setup.scratchBytes;
  const wrapper = new WebAssembly.Module(scratchWrapper(scratch, memory.memory64));
  const bound = new WebAssembly.Instance(wrapper, { env: { ...env, raw } }).exports.gemm;
  invariant(typeof bound === 'function', () => 'wasmMatmul: the wrapper module has no gemm');
  if (memory.memory64) {
    const wide = bound as unknown as (...args: readonly (number | bigint)[]) => void;
    const gemm: Gemm = (transA, transB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc) => {
      wide(+transA, +transB, m, n, k, alpha, BigInt(a), lda, BigInt(b), ldb, beta, BigInt(c), ldc);
    };
    return { gemm, import: bound };
  }
  // WebAssembly turns booleans into 0 and 1, and addresses into 32 bits.
  return { gemm: bound as unknown as Gemm, import: bound };
}

/** A module whose `gemm` calls `env.raw` with this thread's packing scratch in front. */
function scratchWrapper(scratch: number, memory64: boolean): Uint8Array<ArrayBuffer> {
  const module = new ModuleBuilder({ address: memory64 ? 'i64' : 'i32' });
  const raw = module.importFunc('env', 'raw', ['ptr', ...gemmParams]);
  module.func('gemm', gemmParams, (f, ...args) => {
    f.call(raw, [scratch, ...args]);
  });
  return module.bytes();
}
