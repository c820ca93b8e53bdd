/**
 * Maths methods of Tensor: x.mul(y) is mul(x, y). Importing this file attaches them; their types follow
 * from the functions.
 */

import { Tensor } from '../tensor/tensor.ts';
import { clamp, gelu, relu, silu } from './activations.ts';
import { argmax, argmin } from './argmax.ts';
import { add, div, maximum, minimum, mul, pow, sub } from './arithmetic.ts';
import { cast, expand, reshape, sum } from './broadcast.ts';
import {
  eq,
  ge,
  gt,
  le,
  logicalAnd,
  logicalNot,
  logicalOr,
  lt,
  maskedFill,
  ne,
} from './comparison.ts';
import { cumsum } from './cumsum.ts';
import { gather, scatterAdd } from './index/gather.ts';
import { indexSelect } from './index/index-select.ts';
import { tril, triu } from './index/one-hot.ts';
import { sort, topk } from './index/sort.ts';
import { matmul } from './matmul/matmul.ts';
import {
  addInPlace,
  copyInPlace,
  divInPlace,
  fillInPlace,
  mulInPlace,
  subInPlace,
  zeroInPlace,
} from './in-place.ts';
import { prod } from './prod.ts';
import { all, amax, amin, any, logsumexp, mean, std, sumSquares, variance } from './reductions.ts';
import { flip, narrow, select, slice } from './slice.ts';
import { logSoftmax, softmax } from './softmax.ts';
import { chunk, split, unbind } from './split.ts';
import {
  abs,
  ceil,
  cos,
  erf,
  exp,
  expm1,
  floor,
  log,
  log1p,
  neg,
  reciprocal,
  round,
  rsqrt,
  sigmoid,
  sign,
  sin,
  sqrt,
  square,
  tanh,
} from './unary.ts';
import { clone, contiguous, flatten, permute, squeeze, transpose, unsqueeze } from './views.ts';

const functions = {
  abs,
  add,
  addInPlace,
  all,
  amax,
  amin,
  any,
  argmax,
  argmin,
  cast,
  ceil,
  chunk,
  clamp,
  clone,
  contiguous,
  copyInPlace,
  cos,
  cumsum,
  div,
  divInPlace,
  eq,
  erf,
  exp,
  expand,
  expm1,
  fillInPlace,
  flatten,
  flip,
  floor,
  gather,
  ge,
  gelu,
  gt,
  indexSelect,
  le,
  log,
  log1p,
  logSoftmax,
  logicalAnd,
  logicalNot,
  logicalOr,
  logsumexp,
  lt,
  maskedFill,
  matmul,
  maximum,
  mean,
  minimum,
  mul,
  mulInPlace,
  narrow,
  ne,
  neg,
  permute,
  pow,
  prod,
  reciprocal,
  relu,
  reshape,
  round,
  rsqrt,
  scatterAdd,
  select,
  sigmoid,
  sign,
  silu,
  sin,
  slice,
  softmax,
  sort,
  split,
  sqrt,
  square,
  squeeze,
  std,
  sub,
  subInPlace,
  sum,
  sumSquares,
  tanh,
  topk,
  transpose,
  tril,
  triu,
  unbind,
  unsqueeze,
  variance,
  zeroInPlace,
} as const;

/** A function of a tensor and more, as a method of that tensor. */
type Method<F> = F extends (x: Tensor, ...rest: infer R) => infer T ? (...rest: R) => T : never;

type Functions = typeof functions;

export type TensorMethods = { readonly [K in keyof Functions]: Method<Functions[K]> };

declare module '../tensor/tensor.ts' {
  interface Tensor extends TensorMethods {}
}

for (const [name, call] of Object.entries(functions)) {
  const apply = call as (x: Tensor, ...rest: unknown[]) => unknown;
  Object.defineProperty(Tensor.prototype, name, {
    configurable: true,
    writable: true,
    value(this: Tensor, ...rest: unknown[]) {
      return apply(this, ...rest);
    },
  });
}
