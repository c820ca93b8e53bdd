/**
 * Cross entropy of rows of logits, as row kernels: the loss with the statistics of its softmax, the
 * gradient from them, and both at once over the logits' own memory for the chunked loss.
 */

import { DTypeError, ShapeError } from '../../core/errors.ts';
import { formatShape, numElements, sameShape } from '../../core/shape.ts';
import { type Aval, formatAval } from '../../ir/aval.ts';
import { type Expr, e } from '../../ir/expr.ts';
import type { KernelTemplate, Op, SampleInput } from '../../ir/op.ts';
import { apply, apply1 } from '../../tensor/apply.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { add, mul, sub } from '../arithmetic.ts';
import { cast, sum } from '../broadcast.ts';
import { eq, where } from '../comparison.ts';
import { zerosLike } from '../creation.ts';
import {
  arithmeticCost,
  defineOp,
  floats,
  inputExpr,
  present,
  requireFloat,
  storedAs,
} from '../define.ts';
import { oneHot } from '../index/one-hot.ts';
import { logsumexp } from '../reductions.ts';
import { unsqueeze } from '../views.ts';

export type CrossEntropyParams = {
  /** Rows with this target have loss and gradient 0. */
  readonly ignoreIndex: number;
  /** Share of the target that is spread over all classes. */
  readonly labelSmoothing: number;
};

const targets = (rows: number, classes: number): SampleInput => ({
  shape: [rows],
  dtype: 'int32',
  range: [0, classes],
});

/**
 * logits [N, V], targets int32 [N]. Outputs, float32 [N]: loss, and lse = log(sum(exp(logits))). A target
 * outside the classes that is not ignored gives NaN.
 */
export const crossEntropyRowsOp: Op<Tensor, CrossEntropyParams> = defineOp<
  CrossEntropyParams,
  readonly ['logits', 'targets'],
  'logits' | 'targets' | 'out1'
>({
  name: 'crossEntropyRows',
  args: ['logits', 'targets'],
  traits: { class: 'reduction', remat: 'cheap', exactSaves: ['out1'] },
  infer: (inputs) => {
    const rows = checkRows('crossEntropy', inputs);
    return [rows, rows];
  },
  cost: (inputs, outputs) => rowCost(inputs, outputs, 4),
  saves: ['logits', 'targets', 'out1'],
  vjp: ([g, gLse], { params, saved }) => {
    if (!g && !gLse) return [];
    const lse = saved('out1');
    const gradients = [g ?? zerosLike(lse), ...(gLse ? [gLse] : [])];
    const inputs = [saved('logits'), saved('targets'), lse, ...gradients];
    return [apply1(crossEntropyBackwardOp, inputs, params)];
  },
  compose: ([logits, wanted], params) => composedRows(present(logits), present(wanted), params),
  lower: {
    kind: 'kernel',
    template: (inputs, _, params) => {
      const { loss, lse } = rowExprs(inputs, params);
      return rowTemplate(inputs, true, params, [
        { axes: [0, -1], expr: loss },
        { axes: [0, -1], expr: lse },
      ]);
    },
  },
  samples: [
    {
      label: 'rows',
      inputs: [floats([5, 11], [-3, 3]), targets(5, 11)],
      params: { ignoreIndex: -100, labelSmoothing: 0 },
    },
    {
      label: 'smoothed',
      inputs: [floats([3, 7], [-3, 3]), targets(3, 7)],
      params: { ignoreIndex: 2, labelSmoothing: 0.1 },
    },
  ],
});

/** logits, targets, lse, the gradient of the losses [N], and that of lse if any: gradient of the logits. */
export const crossEntropyBackwardOp: Op<Tensor, CrossEntropyParams> = defineOp<
  CrossEntropyParams,
  readonly ['logits', 'targets', 'lse', '...gradients'],
  never
>({
  name: 'crossEntropyBackward',
  args: ['logits', 'targets', 'lse', '...gradients'],
  traits: { class: 'elementwise', remat: 'cheap' },
  infer: (inputs) => {
    checkRows('crossEntropyBackward', inputs);
    return [present(inputs[0])];
  },
  cost: (inputs, outputs) => rowCost(inputs, outputs, 5),
  saves: [],
  vjp: 'nondifferentiable',
  lower: {
    kind: 'kernel',
    template: (inputs, [out], params) => {
      const x = inputExpr(0, present(inputs[0]));
      const p = e.unary('exp', e.sub(x, e.input(2)));
      const ofLoss = gradientExpr(p, e.input(3), inputs, params);
      const gradient = inputs.length > 4 ? e.add(ofLoss, e.mul(p, e.input(4))) : ofLoss;
      return rowTemplate(inputs, false, params, [
        { axes: [0, 1], expr: storedAs(gradient, present(out)) },
      ]);
    },
  },
  samples: [
    {
      label: 'rows',
      inputs: [floats([5, 11], [-3, 3]), targets(5, 11), floats([5], [2, 3]), floats([5])],
      params: { ignoreIndex: -100, labelSmoothing: 0 },
    },
    {
      label: 'lse',
      inputs: [
        floats([3, 7], [-3, 3]),
        targets(3, 7),
        floats([3], [2, 3]),
        floats([3]),
        floats([3]),
      ],
      params: { ignoreIndex: 2, labelSmoothing: 0.1 },
    },
  ],
});

/**
 * logits [N, V], targets [N], scale [] or [N]: the logits' memory becomes the gradient of sum(scale * loss).
 * Outputs: that gradient, and the losses [N].
 */
export const crossEntropyInPlaceOp: Op<Tensor, CrossEntropyParams> = defineOp<
  CrossEntropyParams,
  readonly ['logits', 'targets', 'scale'],
  never
>({
  name: 'crossEntropyInPlace',
  args: ['logits', 'targets', 'scale'],
  traits: { class: 'reduction', remat: 'cheap', updates: [{ input: 0, out: 0 }] },
  infer: (inputs) => {
    const rows = checkRows('crossEntropyInPlace', inputs);
    const scale = present(inputs[2]).shape;
    if (scale.length > 0 && !sameShape(scale, rows.shape)) {
      throw new ShapeError(
        `crossEntropyInPlace: the scale must be one number or one per row (got ${formatShape(scale)} for ` +
          `${rows.shape[0]} rows). Reshape it.`,
      );
    }
    return [present(inputs[0]), rows];
  },
  cost: (inputs, outputs) => rowCost(inputs, outputs, 8),
  saves: [],
  vjp: 'nondifferentiable',
  lower: {
    kind: 'kernel',
    template: (inputs, [out], params) => {
      const { loss, share, sum } = rowExprs(inputs, params);
      const p = e.mul(share, e.unary('reciprocal', sum));
      const gradient = gradientExpr(p, e.input(2), inputs, params);
      return rowTemplate(inputs, true, params, [
        { axes: [0, 1], expr: storedAs(gradient, present(out)) },
        { axes: [0, -1], expr: loss },
      ]);
    },
  },
  samples: [
    {
      label: 'scalar',
      inputs: [floats([5, 11], [-3, 3]), targets(5, 11), floats([])],
      params: { ignoreIndex: -100, labelSmoothing: 0 },
    },
    {
      label: 'rows',
      inputs: [floats([3, 7], [-3, 3]), targets(3, 7), floats([3])],
      params: { ignoreIndex: 2, labelSmoothing: 0.2 },
    },
  ],
});

/** Losses [N] of rows of logits; differentiable. */
export function crossEntropyRows(
  logits: Tensor,
  wanted: Tensor,
  params: CrossEntropyParams,
): Tensor {
  const [loss, lse] = apply(crossEntropyRowsOp, [logits, wanted], params);
  present(lse).dispose();
  return present(loss);
}

/** Loss and lse of the row; exp(x - max) and its sum. */
function rowExprs(inputs: readonly Aval[], params: CrossEntropyParams) {
  const logits = present(inputs[0]);
  const x = inputExpr(0, logits);
  const classes = logits.shape[1] ?? 1;
  const target = e.input(1, 'i32');
  const max = e.reduce('max', x);
  const shifted = e.sub(x, max);
  const share = e.unary('exp', shifted);
  const sum = e.reduce('sum', share);
  const logSum = e.unary('log', sum);
  const picked = e.reduce('sum', e.select(isTarget(), shifted, e.f32(0)));
  const smoothed =
    params.labelSmoothing === 0
      ? picked
      : e.add(
          e.mul(e.sub(e.f32(1), e.scalar(1)), picked),
          e.mul(e.scalar(1), e.div(e.reduce('sum', shifted), e.f32(classes))),
        );
  const legal = e.binary(
    'and',
    e.binary('ge', target, e.i32(0)),
    e.binary('lt', target, e.i32(classes)),
  );
  const known = e.select(legal, e.sub(logSum, smoothed), e.f32(Number.NaN));
  return {
    loss: e.select(isIgnored(), e.f32(0), known),
    lse: e.add(max, logSum),
    share,
    sum,
  };
}

/** scale * (p - target distribution), 0 in ignored rows. */
function gradientExpr(
  p: Expr,
  scale: Expr,
  inputs: readonly Aval[],
  { labelSmoothing }: CrossEntropyParams,
): Expr {
  const classes = present(inputs[0]).shape[1] ?? 1;
  const one = e.f32(1);
  const smoothing = e.scalar(1);
  const [hit, miss] =
    labelSmoothing === 0
      ? [one, e.f32(0)]
      : [
          e.add(e.sub(one, smoothing), e.div(smoothing, e.f32(classes))),
          e.div(smoothing, e.f32(classes)),
        ];
  const difference = e.sub(p, e.select(isTarget(), hit, miss));
  return e.select(isIgnored(), e.f32(0), e.mul(scale, difference));
}

function isTarget(): Expr {
  return e.binary('eq', e.input(1, 'i32'), e.coord(1));
}

function isIgnored(): Expr {
  return e.binary('eq', e.input(1, 'i32'), e.scalar(0, 'i32'));
}

function rowTemplate(
  inputs: readonly Aval[],
  reduces: boolean,
  { ignoreIndex, labelSmoothing }: CrossEntropyParams,
  outputs: KernelTemplate['outputs'],
): KernelTemplate {
  return {
    space: present(inputs[0]).shape,
    reduced: reduces ? [1] : [],
    inputs: inputs.map((x, operand) => {
      if (operand === 0) return { operand, axes: [0, 1] };
      return { operand, axes: x.shape.length === 0 ? [-1, -1] : [0, -1] };
    }),
    outputs,
    scalars: [
      { type: 'i32', value: ignoreIndex },
      { type: 'f32', value: labelSmoothing },
    ],
  };
}

function rowCost(inputs: readonly Aval[], outputs: readonly Aval[], perElement: number) {
  return arithmeticCost(inputs, outputs, perElement * numElements(present(inputs[0]).shape));
}

function checkRows(who: string, inputs: readonly Aval[]): Aval {
  const [logits, wanted] = [present(inputs[0]), present(inputs[1])];
  requireFloat(who, logits, 'logits');
  if (wanted.dtype !== 'int32') {
    throw new DTypeError(
      `${who}: targets must be int32 (got ${formatAval(wanted)}). Cast them with cast(targets, 'int32').`,
    );
  }
  if (logits.shape.length !== 2 || !sameShape(wanted.shape, [logits.shape[0] ?? 0])) {
    throw new ShapeError(
      `${who}: wants one target per row of logits (got logits ${formatShape(logits.shape)}, targets ` +
        `${formatShape(wanted.shape)}). Reshape them to [N, V] and [N].`,
      { logits: logits.shape, targets: wanted.shape },
    );
  }
  return { shape: [logits.shape[0] ?? 0], dtype: 'float32' };
}

/** The rows op in plain, differentiable ops. */
function composedRows(
  logits: Tensor,
  wanted: Tensor,
  { ignoreIndex, labelSmoothing }: CrossEntropyParams,
): readonly [Tensor, Tensor] {
  const x = cast(logits, 'float32');
  const lse = logsumexp(x, 1);
  const distribution = targetDistribution(wanted, x.shape[1] ?? 1, labelSmoothing);
  const loss = sum(mul(sub(unsqueeze(lse, 1), x), distribution), 1);
  return [where(eq(wanted, ignoreIndex), 0, loss), lse];
}

/** float32 [N, classes]: what the softmax should be. */
export function targetDistribution(
  wanted: Tensor,
  classes: number,
  labelSmoothing: number,
): Tensor {
  const hits = cast(oneHot(wanted, classes), 'float32');
  if (labelSmoothing === 0) return hits;
  return add(mul(hits, 1 - labelSmoothing), labelSmoothing / classes);
}
