/** What an attention kernel is built for: sizes, strides and mask, all known when it is built. */

import { invariant } from '../../../core/errors.ts';
import type { Operand } from '../../../ir/op.ts';

/** Elements per step along batch, position and head; the last axis has stride 1. */
export interface HeadStrides {
  readonly batch: number;
  readonly position: number;
  readonly head: number;
}

export interface MaskParams {
  /** Key j is visible to the query at position p when j <= p. */
  readonly causal: boolean;
  /** With w > 0 only the last w visible keys count: p - j < w. 0: all. Needs `causal`. */
  readonly window: number;
  /** Factor of the scores; 0 means 1 / sqrt(D). */
  readonly scale: number;
}

/** query [B, T, H, D], key [B, S, K, D], value [B, S, K, V]; H is a multiple of K. */
export interface AttentionShape {
  readonly B: number;
  readonly T: number;
  readonly S: number;
  readonly H: number;
  readonly K: number;
  readonly D: number;
  readonly V: number;
}

export function attentionShape(
  query: readonly number[],
  key: readonly number[],
  value: readonly number[],
): AttentionShape {
  invariant(query.length === 4 && key.length === 4 && value.length === 4, () => 'attention: rank');
  const [B = 0, T = 0, H = 0, D = 0] = query;
  const [, S = 0, K = 0] = key;
  return { B, T, S, H, K, D, V: value[3] ?? 0 };
}

export function headStrides(operand: Operand): HeadStrides {
  const [batch = 0, position = 0, head = 0] = operand.layout.strides;
  return { batch, position, head };
}

/** The factor of the scores. */
export function scoreScale(params: MaskParams, D: number): number {
  return params.scale === 0 ? 1 / Math.sqrt(D) : params.scale;
}

/** Rows of queries and columns of keys of a tile of scores; one tile lives in a thread's scratch. */
export interface TileSize {
  readonly rows: number;
  readonly columns: number;
}

/** Bytes from one row of a tile to the next: a row of scores may be padded to a multiple of 4. */
export function tileRowFloats(tile: TileSize): number {
  return tile.columns + 16;
}

/** A tile no larger than the problem; columns stay a multiple of 4. */
export function fitTile(tile: TileSize, rows: number, columns: number): TileSize {
  return {
    rows: Math.max(1, Math.min(tile.rows, rows)),
    columns: Math.max(4, Math.min(tile.columns, Math.ceil(columns / 4) * 4)),
  };
}

/** Elements between rows for BLAS, which wants at least the width even when there is one row. */
export function leading(stride: number, width: number): number {
  return Math.max(stride, width, 1);
}

/** Scratch sizes are whole cache lines. */
export function cacheLines(bytes: number): number {
  return Math.ceil(bytes / 64) * 64;
}

/** Whether a [B, T, H, D] operand can be read as it lies: elements of a head are neighbours. */
export function acceptsHeads(shape: readonly number[], strides: readonly number[]): boolean {
  const [, positions = 0, , width = 0] = shape;
  const [, step = 0, , unit = 0] = strides;
  return (unit === 1 || width <= 1) && (positions <= 1 || step >= width);
}
