/**
 * Compiles the matrix multiply in the form that this engine runs fastest.
 *
 * V8 on x64 with AVX2 can join pairs of 128-bit vectors into 256-bit ones, which doubles the speed of
 * the 6 x 16 tile; the pass sits behind an experimental flag. Node lets a program set V8's flags, and
 * V8 reads this one when it optimizes a function. So it is set for just as long as the multiply is
 * compiled, at once and fully optimized, and no other code is ever compiled with it. V8 keeps one
 * compiled form of equal bytes per process for as long as it is in use, so a thread that compiles `bytes`
 * gets that form.
 *
 * Whether it helped is measured. Every form gives the same bits, so the choice shows in nothing but time.
 */

import type { ModuleOptions } from '../module.ts';
import { type Blocking, gemmScratchBytes, narrowBlocking, wideBlocking } from './blocking.ts';
import { emitGemm } from './gemm.ts';

export interface CompiledGemm {
  readonly blocking: Blocking;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly module: WebAssembly.Module;
}

export interface CompileOptions extends Omit<ModuleOptions, 'shared'> {
  /** Try 256-bit vectors where V8's flags can be set. Default true. */
  readonly wide?: boolean;
}

interface V8Flags {
  setFlagsFromString(flags: string): void;
}

/** Fully optimized before the constructor of Module returns, so that the trial measures the final code. */
const atOnce = {
  set: ['--no-liftoff', '--no-wasm-lazy-compilation'],
  reset: ['--liftoff', '--wasm-lazy-compilation'],
};
const joinVectors = {
  set: ['--experimental-wasm-revectorize'],
  reset: ['--no-experimental-wasm-revectorize'],
};

/** One per set of options; also keeps the compiled forms alive for threads that start later. */
const compiledForms = new Map<string, CompiledGemm>();

/** The fastest form. The first call takes some tens of milliseconds; others get the same object. */
export function compileGemm(options: CompileOptions = {}): CompiledGemm {
  const { address = 'i32', relaxed = false, wide = true } = options;
  const key = `${address} ${relaxed} ${wide}`;
  let form = compiledForms.get(key);
  if (form === undefined) {
    form = fastest({ address, relaxed, wide });
    compiledForms.set(key, form);
  }
  return form;
}

function fastest(options: Required<CompileOptions>): CompiledGemm {
  // The pass handles neither 64-bit addresses nor separate multiplications and additions well.
  const able = options.wide && options.relaxed && options.address === 'i32';
  const v8 = able ? flagsOfV8() : undefined;
  if (!v8) return compile(options, narrowBlocking);
  const [narrow, wide] = withFlags(v8, atOnce, () => [
    compile(options, narrowBlocking),
    withFlags(v8, joinVectors, () => compile(options, wideBlocking)),
  ]);
  const [narrowTime, wideTime] = race(trial(narrow), trial(wide));
  return wideTime < 0.9 * narrowTime ? wide : narrow;
}

function compile(options: ModuleOptions, blocking: Blocking): CompiledGemm {
  const bytes = emitGemm({ ...options, blocking });
  return { blocking, bytes, module: new WebAssembly.Module(bytes) };
}

function withFlags<T>(v8: V8Flags, flags: typeof atOnce, run: () => T): T {
  for (const flag of flags.set) v8.setFlagsFromString(flag);
  try {
    return run();
  } finally {
    for (const flag of flags.reset) v8.setFlagsFromString(flag);
  }
}

/** V8's flags where a program may set them: in Node on x64. */
function flagsOfV8(): V8Flags | undefined {
  const { process } = globalThis;
  if (process?.arch !== 'x64' || process.versions.v8 === undefined) return undefined;
  return process.getBuiltinModule?.('node:v8');
}

const [m, n, k] = [96, 64, 64];
const pageBytes = 65536;

/** Shortest times of two runs, taken in turns so that a busy machine slows both. */
function race(first: () => void, second: () => void): readonly [number, number] {
  const best = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY] as [number, number];
  const end = performance.now() + 5;
  for (let round = 0; round < 10 || performance.now() < end; round++) {
    for (const [i, run] of [first, second].entries()) {
      const start = performance.now();
      for (let j = 0; j < 4; j++) run();
      best[i] = Math.min(best[i] as number, performance.now() - start);
    }
  }
  return best;
}

/** One product on a memory of its own, with 32-bit addresses. */
function trial({ module, blocking }: CompiledGemm): () => void {
  const a = gemmScratchBytes(blocking);
  const b = a + 4 * m * k;
  const c = b + 4 * k * n;
  const pages = Math.ceil((c + 4 * m * n) / pageBytes);
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  const { gemm } = new WebAssembly.Instance(module, { env: { memory } }).exports;
  const call = gemm as unknown as (...args: readonly number[]) => void;
  return () => call(0, 0, 0, m, n, k, 1, a, k, b, n, 0, c, n);
}
