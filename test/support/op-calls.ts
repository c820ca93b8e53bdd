/**
 * How each fixture's op is called in Retune: name and params of the manifest to the public function.
 * An op without an entry here is skipped by the fixture test, which lists what it skipped.
 */

import * as ops from '../../src/ops/index.ts';
import type { DType } from '../../src/core/dtype.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import type { OpCase } from './fixture-types.ts';

export type Call = (inputs: readonly Tensor[], params: OpCase['params']) => Tensor | Tensor[];

const unaryNames = [
  'neg',
  'abs',
  'exp',
  'log',
  'sqrt',
  'rsqrt',
  'square',
  'sin',
  'cos',
  'tanh',
  'sigmoid',
  'silu',
  'gelu',
  'geluTanh',
  'relu',
  'erf',
  'reciprocal',
  'sign',
  'floor',
  'ceil',
  'round',
  'log1p',
  'expm1',
  'logicalNot',
] as const;
const binaryNames = [
  'add',
  'sub',
  'mul',
  'div',
  'pow',
  'maximum',
  'minimum',
  'eq',
  'ne',
  'lt',
  'le',
  'gt',
  'ge',
  'logicalAnd',
  'logicalOr',
] as const;
const reductionNames = ['sum', 'mean', 'amax', 'amin', 'prod', 'logsumexp'] as const;

type Axes = number[] | undefined;
const axesOf = (params: OpCase['params']): Axes => (params.axes as number[] | null) ?? undefined;
// The names come from the fixtures, so the calls are looked up by name.
const axisOf = (params: OpCase['params']): number => params.axis as number;
const keepDims = (params: OpCase['params']): { keepDims: boolean } => ({
  keepDims: params.keepDims as boolean,
});

export const opCalls: Readonly<Record<string, Call>> = {
  ...Object.fromEntries(unaryNames.map((name): [string, Call] => [name, ([x]) => ops[name](x!)])),
  ...Object.fromEntries(
    binaryNames.map((name): [string, Call] => [name, ([a, b]) => ops[name](a!, b!)]),
  ),
  ...Object.fromEntries(
    reductionNames.map((name): [string, Call] => [
      name,
      ([x], params) => ops[name](x!, axesOf(params), keepDims(params)),
    ]),
  ),
  cast: ([x], params) => ops.cast(x!, params.dtype as DType),
  where: ([condition, a, b]) => ops.where(condition!, a!, b!),
  argmax: ([x], params) => ops.argmax(x!, axisOf(params), keepDims(params)),
  argmin: ([x], params) => ops.argmin(x!, axisOf(params), keepDims(params)),
  cumsum: ([x], params) => ops.cumsum(x!, axisOf(params)),
  reshape: ([x], params) => ops.reshape(x!, params.shape as number[]),
  expand: ([x], params) => ops.expand(x!, params.shape as number[]),
  transpose: ([x], params) => ops.transpose(x!, params.axis0 as number, params.axis1 as number),
  permute: ([x], params) => ops.permute(x!, params.axes as number[]),
  slice: ([x], params) => ops.slice(x!, params.ranges as ops.Range[]),
  squeeze: ([x], params) => ops.squeeze(x!, axisOf(params)),
  unsqueeze: ([x], params) => ops.unsqueeze(x!, axisOf(params)),
  flip: ([x], params) => ops.flip(x!, params.axes as number[]),
  split: ([x], params) => ops.split(x!, params.sizes as number[], axisOf(params)),
  softmax: ([x], params) => ops.softmax(x!, axisOf(params)),
  logSoftmax: ([x], params) => ops.logSoftmax(x!, axisOf(params)),
  rmsNorm: ([x, weight], params) => ops.rmsNorm(x!, weight, params.eps as number),
  layerNorm: ([x, weight, bias], params) => ops.layerNorm(x!, weight, bias, params.eps as number),
  swiglu: ([gate, up]) => ops.swiglu(gate!, up!),
  // The fixture has heads before positions.
  rope: ([x, cos, sin]) => ops.transpose(ops.applyRope(ops.transpose(x!, 1, 2), cos!, sin!), 1, 2),
  matmul: ([a, b]) => ops.matmul(a!, b!),
  linear: ([x, weight, bias]) => ops.linear(x!, weight!, bias),
  concat: (inputs, params) => ops.concat(inputs, axisOf(params)),
  stack: (inputs, params) => ops.stack(inputs, axisOf(params)),
  triu: ([x], params) => ops.triu(x!, params.diagonal as number),
  tril: ([x], params) => ops.tril(x!, params.diagonal as number),
  embedding: ([weight, indices]) => ops.embedding(weight!, indices!),
  gather: ([x, index], params) => ops.gather(x!, axisOf(params), index!),
  scatterAdd: ([x, index, src], params) => ops.scatterAdd(x!, axisOf(params), index!, src!),
  indexSelect: ([x, index], params) => ops.indexSelect(x!, axisOf(params), index!),
  topk: ([x], params) => {
    const largest = params.largest as boolean;
    const { values, indices } = ops.topk(x!, params.k as number, {
      axis: axisOf(params),
      largest,
    });
    return [values, indices];
  },
  sort: ([x], params) => {
    const descending = params.descending as boolean;
    const { values, indices } = ops.sort(x!, { axis: axisOf(params), descending });
    return [values, indices];
  },
  scaledDotProductAttention: ([query, key, value], params) =>
    ops.scaledDotProductAttention(query!, key!, value!, {
      isCausal: params.causal as boolean,
      window: (params.window as number | null) ?? undefined,
      scale: (params.scale as number | null) ?? undefined,
      enableGqa: true,
    }),
  crossEntropy: ([logits, targets], params) =>
    ops.crossEntropy(logits!, targets!, lossOptions(params)),
  linearCrossEntropy: ([x, weight, targets], params) =>
    ops.linearCrossEntropy(x!, weight!, targets!, { ...lossOptions(params), chunkRows: 4 }),
};

function lossOptions(params: OpCase['params']): ops.CrossEntropyOptions {
  return {
    ignoreIndex: params.ignoreIndex as number,
    reduction: params.reduction as ops.LossReduction,
  };
}
