/**
 * Matrix multiplies as codes: how a GemmCall travels to the threads and how they divide it.
 *
 * C is cut, never the sum over k, so with the generated multiply no element depends on the number of
 * threads. A BLAS may choose another kernel for another slice, so the cut is fixed when the code is
 * made: however many threads happen to be awake, they deal out the same shares. Batch entries are dealt out whole when they come out even; otherwise each entry is cut
 * along the longer side of C in aligned slices, so that the operand every thread has to read in full
 * is the smaller one.
 */

import type { GemmCall } from '../../ir/op.ts';
import type { Gemm } from './matmul.ts';
import { loadAddress, type SharedMemory } from './memory.ts';
import type { ThreadCode } from './thread.ts';

/** Rows or columns of C that are not divided between threads. */
const granule = 16;

/** Multiply-adds that are worth a thread which is awake: some microseconds. */
const parallelWork = 2 ** 17;

/** Multiply-adds that are worth waking a thread: about 0.1 ms. */
export const wakingWork = 2 ** 22;

export function gemmWork({ m, n, k, batches }: GemmCall): number {
  return m * n * Math.max(k, 1) * batches.length;
}

/** Threads that this multiply keeps busy, at most `threads`. */
export function gemmThreads(call: GemmCall, threads: number): number {
  const { m, n, batches } = call;
  const work = gemmWork(call);
  if (work < 2 * parallelWork) return 1;
  const pieces = batches.length * Math.ceil(Math.max(m, n) / granule);
  return Math.max(1, Math.min(threads, pieces, Math.floor(work / parallelWork)));
}

/** The part of one batch entry that a thread computes. */
export interface GemmPiece {
  readonly batch: number;
  readonly row: number;
  readonly rows: number;
  readonly column: number;
  readonly columns: number;
}

/** The pieces of C of one share. */
export function gemmPieces(call: GemmCall, thread: number, threads: number): GemmPiece[] {
  const { m, n, batches } = call;
  const pieces: GemmPiece[] = [];
  if (m === 0 || n === 0) return pieces;
  const count = batches.length;
  const evenly = threads === 1 || count % threads === 0 || count >= 8 * threads;
  if (evenly) {
    const [begin, end] = share(count, 1, thread, threads);
    for (let batch = begin; batch < end; batch++) {
      pieces.push({ batch, row: 0, rows: m, column: 0, columns: n });
    }
    return pieces;
  }
  const [begin, end] = share(Math.max(m, n), granule, thread, threads);
  if (begin === end) return pieces;
  for (let batch = 0; batch < count; batch++) {
    pieces.push(
      m >= n
        ? { batch, row: begin, rows: end - begin, column: 0, columns: n }
        : { batch, row: 0, rows: m, column: begin, columns: end - begin },
    );
  }
  return pieces;
}

/** A multiply with the number of shares that C is cut into. */
export interface CutGemm {
  readonly call: GemmCall;
  readonly shares: number;
}

/** A multiply as bytes for the code table. */
export function encodeGemm(cut: CutGemm): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(JSON.stringify(cut));
}

export function decodeGemm(bytes: Uint8Array<ArrayBuffer>): CutGemm {
  return JSON.parse(new TextDecoder().decode(bytes)) as CutGemm;
}

/** The pieces of every share that falls to this thread. */
function dealtPieces({ call, shares }: CutGemm, thread: number, threads: number): GemmPiece[] {
  const pieces: GemmPiece[] = [];
  for (let own = thread; own < shares; own += threads) {
    pieces.push(...gemmPieces(call, own, shares));
  }
  return pieces;
}

/** The function that computes a thread's pieces. */
export function gemmCode(cut: CutGemm, memory: SharedMemory, gemm: Gemm): ThreadCode {
  const { call } = cut;
  const [slotA, slotB, slotC] = call.operands;
  const rowA = call.transA ? 1 : call.lda;
  const columnB = call.transB ? call.ldb : 1;
  const slots = Math.max(slotA, slotB, slotC) + 1;
  let pieces: GemmPiece[] = [];
  let dealt = 0;
  let slotsAt = -1;
  let words = memory.words(0, 0);
  return (args, thread, threads) => {
    if (dealt !== threads) {
      pieces = dealtPieces(cut, thread, threads);
      dealt = threads;
    }
    if (slotsAt !== args) {
      words = memory.words(args, slots * 2);
      slotsAt = args;
    }
    const a = loadAddress(words, slotA * 2);
    const b = loadAddress(words, slotB * 2);
    const c = loadAddress(words, slotC * 2);
    for (const { batch, row, rows, column, columns } of pieces) {
      const offset = call.batches[batch]!;
      gemm(
        call.transA,
        call.transB,
        rows,
        columns,
        call.k,
        call.alpha,
        a + 4 * (offset.a + row * rowA),
        call.lda,
        b + 4 * (offset.b + column * columnB),
        call.ldb,
        call.beta,
        c + 4 * (offset.c + row * call.ldc + column),
        call.ldc,
      );
    }
  };
}

/** This thread's part of `count` in whole granules: contiguous, disjoint, covering. */
function share(
  count: number,
  step: number,
  thread: number,
  threads: number,
): readonly [begin: number, end: number] {
  const granules = Math.ceil(count / step);
  const bound = (part: number): number =>
    Math.min(count, Math.floor((granules * part) / threads) * step);
  return [bound(thread), bound(thread + 1)];
}
