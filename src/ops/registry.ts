/**
 * Every op record, for what works on all of them: conformance tests, gradient checks, benchmarks, and
 * error messages that list op names. A family's records are its exports whose names end in `Op`.
 */

import type { AnyOp } from '../ir/op.ts';
import * as activations from './activations.ts';
import * as argmax from './argmax.ts';
import * as arithmetic from './arithmetic.ts';
import * as broadcast from './broadcast.ts';
import * as checkpointName from './checkpoint-name.ts';
import * as comparison from './comparison.ts';
import * as creation from './creation.ts';
import * as cumsum from './cumsum.ts';
import * as inPlace from './in-place.ts';
import * as layerNorm from './layer-norm.ts';
import * as prod from './prod.ts';
import * as rmsNorm from './rms-norm.ts';
import { backwardOf } from './formula.ts';
import * as quantize from './quantize.ts';
import * as random from './random.ts';
import * as reductions from './reductions.ts';
import * as rope from './rope.ts';
import * as savedRead from './saved-read.ts';
import * as slice from './slice.ts';
import * as softmax from './softmax.ts';
import * as unary from './unary.ts';
import * as views from './views.ts';
import * as attention from './attention/attention-op.ts';
import * as attentionMask from './attention/mask.ts';
import * as concat from './index/concat.ts';
import * as gather from './index/gather.ts';
import * as indexSelect from './index/index-select.ts';
import * as oneHot from './index/one-hot.ts';
import * as sort from './index/sort.ts';
import * as crossEntropy from './loss/cross-entropy-op.ts';
import * as linear from './matmul/linear.ts';
import * as matmulAdd from './matmul/matmul-add.ts';
import * as matmul from './matmul/matmul.ts';
import * as adamwUpdate from './optim/adamw-update.ts';
import * as sgdUpdate from './optim/sgd-update.ts';

const families: readonly object[] = [
  unary,
  arithmetic,
  comparison,
  activations,
  inPlace,
  broadcast,
  views,
  slice,
  reductions,
  prod,
  argmax,
  cumsum,
  softmax,
  rmsNorm,
  layerNorm,
  rope,
  creation,
  random,
  quantize,
  savedRead,
  checkpointName,
  matmul,
  linear,
  matmulAdd,
  attention,
  attentionMask,
  indexSelect,
  gather,
  concat,
  sort,
  oneHot,
  crossEntropy,
  adamwUpdate,
  sgdUpdate,
];

/** All records that families declare, with the backward ops of elementwise ones; names are unique. */
export const allOps: readonly AnyOp[] = families.flatMap((family) =>
  Object.entries(family).flatMap(([name, value]: [string, AnyOp]) => {
    if (!name.endsWith('Op') || typeof value !== 'object') return [];
    const backward = backwardOf(value);
    return backward ? [value, backward] : [value];
  }),
);

/** The record of this name. */
export function findOp(name: string): AnyOp | undefined {
  return byName.get(name);
}

const byName: ReadonlyMap<string, AnyOp> = new Map(allOps.map((op) => [op.name, op]));
