/**
 * Random draws. Each op is a pure function of its first input, the generator's state (uint32[4]), its
 * `draw` number and the element's index (core/random.ts): computing it again gives the same values, so
 * dropout keeps no mask. Element i of a draw reads word i; a normal one reads words i - i mod 2 and the
 * next.
 */

import type { DType } from '../core/dtype.ts';
import { ArgumentError, DTypeError } from '../core/errors.ts';
import { type Shape, numElements } from '../core/shape.ts';
import { type Aval, formatAval } from '../ir/aval.ts';
import { type Expr, e } from '../ir/expr.ts';
import type { KernelTemplate, Op, Params, SampleInput, TemplateInput } from '../ir/op.ts';
import { apply1 } from '../tensor/apply.ts';
import { type Generator, defaultGenerator } from '../tensor/generator.ts';
import { currentMode } from '../tensor/mode.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { reshape } from './broadcast.ts';
import {
  arithmeticCost,
  defineOp,
  flopsOf,
  floats,
  inputExpr,
  ownAxes,
  present,
  requireFloat,
  storedAs,
} from './define.ts';

export interface RandomOptions {
  readonly generator?: Generator;
  /** Default float32. */
  readonly dtype?: DType;
  readonly requiresGrad?: boolean;
}

interface DrawParams extends Params {
  readonly draw: number;
}

interface FillParams extends DrawParams {
  readonly shape: Shape;
  readonly dtype: DType;
  /** Run-time scalars of the kernel. */
  readonly values: readonly number[];
}

const stateWords = 4;
const stateSample: SampleInput = { shape: [stateWords], dtype: 'uint32', range: [0, 2 ** 31] };

/** Kernel inputs 0 to 3: the words of the state, the same at every point. */
function stateInputs(space: Shape): TemplateInput[] {
  return Array.from({ length: stateWords }, (_, word) => ({
    operand: 0,
    axes: space.map(() => -1),
    relayout: (layout) => ({
      offset: layout.offset + word * (layout.strides[0] ?? 1),
      strides: layout.strides,
    }),
  }));
}

/** Word `index` of draw number `draw`. */
function randomWord(draw: number, index: Expr): Expr {
  const word = (k: number): Expr => e.input(k, 'u32');
  return e.random([word(0), word(1), word(2), word(3)], draw, index);
}

/** A word as a float in [0, 1): its top 24 bits. */
function unitFloat(word: Expr): Expr {
  const top = e.cast(e.binary('shr', word, e.u32(8)), 'i32');
  return e.mul(e.cast(top, 'f32'), e.f32(2 ** -24));
}

const uniformAt = (draw: number): Expr => unitFloat(randomWord(draw, e.linear()));

function checkState(name: string, state: Aval | undefined): void {
  if (state?.dtype === 'uint32' && state.shape.length === 1 && state.shape[0] === stateWords)
    return;
  throw new DTypeError(
    `${name}: the generator state must be uint32[4] (got ${state ? formatAval(state) : 'none'}). Pass a Generator.`,
  );
}

function fillOp(
  name: string,
  expr: (draw: number, scalar: (k: number) => Expr) => Expr,
  values: readonly number[],
  dtype: DType = 'float32',
): Op<Tensor, FillParams> {
  const scalarType = dtype === 'int32' ? 'i32' : 'f32';
  const at = (k: number): Expr => e.scalar(k, scalarType);
  return defineOp<FillParams, readonly ['state'], never>({
    name,
    args: ['state'],
    traits: { class: 'random', remat: 'cheap', random: true },
    infer: ([state], params) => {
      checkState(name, state);
      return [{ shape: params.shape, dtype: params.dtype }];
    },
    cost: (inputs, outputs, params) =>
      arithmeticCost(inputs, outputs, flopsOf([expr(0, at)]) * numElements(params.shape)),
    saves: [],
    vjp: 'nondifferentiable',
    lower: {
      kind: 'kernel',
      template: (_, [output], params): KernelTemplate => {
        const out = present(output);
        return {
          space: out.shape,
          reduced: [],
          inputs: stateInputs(out.shape),
          outputs: [{ axes: ownAxes(out.shape), expr: storedAs(expr(params.draw, at), out) }],
          scalars: params.values.map((value) => ({ type: scalarType, value })),
        };
      },
    },
    samples: [
      { label: 'matrix', inputs: [stateSample], params: { shape: [3, 7], dtype, values, draw: 0 } },
      { label: 'vector', inputs: [stateSample], params: { shape: [19], dtype, values, draw: 3 } },
    ],
  });
}

function runFill(
  op: Op<Tensor, FillParams>,
  shape: Shape,
  values: readonly number[],
  dtype: DType,
  options: RandomOptions,
): Tensor {
  const { state, draw } = currentMode().drawState(options.generator ?? defaultGenerator);
  const made = apply1(op, [state], { shape, dtype, values, draw });
  state.dispose();
  if (options.requiresGrad) made.requiresGrad = true;
  return made;
}

export const uniformOp: Op<Tensor, FillParams> = fillOp(
  'uniform',
  (draw, scalar) => e.add(scalar(0), e.mul(uniformAt(draw), e.sub(scalar(1), scalar(0)))),
  [-1, 2],
);

export interface UniformOptions extends RandomOptions {
  /** Default 0. */
  readonly low?: number;
  /** Default 1. */
  readonly high?: number;
}

/** Uniform values in [low, high), default [0, 1) (torch.rand). */
export function uniform(shape: Shape, options: UniformOptions = {}): Tensor {
  const values = [options.low ?? 0, options.high ?? 1];
  return runFill(uniformOp, shape, values, options.dtype ?? 'float32', options);
}

export const normalOp: Op<Tensor, FillParams> = fillOp(
  'normal',
  (draw, scalar) => {
    // Box-Muller: the words of a pair of elements give a radius and an angle; the even element takes
    // the cosine, the odd one the sine, as the cosine a quarter turn back.
    const index = e.linear();
    const radiusWord = randomWord(draw, e.binary('and', index, e.u32(0xfffffffe)));
    const angleWord = randomWord(draw, e.binary('or', index, e.u32(1)));
    const positive = e.sub(e.f32(1), unitFloat(radiusWord));
    const radius = e.unary('sqrt', e.mul(e.f32(-2), e.unary('log', positive)));
    const odd = e.cast(e.cast(e.binary('and', index, e.u32(1)), 'i32'), 'f32');
    const turns = e.sub(unitFloat(angleWord), e.mul(odd, e.f32(0.25)));
    const standard = e.mul(radius, e.unary('cos', e.mul(turns, e.f32(2 * Math.PI))));
    return e.add(scalar(0), e.mul(scalar(1), standard));
  },
  [0.5, 2],
);

export interface NormalOptions extends RandomOptions {
  /** Default 0. */
  readonly mean?: number;
  /** Standard deviation, default 1. */
  readonly std?: number;
}

/** Normally distributed values (torch.randn, torch.normal), by Box and Muller's transform. */
export function normal(shape: Shape, options: NormalOptions = {}): Tensor {
  const values = [options.mean ?? 0, options.std ?? 1];
  return runFill(normalOp, shape, values, options.dtype ?? 'float32', options);
}

export const randintOp: Op<Tensor, FillParams> = fillOp(
  'randint',
  (draw, scalar) => {
    const span = e.cast(e.sub(scalar(1), scalar(0)), 'u32');
    const offset = e.binary('rem', randomWord(draw, e.linear()), span);
    return e.add(scalar(0), e.cast(offset, 'i32'));
  },
  [-3, 11],
  'int32',
);

/** int32 values from low to high - 1 (torch.randint). The bias of the remainder is below (high - low) / 2^32. */
export function randint(
  low: number,
  high: number,
  shape: Shape,
  options: RandomOptions = {},
): Tensor {
  if (!Number.isInteger(low) || !Number.isInteger(high) || high <= low) {
    throw new ArgumentError(
      `randint: low must be an integer below high (got ${low} and ${high}). Widen the interval.`,
    );
  }
  return runFill(randintOp, shape, [low, high], 'int32', options);
}

export const bernoulliOp: Op<Tensor, DrawParams> = defineOp<
  DrawParams,
  readonly ['state', 'probability'],
  never
>({
  name: 'bernoulli',
  args: ['state', 'probability'],
  traits: { class: 'random', remat: 'cheap', random: true },
  infer: ([state, probability]) => {
    checkState('bernoulli', state);
    requireFloat('bernoulli', present(probability), 'probability');
    return [present(probability)];
  },
  cost: (inputs, outputs) =>
    arithmeticCost(inputs, outputs, 12 * numElements(present(outputs[0]).shape)),
  saves: [],
  vjp: 'nondifferentiable',
  lower: {
    kind: 'kernel',
    template: ([, probability], [output], { draw }): KernelTemplate => {
      const out = present(output);
      const chance = inputExpr(stateWords, present(probability));
      const hit = e.binary('lt', uniformAt(draw), chance);
      return {
        space: out.shape,
        reduced: [],
        inputs: [...stateInputs(out.shape), { operand: 1, axes: ownAxes(out.shape) }],
        outputs: [{ axes: ownAxes(out.shape), expr: e.select(hit, e.f32(1), e.f32(0)) }],
      };
    },
  },
  samples: [
    { label: 'matrix', inputs: [stateSample, floats([3, 7], [0, 1])], params: { draw: 0 } },
    { label: 'vector', inputs: [stateSample, floats([19], [0, 1])], params: { draw: 1 } },
  ],
});

/** 1 with the probability that the element gives, else 0, in its dtype (torch.bernoulli). */
export function bernoulli(probability: Tensor, options: { generator?: Generator } = {}): Tensor {
  const { state, draw } = currentMode().drawState(options.generator ?? defaultGenerator);
  const made = apply1(bernoulliOp, [state, probability], { draw });
  state.dispose();
  return made;
}

interface DropoutParams extends DrawParams {
  readonly p: number;
}

export const dropoutOp: Op<Tensor, DropoutParams> = defineOp<
  DropoutParams,
  readonly ['state', 'x'],
  'state'
>({
  name: 'dropout',
  args: ['state', 'x'],
  traits: { class: 'random', remat: 'cheap', random: true },
  infer: ([state, x]) => {
    checkState('dropout', state);
    requireFloat('dropout', present(x));
    return [present(x)];
  },
  cost: (inputs, outputs) =>
    arithmeticCost(inputs, outputs, 14 * numElements(present(outputs[0]).shape)),
  saves: ['state'],
  // The mask is drawn again from the same state.
  vjp: ([g], { params, saved }) => [undefined, g && apply1(dropoutOp, [saved('state'), g], params)],
  lower: {
    kind: 'kernel',
    template: ([, input], _, { p, draw }): KernelTemplate => {
      const x = present(input);
      const kept = e.binary('ge', uniformAt(draw), e.scalar(0));
      const value = e.mul(inputExpr(stateWords, x), e.scalar(1));
      return {
        space: x.shape,
        reduced: [],
        inputs: [...stateInputs(x.shape), { operand: 1, axes: ownAxes(x.shape) }],
        outputs: [{ axes: ownAxes(x.shape), expr: e.select(kept, value, e.f32(0)) }],
        scalars: [
          { type: 'f32', value: p },
          { type: 'f32', value: p < 1 ? 1 / (1 - p) : 0 },
        ],
      };
    },
  },
  samples: [
    { label: 'matrix', inputs: [stateSample, floats([3, 7])], params: { p: 0.3, draw: 0 } },
    { label: 'cube', inputs: [stateSample, floats([2, 3, 5])], params: { p: 0.5, draw: 2 } },
  ],
});

export interface DropoutOptions {
  /** Default true; false returns x unchanged and draws nothing. */
  readonly training?: boolean;
  readonly generator?: Generator;
}

/**
 * Zeroes each element with probability p and scales the others by 1 / (1 - p)
 * (torch.nn.functional.dropout). Saves 16 bytes: backward draws the mask again.
 */
export function dropout(x: Tensor, p: number, options: DropoutOptions = {}): Tensor {
  if (!(p >= 0 && p <= 1)) {
    throw new ArgumentError(`dropout: p must lie between 0 and 1 (got ${p}). Give a probability.`);
  }
  if (p === 0 || options.training === false) return reshape(x, x.shape);
  const { state, draw } = currentMode().drawState(options.generator ?? defaultGenerator);
  const made = apply1(dropoutOp, [state, x], { p, draw });
  state.dispose();
  return made;
}
