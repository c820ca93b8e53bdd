/** Attention and its gradients with plain loops over dense row-major float64 arrays. */

import type { ReferenceArray } from '../../ir/op.ts';
import type { AttentionShape, MaskParams } from './kernels/shape.ts';
import { scoreScale } from './kernels/shape.ts';

/** Calls `visit` for each batch entry and query head; offsets count elements. */
function forHeads(
  { B, T, S, H, K, D, V }: AttentionShape,
  visit: (at: { query: number; key: number; value: number; out: number; stats: number }) => void,
): void {
  for (let b = 0; b < B; b++) {
    for (let h = 0; h < H; h++) {
      const kvHead = Math.floor((h * K) / H);
      visit({
        query: b * T * H * D + h * D,
        key: b * S * K * D + kvHead * D,
        value: b * S * K * V + kvHead * V,
        out: b * T * H * V + h * V,
        stats: (b * H + h) * T,
      });
    }
  }
}

/** Keys [from, to) that query i sees when `limit` keys are valid. */
function visible(i: number, T: number, limit: number, mask: MaskParams): [number, number] {
  const position = i + limit - T;
  const to = mask.causal ? Math.min(limit, position + 1) : limit;
  const from = mask.window > 0 ? Math.max(0, position - mask.window + 1) : 0;
  return [from, Math.max(from, to)];
}

function dot(
  a: ReferenceArray,
  atA: number,
  b: ReferenceArray,
  atB: number,
  count: number,
): number {
  let total = 0;
  for (let i = 0; i < count; i++) total += (a[atA + i] ?? 0) * (b[atB + i] ?? 0);
  return total;
}

function addScaled(
  to: ReferenceArray,
  at: number,
  factor: number,
  from: ReferenceArray,
  atFrom: number,
  count: number,
): void {
  for (let i = 0; i < count; i++) {
    to[at + i] = (to[at + i] ?? 0) + factor * (from[atFrom + i] ?? 0);
  }
}

/** Writes out and lse. `limit`: number of valid keys. */
export function referenceForward(
  [query, key, value]: readonly [ReferenceArray, ReferenceArray, ReferenceArray],
  out: ReferenceArray,
  lse: ReferenceArray,
  shape: AttentionShape,
  mask: MaskParams,
  limit: number,
): void {
  const { T, H, K, D, V } = shape;
  const scale = scoreScale(mask, D);
  out.fill(0);
  forHeads(shape, (at) => {
    for (let i = 0; i < T; i++) {
      const [from, to] = visible(i, T, limit, mask);
      const scores: number[] = [];
      for (let j = from; j < to; j++) {
        scores.push(scale * dot(query, at.query + i * H * D, key, at.key + j * K * D, D));
      }
      const max = Math.max(...scores);
      const weights = scores.map((score) => Math.exp(score - max));
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      lse[at.stats + i] = scores.length === 0 ? Number.NEGATIVE_INFINITY : max + Math.log(total);
      weights.forEach((weight, k) => {
        const row = at.value + (from + k) * K * V;
        addScaled(out, at.out + i * H * V, weight / total, value, row, V);
      });
    }
  });
}

export interface BackwardArrays {
  readonly query: ReferenceArray;
  readonly key: ReferenceArray;
  readonly value: ReferenceArray;
  readonly out: ReferenceArray;
  readonly lse: ReferenceArray;
  readonly dout: ReferenceArray;
  readonly dlse: ReferenceArray | undefined;
  readonly dquery: ReferenceArray;
  readonly dkey: ReferenceArray;
  readonly dvalue: ReferenceArray;
}

/** Writes dquery, dkey and dvalue. */
export function referenceBackward(
  x: BackwardArrays,
  shape: AttentionShape,
  mask: MaskParams,
): void {
  const { T, S, H, K, D, V } = shape;
  const scale = scoreScale(mask, D);
  for (const gradient of [x.dquery, x.dkey, x.dvalue]) gradient.fill(0);
  forHeads(shape, (at) => {
    for (let i = 0; i < T; i++) {
      const [from, to] = visible(i, T, S, mask);
      const [q, o] = [at.query + i * H * D, at.out + i * H * V];
      const delta = dot(x.dout, o, x.out, o, V) - (x.dlse?.[at.stats + i] ?? 0);
      for (let j = from; j < to; j++) {
        const [k, v] = [at.key + j * K * D, at.value + j * K * V];
        const score = scale * dot(x.query, q, x.key, k, D);
        const p = Math.exp(score - (x.lse[at.stats + i] ?? 0));
        const ds = scale * p * (dot(x.dout, o, x.value, v, V) - delta);
        addScaled(x.dvalue, v, p, x.dout, o, V);
        addScaled(x.dquery, q, ds, x.key, k, D);
        addScaled(x.dkey, k, ds, x.query, q, D);
      }
    }
  });
}
