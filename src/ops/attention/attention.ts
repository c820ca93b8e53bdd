/** Scaled dot product attention: the functions. */

import { ArgumentError, DTypeError, ShapeError } from '../../core/errors.ts';
import { formatShape } from '../../core/shape.ts';
import { formatAval } from '../../ir/aval.ts';
import { apply } from '../../tensor/apply.ts';
import { isGradEnabled } from '../../tensor/context.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { cast } from '../broadcast.ts';
import { present, requireFloat } from '../define.ts';
import { logicalAnd, where } from '../comparison.ts';
import { permute } from '../views.ts';
import { type AttentionParams, attentionOp, cachedAttentionOp } from './attention-op.ts';
import { causalMask, checkWindow } from './mask.ts';
import { materializedAttention } from './materialized.ts';

export interface AttentionOptions {
  /** Query i, which stands at position i + S - T, sees keys up to its position. Default false. */
  readonly causal?: boolean;
  /** Only the last `window` keys up to its position; needs `causal`. */
  readonly window?: number | undefined;
  /** Factor of the scores; default 1 / sqrt(D). */
  readonly scale?: number | undefined;
  /** int32[1]: how many of the S keys are valid, for a cache with room to spare. Not differentiable. */
  readonly kvLength?: Tensor | undefined;
}

/**
 * softmax(scale * query key^T + mask) value per head, without storing the scores (FlashAttention). query
 * [B, T, H, D], key [B, S, K, D], value [B, S, K, V] with H a multiple of K (grouped heads); [B, T, H, V].
 * Operands are read through strides if their last axis is dense. A query that sees no key gives zeros.
 * Throws ShapeError, DTypeError, ArgumentError.
 */
export function attention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  options: AttentionOptions = {},
): Tensor {
  checkDTypes('attention', query, key, value);
  if (query.dtype !== 'float32') {
    const wide = (x: Tensor): Tensor => cast(x, 'float32');
    return cast(attention(wide(query), wide(key), wide(value), options), query.dtype);
  }
  const { causal = false, scale, kvLength } = options;
  const params: AttentionParams = {
    causal,
    window: checkWindow('attention', options.window, causal),
    scale: checkScale('attention', scale),
  };
  if (!kvLength) return firstOf(apply(attentionOp, [query, key, value], params));
  if (isGradEnabled() && [query, key, value].some((x) => x.requiresGrad)) {
    throw new ArgumentError(
      'attention: attention over part of a cache has no gradient (got kvLength with inputs that require one). ' +
        'Call it inside noGrad, or slice the keys and leave kvLength out.',
    );
  }
  return firstOf(apply(cachedAttentionOp, [query, key, value, kvLength], params));
}

export interface ScaledDotProductOptions {
  readonly isCausal?: boolean;
  readonly scale?: number | undefined;
  /** Lets query heads outnumber key heads; without it they must be equal, as in PyTorch. Default false. */
  readonly enableGqa?: boolean;
  /** Only the last `window` keys up to the query's position; needs `isCausal`. */
  readonly window?: number | undefined;
  /** bool (true is visible) or added to the scores; broadcasts to [B, H, T, S]. The scores are then stored. */
  readonly attnMask?: Tensor | undefined;
}

/**
 * torch.nn.functional.scaled_dot_product_attention: query [B, H, T, D], key [B, K, S, D], value [B, K, S, V];
 * [B, H, T, V]. With T < S a causal mask aligns queries to the end of the keys (PyTorch aligns them to the
 * start). A query that sees no key gives zeros. Throws ShapeError, DTypeError, ArgumentError.
 */
export function scaledDotProductAttention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  options: ScaledDotProductOptions = {},
): Tensor {
  const who = 'scaledDotProductAttention';
  const { isCausal = false, scale, window, attnMask } = options;
  checkDTypes(who, query, key, value);
  if (query.rank !== 4 || key.rank !== 4 || value.rank !== 4) {
    throw new ShapeError(
      `${who}: wants query [B, H, T, D], key [B, K, S, D], value [B, K, S, V] (got ${formatShape(query.shape)}, ` +
        `${formatShape(key.shape)}, ${formatShape(value.shape)}). Add the missing axes.`,
    );
  }
  if (!options.enableGqa && query.shape[1] !== key.shape[1]) {
    throw new ShapeError(
      `${who}: query and key have different numbers of heads (got ${query.shape[1]} and ${key.shape[1]}). ` +
        'Pass enableGqa: true for grouped heads.',
      { query: query.shape, key: key.shape },
    );
  }
  const heads = (x: Tensor): Tensor => permute(x, [0, 2, 1, 3]);
  if (!attnMask) {
    const causal = isCausal;
    return heads(attention(heads(query), heads(key), heads(value), { causal, window, scale }));
  }
  return masked(query, key, value, attnMask, {
    causal: isCausal,
    window: checkWindow(who, window, isCausal),
    scale: checkScale(who, scale) || 1 / Math.sqrt(query.shape[3] ?? 1),
  });
}

function masked(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  mask: Tensor,
  { causal, window, scale }: { causal: boolean; window: number; scale: number },
): Tensor {
  if (query.dtype !== 'float32') {
    const [q, k, v] = [query, key, value].map((x) => cast(x, 'float32'));
    const out = masked(present(q), present(k), present(v), mask, { causal, window, scale });
    return cast(out, query.dtype);
  }
  const triangle = causal ? causalMask(query.shape[2] ?? 0, key.shape[2] ?? 0, window) : undefined;
  const visible =
    triangle && mask.dtype === 'bool'
      ? logicalAnd(triangle, mask)
      : triangle
        ? where(triangle, mask, Number.NEGATIVE_INFINITY)
        : mask;
  return materializedAttention(query, key, value, { scale, mask: visible }).out;
}

function firstOf(outputs: readonly Tensor[]): Tensor {
  for (const extra of outputs.slice(1)) extra.dispose();
  return present(outputs[0]);
}

/** 0 stands for the default. */
function checkScale(who: string, scale: number | undefined): number {
  if (scale === undefined) return 0;
  if (Number.isFinite(scale) && scale !== 0) return scale;
  throw new ArgumentError(
    `${who}: the scale must be a finite number other than 0 (got ${scale}). Leave it out for 1 / sqrt(D).`,
    { scale },
  );
}

function checkDTypes(who: string, query: Tensor, key: Tensor, value: Tensor): void {
  requireFloat(who, query, 'query');
  if (query.dtype === key.dtype && key.dtype === value.dtype) return;
  throw new DTypeError(
    `${who}: query, key and value must have one dtype (got ${formatAval(query)}, ${formatAval(key)}, ` +
      `${formatAval(value)}). Cast them.`,
    { query: query.dtype, key: key.dtype, value: value.dtype },
  );
}
