/** Attention in plain ops, with the matrix of scores: any mask, and differentiable any number of times. */

import type { Tensor } from '../../tensor/tensor.ts';
import { add, mul, sub } from '../arithmetic.ts';
import { cast, expand, reshape } from '../broadcast.ts';
import { where } from '../comparison.ts';
import { matmul } from '../matmul/matmul.ts';
import { logsumexp } from '../reductions.ts';
import { exp } from '../unary.ts';
import { permute, transpose, unsqueeze } from '../views.ts';
import { causalMask } from './mask.ts';
import type { MaskParams } from './kernels/shape.ts';
import { scoreScale } from './kernels/shape.ts';

/** Stands for -infinity in scores, so that a row without a visible key has gradients of zero, not NaN. */
const hidden = -1e30;

/**
 * query [B, H, T, D], key [B, K, S, D], value [B, K, S, V]; softmax(scale * query key^T + mask) value,
 * [B, H, T, V], and the log of the softmax's denominators, [B, H, T]. `mask` broadcasts to [B, H, T, S]: bool
 * (true is visible) or added to the scores. A row without a visible key gives zeros.
 */
export function materializedAttention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  options: { readonly scale: number; readonly mask?: Tensor | undefined },
): { readonly out: Tensor; readonly lse: Tensor } {
  const heads = query.shape[1] ?? 1;
  const keys = repeatHeads(key, heads);
  const values = repeatHeads(value, heads);
  let scores = mul(matmul(query, transpose(keys, -2, -1)), options.scale);
  const { mask } = options;
  const bool = mask?.dtype === 'bool' ? mask : undefined;
  if (bool) scores = where(bool, scores, hidden);
  else if (mask)
    scores = add(scores, mask.dtype === scores.dtype ? mask : cast(mask, scores.dtype));
  const lse = logsumexp(scores, -1, { keepDims: true });
  let weights = exp(sub(scores, lse));
  if (bool) weights = where(bool, weights, 0);
  return {
    out: matmul(weights, values),
    lse: reshape(lse, lse.shape.slice(0, -1)),
  };
}

/** The definition of the attention op: its inputs and outputs in its layout. */
export function composedAttention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  params: MaskParams,
): readonly [Tensor, Tensor] {
  const heads = (x: Tensor): Tensor => permute(x, [0, 2, 1, 3]);
  const [T = 0, S = 0] = [query.shape[1], key.shape[1]];
  const { out, lse } = materializedAttention(heads(query), heads(key), heads(value), {
    scale: scoreScale(params, query.shape[3] ?? 1),
    mask: params.causal ? causalMask(T, S, params.window) : undefined,
  });
  return [heads(out), lse];
}

/** [B, K, S, D] as [B, H, S, D]: each key head H / K times in a row. */
function repeatHeads(x: Tensor, heads: number): Tensor {
  const [B = 1, K = 1, S = 1, D = 1] = x.shape;
  if (K === heads) return x;
  const repeated = expand(unsqueeze(x, 2), [B, K, heads / K, S, D]);
  return reshape(repeated, [B, heads, S, D]);
}
