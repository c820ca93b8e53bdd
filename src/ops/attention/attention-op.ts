/**
 * The attention ops, in the layout that projections produce: query [B, T, H, D], key [B, S, K, D], value
 * [B, S, K, V], where H is a multiple of K and query heads h * K / H share a key head. Queries are
 * aligned to the end of the keys. Nothing of size T x S is stored; backward computes scores again.
 */

import { ShapeError } from '../../core/errors.ts';
import { formatShape } from '../../core/shape.ts';
import type { Aval } from '../../ir/aval.ts';
import type { Op, Params, ReferenceArray } from '../../ir/op.ts';
import { apply } from '../../tensor/apply.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { zerosLike } from '../creation.ts';
import { floats, present, routineOp } from '../define.ts';
import { requireFloat32 } from '../float32.ts';
import { attentionBackward } from './kernels/backward.ts';
import { attentionForward } from './kernels/forward.ts';
import { type MaskParams, acceptsHeads, attentionShape } from './kernels/shape.ts';
import { composedAttention } from './materialized.ts';
import { referenceBackward, referenceForward } from './reference.ts';

export type AttentionParams = Params & MaskParams;

const samples = [
  {
    label: 'causal',
    inputs: [floats([2, 5, 2, 4]), floats([2, 5, 2, 4]), floats([2, 5, 2, 4])],
    params: { causal: true, window: 0, scale: 0 },
  },
  {
    label: 'groupedWindow',
    inputs: [floats([1, 7, 4, 3]), floats([1, 9, 2, 3]), floats([1, 9, 2, 5])],
    params: { causal: true, window: 3, scale: 0.7 },
  },
  {
    label: 'full',
    inputs: [floats([2, 3, 2, 4]), floats([2, 6, 1, 4]), floats([2, 6, 1, 4])],
    params: { causal: false, window: 0, scale: 0 },
  },
];

/** Outputs: out [B, T, H, V], and lse [B, H, T], the log of each softmax's denominator. */
export const attentionOp: Op<Tensor, AttentionParams> = routineOp<
  AttentionParams,
  readonly ['query', 'key', 'value'],
  'query' | 'key' | 'value' | 'out' | 'out1'
>({
  name: 'attention',
  args: ['query', 'key', 'value'],
  traits: { class: 'attention', remat: 'costly', exactSaves: ['out1'] },
  infer: (inputs) => inferForward('attention', inputs),
  flops: (inputs) => forwardFlops(inputs),
  saves: ['query', 'key', 'value', 'out', 'out1'],
  vjp: ([g, gLse], { params, outputs, saved }) => {
    if (!g && !gLse) return [];
    const dout = g ?? zerosLike(saved('out'));
    const shared = [
      saved('query'),
      saved('key'),
      saved('value'),
      saved('out'),
      saved('out1'),
      dout,
    ];
    const inputs = gLse && outputs[1] ? [...shared, gLse] : shared;
    return apply(attentionBackwardOp, inputs, params);
  },
  compose: ([query, key, value], params) =>
    composedAttention(present(query), present(key), present(value), params),
  routine: {
    acceptsLayout: (_, shape, strides) => acceptsHeads(shape, strides),
    wasm: (inputs, _, params, target) =>
      attentionForward(inputs, maskOf(params), target, { kvLength: false }),
    wgsl: { none: 'the kernel is written for processors' },
    reference: (inputs, outputs, avals, params) =>
      referenceForward(
        inputs.slice(0, 3) as [ReferenceArray, ReferenceArray, ReferenceArray],
        present(outputs[0]),
        present(outputs[1]),
        shapeOf(avals.inputs),
        params,
        present(avals.inputs[1]).shape[1] ?? 0,
      ),
  },
  samples,
});

/**
 * As `attention`, over the first kvLength keys: `key` and `value` are a cache with room for S. One kernel
 * serves all lengths. Not differentiable.
 */
export const cachedAttentionOp: Op<Tensor, AttentionParams> = routineOp<
  AttentionParams,
  readonly ['query', 'key', 'value', 'kvLength'],
  never
>({
  name: 'cachedAttention',
  args: ['query', 'key', 'value', 'kvLength'],
  traits: { class: 'attention', remat: 'costly' },
  infer: (inputs) => {
    const length = present(inputs[3]);
    if (length.dtype !== 'int32' || length.shape.length !== 1 || length.shape[0] !== 1) {
      throw new ShapeError(
        `attention: kvLength must be int32[1] (got ${length.dtype}${formatShape(length.shape)}). Give one length for ` +
          'the whole batch.',
        { kvLength: length.shape },
      );
    }
    return inferForward('attention', inputs);
  },
  flops: (inputs) => forwardFlops(inputs),
  saves: [],
  vjp: 'nondifferentiable',
  routine: {
    acceptsLayout: (operand, shape, strides) => operand < 3 && acceptsHeads(shape, strides),
    wasm: (inputs, _, params, target) =>
      attentionForward(inputs, maskOf(params), target, { kvLength: true }),
    wgsl: { none: 'the kernel is written for processors' },
    reference: (inputs, outputs, avals, params) => {
      const capacity = present(avals.inputs[1]).shape[1] ?? 0;
      const length = present(inputs[3])[0] ?? 0;
      referenceForward(
        inputs.slice(0, 3) as [ReferenceArray, ReferenceArray, ReferenceArray],
        present(outputs[0]),
        present(outputs[1]),
        shapeOf(avals.inputs),
        params,
        Math.max(0, Math.min(capacity, length)),
      );
    },
  },
  samples: [
    {
      label: 'decode',
      inputs: [
        floats([2, 1, 4, 3]),
        floats([2, 9, 2, 3]),
        floats([2, 9, 2, 3]),
        { shape: [1], dtype: 'int32', range: [6, 7] },
      ],
      params: { causal: true, window: 0, scale: 0 },
    },
    {
      label: 'chunk',
      inputs: [
        floats([1, 3, 2, 4]),
        floats([1, 8, 2, 4]),
        floats([1, 8, 2, 4]),
        { shape: [1], dtype: 'int32', range: [5, 6] },
      ],
      params: { causal: true, window: 4, scale: 0 },
    },
  ],
});

/** Gradients of `attention`. Inputs: query, key, value, out, lse, dout, and the gradient of lse if any. */
export const attentionBackwardOp: Op<Tensor, AttentionParams> = routineOp<
  AttentionParams,
  readonly ['query', 'key', 'value', 'result', 'lse', '...gradients'],
  never
>({
  name: 'attentionBackward',
  args: ['query', 'key', 'value', 'result', 'lse', '...gradients'],
  traits: { class: 'attention', remat: 'costly' },
  infer: (inputs) => {
    requireFloat32('attentionBackward', inputs);
    inferForward('attentionBackward', inputs);
    return inputs.slice(0, 3);
  },
  flops: (inputs) => {
    const { B, T, S, H, D, V } = shapeOf(inputs);
    return 2 * B * H * T * S * (3 * D + 2 * V);
  },
  saves: [],
  vjp: 'nondifferentiable',
  routine: {
    acceptsLayout: (operand, shape, strides) =>
      [0, 1, 2, 5].includes(operand) && acceptsHeads(shape, strides),
    wasm: (inputs, _, params, target) =>
      attentionBackward(inputs, maskOf(params), target, { lseGradient: inputs.length > 6 }),
    wgsl: { none: 'the kernel is written for processors' },
    reference: (inputs, outputs, avals, params) => {
      const [query, key, value, out, lse, dout] = inputs.map(present);
      const [dquery, dkey, dvalue] = outputs;
      referenceBackward(
        {
          query: present(query),
          key: present(key),
          value: present(value),
          out: present(out),
          lse: present(lse),
          dout: present(dout),
          dlse: inputs[6],
          dquery: present(dquery),
          dkey: present(dkey),
          dvalue: present(dvalue),
        },
        shapeOf(avals.inputs),
        params,
      );
    },
  },
  samples: [
    {
      label: 'causal',
      inputs: [
        ...present(samples[0]).inputs,
        floats([2, 5, 2, 4]),
        floats([2, 2, 5], [2, 3]),
        floats([2, 5, 2, 4]),
      ],
      params: { causal: true, window: 0, scale: 0 },
    },
    {
      label: 'lse',
      inputs: [
        ...present(samples[1]).inputs,
        floats([1, 7, 4, 5]),
        floats([1, 4, 7], [2, 3]),
        floats([1, 7, 4, 5]),
        floats([1, 4, 7]),
      ],
      params: { causal: true, window: 3, scale: 0.7 },
    },
  ],
});

/** Params without what the kernels do not read, so that equal masks share code. */
function maskOf({ causal, window, scale }: AttentionParams): MaskParams {
  return { causal, window, scale };
}

function shapeOf(inputs: readonly Aval[]): ReturnType<typeof attentionShape> {
  const [query, key, value] = inputs;
  return attentionShape(present(query).shape, present(key).shape, present(value).shape);
}

/** Multiply-adds count two; what a mask hides is counted too. */
function forwardFlops(inputs: readonly Aval[]): number {
  const { B, T, S, H, D, V } = shapeOf(inputs);
  return 2 * B * H * T * S * (D + V);
}

function inferForward(who: string, inputs: readonly Aval[]): Aval[] {
  const [query, key, value] = [present(inputs[0]), present(inputs[1]), present(inputs[2])];
  requireFloat32(who, [query, key, value]);
  const [q, k, v] = [query.shape, key.shape, value.shape];
  const fits =
    [q, k, v].every((shape) => shape.length === 4) &&
    q[0] === k[0] &&
    k[0] === v[0] &&
    k[1] === v[1] &&
    k[2] === v[2] &&
    q[3] === k[3] &&
    (q[2] ?? 0) % (k[2] || 1) === 0 &&
    (k[2] !== 0 || q[2] === 0);
  if (!fits) {
    throw new ShapeError(
      `${who}: wants query [B, T, H, D], key [B, S, K, D], value [B, S, K, V] with H a multiple of K (got query ` +
        `${formatShape(q)}, key ${formatShape(k)}, value ${formatShape(v)}). Check the head counts and the layout.`,
      { query: q, key: k, value: v },
    );
  }
  const [B = 0, T = 0, H = 0] = q;
  return [
    { shape: [B, T, H, v[3] ?? 0], dtype: 'float32' },
    { shape: [B, H, T], dtype: 'float32' },
  ];
}
