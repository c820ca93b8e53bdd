/**
 * The host's BLAS, through koffi (an optional package). Retune's threads call it side by side on
 * slices of C, so the library itself is told to use one thread.
 */

import { UnsupportedError } from '../../core/errors.ts';
import { hostPlatform, requirePackage } from './platform.ts';

/** A BLAS library that was found and gave a right product. */
export interface BlasLibrary {
  readonly path: string;
  /** Such as "OpenBLAS 0.3.21". */
  readonly name: string;
}

/** Row-major single-precision product; the matrices are given by their machine addresses. */
export type Sgemm = (
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

/** y = alpha op(A) x + beta y for a row-major A of `rows` rows as stored. */
export type Sgemv = (
  trans: boolean,
  rows: number,
  columns: number,
  alpha: number,
  a: number,
  lda: number,
  x: number,
  stepX: number,
  beta: number,
  y: number,
  stepY: number,
) => void;

export interface BoundBlas {
  readonly sgemm: Sgemm;
  readonly sgemv: Sgemv;
  /** Machine address of the first byte of the shared memory. */
  readonly base: number;
}

/**
 * Where to look. The generic names (libcblas, libblas) come last and count only when they turn out to
 * be one of the known libraries: the reference implementation behind them is slower than WebAssembly.
 */
const places: Readonly<Record<string, readonly string[]>> = {
  darwin: ['/System/Library/Frameworks/Accelerate.framework/Accelerate'],
  linux: [
    'libopenblas.so.0',
    'libopenblas.so',
    'libmkl_rt.so.2',
    'libmkl_rt.so',
    'libblis.so.4',
    'libblis.so',
    'libcblas.so.3',
    'libblas.so.3',
  ],
  win32: ['libopenblas.dll', 'openblas.dll', 'mkl_rt.2.dll', 'mkl_rt.dll'],
};

/**
 * The first usable BLAS of this machine; with `path` only that one is tried, and an unusable one is
 * an UnsupportedError. `scratch` is some memory for the trial product, at least 256 bytes at the
 * offset 0 of its buffer's view.
 */
export function findBlas(scratch: Float32Array, path?: string): BlasLibrary | undefined {
  const koffi = loadKoffi();
  if (koffi === undefined) {
    if (path === undefined) return undefined;
    throw new UnsupportedError(
      `findBlas: a BLAS library was asked for, but the package koffi is not installed (got ${path}). ` +
        'Run npm install koffi, or choose matmul "wasm".',
    );
  }
  for (const candidate of path === undefined ? (places[hostPlatform().system] ?? []) : [path]) {
    try {
      const library = openLibrary(koffi, candidate);
      const name = library.vendor.name(library.lib);
      if (path === undefined && library.vendor === generic) continue;
      library.vendor.limitThreads(library.lib);
      if (givesRightProduct(library.sgemm, koffi, scratch)) return { path: candidate, name };
    } catch {
      // Not on this machine, or no CBLAS inside: try the next.
    }
  }
  if (path === undefined) return undefined;
  throw new UnsupportedError(
    `findBlas: the library cannot be used as a BLAS (got ${path}). ` +
      'Give the path of one that exports cblas_sgemm with 32-bit integers, or choose matmul "wasm".',
    { path },
  );
}

/** The library on the calling thread, limited to one thread of its own. */
export function bindBlas(path: string, buffer: SharedArrayBuffer): BoundBlas {
  const koffi = loadKoffi();
  if (koffi === undefined) throw new UnsupportedError('bindBlas: the package koffi is gone.');
  const { lib, vendor, sgemm, sgemv } = openLibrary(koffi, path);
  vendor.limitThreads(lib);
  return { sgemm, sgemv, base: Number(koffi.address(new Uint8Array(buffer))) };
}

// The part of koffi that is used here.
interface Koffi {
  load(path: string): Library;
  address(value: unknown): bigint;
}
interface Library {
  func(
    name: string,
    result: string,
    parameters: readonly string[],
  ): (...args: unknown[]) => unknown;
}

interface Vendor {
  /** A symbol that only this library has. */
  readonly mark: string;
  readonly name: (lib: Library) => string;
  readonly limitThreads: (lib: Library) => void;
}

const vendors: readonly Vendor[] = [
  {
    mark: 'openblas_get_config',
    name: (lib) => {
      const config = String(lib.func('openblas_get_config', 'const char *', [])());
      return config.split(' ').slice(0, 2).join(' ');
    },
    limitThreads: (lib) => lib.func('openblas_set_num_threads', 'void', ['int'])(1),
  },
  {
    mark: 'MKL_Set_Num_Threads_Local',
    name: () => 'Intel MKL',
    limitThreads: (lib) => lib.func('MKL_Set_Num_Threads_Local', 'int', ['int'])(1),
  },
  {
    mark: 'bli_info_get_version_str',
    name: (lib) => `BLIS ${lib.func('bli_info_get_version_str', 'const char *', [])()}`,
    limitThreads: (lib) => lib.func('bli_thread_set_num_threads', 'void', ['int64_t'])(1),
  },
  {
    mark: 'appleblas_sgeadd',
    name: () => 'Apple Accelerate',
    limitThreads: (lib) => {
      // Since macOS 15; before it, Accelerate decides for itself.
      if (hasSymbol(lib, 'BLASSetThreading')) lib.func('BLASSetThreading', 'int', ['int'])(1);
    },
  },
];

const generic: Vendor = { mark: '', name: () => 'BLAS', limitThreads: () => {} };

const rowMajor = 101;
const noTranspose = 111;
const transpose = 112;

const sgemmTypes = [
  'int',
  'int',
  'int',
  'int',
  'int',
  'int',
  'float',
  'void *',
  'int',
  'void *',
  'int',
  'float',
  'void *',
  'int',
];

const sgemvTypes = [
  'int',
  'int',
  'int',
  'int',
  'float',
  'void *',
  'int',
  'void *',
  'int',
  'float',
  'void *',
  'int',
];

function loadKoffi(): Koffi | undefined {
  return requirePackage('koffi') as Koffi | undefined;
}

function openLibrary(koffi: Koffi, path: string) {
  const lib = koffi.load(path);
  const vendor = vendors.find(({ mark }) => hasSymbol(lib, mark)) ?? generic;
  const call = lib.func('cblas_sgemm', 'void', sgemmTypes);
  const sgemm: Sgemm = (transA, transB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc) => {
    call(
      rowMajor,
      transA ? transpose : noTranspose,
      transB ? transpose : noTranspose,
      m,
      n,
      k,
      alpha,
      a,
      lda,
      b,
      ldb,
      beta,
      c,
      ldc,
    );
  };
  const callVector = lib.func('cblas_sgemv', 'void', sgemvTypes);
  const sgemv: Sgemv = (trans, rows, columns, alpha, a, lda, x, stepX, beta, y, stepY) => {
    const op = trans ? transpose : noTranspose;
    callVector(rowMajor, op, rows, columns, alpha, a, lda, x, stepX, beta, y, stepY);
  };
  return { lib, vendor, sgemm, sgemv };
}

function hasSymbol(lib: Library, name: string): boolean {
  try {
    lib.func(name, 'void', []);
    return true;
  } catch {
    return false;
  }
}

/** A 2x3 by 3x2 product with a transposed operand, strides and beta: catches 64-bit-integer builds. */
function givesRightProduct(sgemm: Sgemm, koffi: Koffi, scratch: Float32Array): boolean {
  const at = Number(koffi.address(scratch));
  scratch.set([1, 4, 0, 2, 5, 0, 3, 6, 0], 0); // A transposed, row length 3
  scratch.set([1, 2, 3, 4, 5, 6], 16);
  scratch.set([1, 1, 9, 1, 1, 9], 32); // C, row length 3
  sgemm(true, false, 2, 2, 3, 2, at, 3, at + 64, 2, 1, at + 128, 3);
  const wanted = [45, 57, 9, 99, 129, 9];
  return wanted.every((value, i) => scratch[32 + i] === value);
}
