/** From the layouts of matrix operands to the arguments of a GemmCall. */

import { type Shape, broadcastStrides, numElements, viewStrides } from '../../core/shape.ts';
import type { GemmCall, Operand } from '../../ir/op.ts';

/** How BLAS reads one matrix: row-major with `ld` elements per row, or its transpose so. */
export interface MatrixLayout {
  readonly trans: boolean;
  readonly ld: number;
}

/** The BLAS layout of a rows x columns matrix; undefined when it has to be copied first. */
export function matrixLayout(
  rows: number,
  columns: number,
  rowStride: number,
  columnStride: number,
): MatrixLayout | undefined {
  if (columnStride === 1 || columns <= 1) {
    if (rows <= 1 || columns === 0) return { trans: false, ld: Math.max(1, columns) };
    if (rowStride >= Math.max(1, columns)) return { trans: false, ld: rowStride };
  }
  if (rowStride === 1 || rows <= 1) {
    if (columns <= 1) return { trans: true, ld: Math.max(1, rows) };
    if (columnStride >= Math.max(1, rows)) return { trans: true, ld: columnStride };
  }
  return undefined;
}

/** Whether the last two axes can be read by BLAS as they lie. */
export function acceptsMatrix(shape: Shape, strides: readonly number[]): boolean {
  const [rows, columns] = lastTwo(shape, 1);
  const [rowStride, columnStride] = lastTwo(strides, 0);
  return matrixLayout(rows, columns, rowStride, columnStride) !== undefined;
}

/**
 * out = alpha * a b + beta * out over broadcast batch axes, with `a` [..., m, k], `b` [..., k, n] and
 * `out` [..., m, n], all of which BLAS can read (acceptsMatrix). `operands` are their operand numbers.
 */
export function gemmCall(
  a: Operand,
  b: Operand,
  out: Operand,
  operands: readonly [number, number, number],
  { alpha = 1, beta = 0 }: { readonly alpha?: number; readonly beta?: number } = {},
): GemmCall | undefined {
  const [m, n] = lastTwo(out.aval.shape, 1);
  const k = a.aval.shape.at(-1) ?? 1;
  const folded = foldRows(a, b, out);
  if (folded) return gemmCall(folded.a, b, folded.out, operands, { alpha, beta });
  const layoutA = layoutOf(a);
  const layoutB = layoutOf(b);
  const layoutC = layoutOf(out);
  if (!layoutA || !layoutB || !layoutC || layoutC.trans) return undefined;
  const batch = out.aval.shape.slice(0, -2);
  const offsetsA = batchOffsets(a, batch);
  const offsetsB = batchOffsets(b, batch);
  const offsetsC = batchOffsets(out, batch);
  return {
    m,
    n,
    k,
    transA: layoutA.trans,
    transB: layoutB.trans,
    lda: layoutA.ld,
    ldb: layoutB.ld,
    ldc: layoutC.ld,
    alpha,
    beta,
    batches: offsetsC.map((c, i) => ({ a: offsetsA[i] ?? 0, b: offsetsB[i] ?? 0, c })),
    operands,
  };
}

/** With one `b` for all batch entries, the rows of all entries as one tall matrix, where they lie so. */
function foldRows(
  a: Operand,
  b: Operand,
  out: Operand,
): { readonly a: Operand; readonly out: Operand } | undefined {
  if (a.aval.shape.length < 3 || numElements(b.aval.shape.slice(0, -2)) !== 1) return undefined;
  const k = a.aval.shape.at(-1) ?? 1;
  const n = out.aval.shape.at(-1) ?? 1;
  const rows = numElements(a.aval.shape.slice(0, -1));
  if (rows !== numElements(out.aval.shape.slice(0, -1)) || rows === 0) return undefined;
  const tallA = refit(a, [rows, k]);
  const tallC = refit(out, [rows, n]);
  return tallA && tallC && { a: tallA, out: tallC };
}

/** The operand seen as another shape, if BLAS can read it then. */
function refit({ aval, layout }: Operand, shape: Shape): Operand | undefined {
  const strides = viewStrides(aval.shape, layout.strides, shape);
  if (!strides || !acceptsMatrix(shape, strides)) return undefined;
  return { aval: { shape, dtype: aval.dtype }, layout: { offset: layout.offset, strides } };
}

function layoutOf({ aval, layout }: Operand): MatrixLayout | undefined {
  const [rows, columns] = lastTwo(aval.shape, 1);
  const [rowStride, columnStride] = lastTwo(layout.strides, 0);
  return matrixLayout(rows, columns, rowStride, columnStride);
}

/** Element offset of each batch entry, row-major over the broadcast batch axes. */
function batchOffsets({ aval, layout }: Operand, batch: Shape): number[] {
  const own = aval.shape.slice(0, -2);
  const strides = broadcastStrides(own, layout.strides.slice(0, own.length), batch);
  let offsets = [layout.offset];
  batch.forEach((dim, axis) => {
    const step = strides[axis] ?? 0;
    offsets = offsets.flatMap((base) => Array.from({ length: dim }, (_, i) => base + i * step));
  });
  return offsets;
}

function lastTwo(list: readonly number[], missing: number): [number, number] {
  return [list.at(-2) ?? missing, list.at(-1) ?? missing];
}
