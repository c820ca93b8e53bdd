/**
 * Sizes of the generated matrix multiply and its scratch memory. The scheme is that of BLIS (Van Zee
 * and van de Geijn, 2015): C is cut into blocks, op(A) and op(B) are packed into panels that the
 * micro-kernel reads front to back, and one tile of C lives in registers while k runs.
 *
 *   for each block of `nc` columns of C, for each block of `kc` of k:   pack op(B) into panels
 *     for each block of `mc` rows of C:                                 pack op(A) into panels
 *       for each panel of B, for each panel of A:                       micro-kernel
 */

export interface Blocking {
  /** Rows of a C tile and floats per k of an A panel. */
  readonly mr: number;
  /** Columns of a C tile and floats per k of a B panel; a multiple of 4. */
  readonly nr: number;
  readonly mc: number;
  readonly kc: number;
  readonly nc: number;
}

/**
 * 6 x 8 floats: 12 accumulators, 2 vectors of B and one broadcast of A fill the 15 vector registers
 * that V8 hands out. One A panel and one B panel (14 KiB) stay in a 32 KiB L1, the packed block of B
 * (512 KiB) and of A in a 1 MiB L2.
 */
export const narrowBlocking: Blocking = { mr: 6, nr: 8, mc: 192, kc: 256, nc: 512 };

/**
 * 6 x 16 floats, for engines that join pairs of 128-bit vectors into 256-bit ones (V8 with
 * --experimental-wasm-revectorize on x64 with AVX2); elsewhere its 24 accumulators would spill.
 */
export const wideBlocking: Blocking = { mr: 6, nr: 16, mc: 192, kc: 256, nc: 512 };

/** Bytes of scratch memory, 16-byte aligned, that each thread hands to `gemm`. */
export function gemmScratchBytes(blocking: Blocking = narrowBlocking): number {
  return scratchOffsets(blocking).end;
}

/** Byte offsets inside the scratch memory. */
export function scratchOffsets(blocking: Blocking): {
  readonly packedA: number;
  readonly packedB: number;
  readonly tile: number;
  readonly end: number;
} {
  const { mr, nr, mc, kc, nc } = blocking;
  const packedA = 0;
  const packedB = packedA + 4 * mc * kc;
  const tile = packedB + 4 * nc * kc;
  return { packedA, packedB, tile, end: tile + 4 * mr * nr };
}
