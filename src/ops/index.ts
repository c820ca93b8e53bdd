/** Maths on tensors: functions, Tensor methods, and the means to add an op. */

import './methods.ts';

export * from './activations.ts';
export * from './argmax.ts';
export * from './arithmetic.ts';
export {
  type Axes,
  type SumOptions,
  cast,
  castOp,
  expand,
  expandOp,
  reshape,
  reshapeOp,
  sum,
  sumOp,
  sumTo,
} from './broadcast.ts';
export type { Operand } from './binary.ts';
export * from './checkpoint-name.ts';
export * from './comparison.ts';
export * from './creation.ts';
export * from './cumsum.ts';
export {
  type OpRecord,
  type ReduceParams,
  defineOp,
  reductionOp,
  routineOp,
  viewOp,
} from './define.ts';
export * from './in-place.ts';
export type { TensorMethods } from './methods.ts';
export * from './layer-norm.ts';
export * from './prod.ts';
export * from './rms-norm.ts';
export { backwardOf } from './formula.ts';
export { type PointwiseRecord, pointwise } from './pointwise.ts';
export * from './quantize.ts';
export * from './random.ts';
export {
  type ReduceOptions,
  type VarianceOptions,
  all,
  allOp,
  amax,
  amaxOp,
  amin,
  aminOp,
  any,
  anyOp,
  logsumexp,
  logsumexpOp,
  mean,
  meanOp,
  std,
  sumSquares,
  sumSquaresOp,
  variance,
} from './reductions.ts';
export { allOps, findOp } from './registry.ts';
export * from './rope.ts';
export * from './slice.ts';
export * from './softmax.ts';
export * from './split.ts';
export * from './unary.ts';
export * from './views.ts';
export * from './attention/attention.ts';
export {
  type AttentionParams,
  attentionBackwardOp,
  attentionOp,
  cachedAttentionOp,
} from './attention/attention-op.ts';
export { bandMask, causalMask } from './attention/mask.ts';
export { materializedAttention } from './attention/materialized.ts';
export { concat, concatOp, pad, stack } from './index/concat.ts';
export { embedding } from './index/embedding.ts';
export { gather, gatherOp, scatterAdd, scatterAddOp } from './index/gather.ts';
export { indexSelect, indexSelectOp, segmentSum, segmentSumOp } from './index/index-select.ts';
export { type MultinomialOptions, multinomial } from './index/multinomial.ts';
export { oneHot, oneHotOp, tril, trilOp, triu, triuOp } from './index/one-hot.ts';
export { type Sorted, sort, sortOp, topk } from './index/sort.ts';
export {
  type CrossEntropyOptions,
  type LossReduction,
  crossEntropy,
} from './loss/cross-entropy.ts';
export { type LinearCrossEntropyOptions, linearCrossEntropy } from './loss/linear-cross-entropy.ts';
export { linear, linearOp } from './matmul/linear.ts';
export { type AddmmOptions, addmmInPlace, addmmInPlaceOp, matmulAdd } from './matmul/matmul-add.ts';
export { matmul, matmulOp } from './matmul/matmul.ts';
export { adamwScalars, adamwUpdate, adamwUpdateOp } from './optim/adamw-update.ts';
export {
  type SgdUpdateOptions,
  sgdMomentumUpdateOp,
  sgdScalars,
  sgdUpdate,
  sgdUpdateOp,
} from './optim/sgd-update.ts';
