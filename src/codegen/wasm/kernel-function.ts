/**
 * The calling convention of kernels: `(args: ptr, thread: i32, threads: i32) -> ()`, called on every
 * thread with the same arguments. `args` points to a block of 8-byte little-endian slots; slot i
 * holds a pointer, an i32 or a float32 (the latter two in its low 4 bytes). Each thread does its
 * share; no element's value may depend on how many threads there are.
 */

import type { FunctionBuilder, FunctionRef } from './function.ts';
import type { ModuleBuilder } from './module.ts';
import type { Ptr } from './pointer.ts';
import type { F32, I32, Var } from './scalars.ts';

export const slotBytes = 8;

/** Access to a kernel's arguments. Each call emits a load: bind results outside loops. */
export interface KernelArguments {
  ptr(slot: number): Var<Ptr>;
  i32(slot: number): Var<I32>;
  f32(slot: number): Var<F32>;
  readonly thread: Var<I32>;
  readonly threads: Var<I32>;
  /**
   * This thread's part of `count` items, cut at multiples of `granule`: [begin, end). The parts are
   * contiguous, disjoint, cover everything and differ by at most one granule.
   */
  share(count: I32, granule?: number): readonly [begin: Var<I32>, end: Var<I32>];
}

/** Adds an exported kernel to `module`. */
export function kernelFunction(
  module: ModuleBuilder,
  name: string,
  body: (f: FunctionBuilder, k: KernelArguments) => void,
): FunctionRef {
  return module.func(name, ['ptr', 'i32', 'i32'], (f, args, thread, threads) => {
    const share = (count: I32, granule = 1): readonly [Var<I32>, Var<I32>] => {
      const total = f.let(count);
      const granules = f.let(
        total
          .toI64S()
          .add(granule - 1)
          .divS(granule === 1 ? 1 : granule),
      );
      const bound = (part: I32): I32 =>
        granules.mul(part.toI64S()).divS(threads.toI64S()).mul(granule).toI32();
      const begin = f.let(bound(thread));
      const end = f.let(bound(thread.add(1)));
      end.set(end.minS(total));
      return [begin, end];
    };
    body(f, {
      ptr: (slot) => f.let(args.ptr(slot * slotBytes)),
      i32: (slot) => f.let(args.i32(slot * slotBytes)),
      f32: (slot) => f.let(args.f32(slot * slotBytes)),
      thread,
      threads,
      share,
    });
  });
}

/** Imports `env.gemm`: C = alpha * op(A) op(B) + beta * C, row-major, on the calling thread. */
export function importGemm(module: ModuleBuilder): FunctionRef<typeof gemmParams, 'none'> {
  return module.importFunc('env', 'gemm', gemmParams);
}

/** transA, transB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc. With beta = 0 C is not read. */
export const gemmParams = [
  'i32',
  'i32',
  'i32',
  'i32',
  'i32',
  'f32',
  'ptr',
  'i32',
  'ptr',
  'i32',
  'f32',
  'ptr',
  'i32',
] as const;
