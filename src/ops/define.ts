/**
 * How an op record is written. `defineOp` checks a record while it is compiled: `saves` may name only
 * arguments and outputs, and a vjp may read only what `saves` names. `viewOp`, `reductionOp` and
 * `routineOp` fill in what all ops of a kind share; `pointwise` (pointwise.ts) does the same for
 * elementwise ops and derives their gradients from the expression.
 */

import { isFloat } from '../core/dtype.ts';
import { DTypeError, invariant } from '../core/errors.ts';
import type { Layout, Shape } from '../core/shape.ts';
import { numElements } from '../core/shape.ts';
import { type Aval, avalBytes, formatAval } from '../ir/aval.ts';
import { type Expr, e, linearizeExprs } from '../ir/expr.ts';
import { computeType } from '../ir/kernel.ts';
import {
  type Cost,
  type KernelTemplate,
  type Op,
  type Params,
  type Routine,
  type Sample,
  type SampleInput,
  type Traits,
  type VjpContext,
  movementCost,
  savedOutputIndex,
} from '../ir/op.ts';
import type { Tensor } from '../tensor/tensor.ts';

/** The name of one tensor among those a trailing '...name' takes. */
type ArgName<N extends string> = N extends `...${infer M}` ? `${M}${number}` : N;

/** What an op with these args may save. */
export type SavedName<A extends readonly string[]> = ArgName<A[number]> | 'out' | `out${number}`;

/** VjpContext that gives out only what is saved. */
export type TypedVjpContext<S extends string, P> = Omit<VjpContext<Tensor, P>, 'saved'> & {
  readonly saved: (name: S) => Tensor;
};

export type TypedVjp<S extends string, P> = (
  cotangents: readonly (Tensor | undefined)[],
  context: TypedVjpContext<S, P>,
) => readonly (Tensor | undefined)[];

/** An Op whose args, saves and vjp are checked against each other. */
export type OpRecord<A extends readonly string[], S extends SavedName<A>, P> = Omit<
  Op<Tensor, P>,
  'args' | 'saves' | 'vjp'
> & {
  readonly args: A;
  readonly saves: readonly S[] | ((params: P, needs: (input: number) => boolean) => readonly S[]);
  readonly vjp: TypedVjp<NoInfer<S>, P> | 'nondifferentiable';
};

/** Checks the record's parts against each other; returns it as an Op. */
export function defineOp<
  P extends Params,
  const A extends readonly string[] = readonly string[],
  const S extends SavedName<A> = SavedName<A>,
>(record: OpRecord<A, S, P>): Op<Tensor, P> {
  const { name, args, traits } = record;
  invariant(new Set(args).size === args.length, () => `${name}: an argument is named twice`);
  invariant(
    record.vjp === 'nondifferentiable' || args.every((arg) => savedOutputIndex(arg) === undefined),
    () => `${name}: saves could not tell an argument from an output (got ${args.join(', ')})`,
  );
  invariant(
    args.every((arg, i) => !arg.startsWith('...') || i === args.length - 1),
    () => `${name}: only the last argument may take any number of tensors`,
  );
  invariant(
    !traits.random || args[0] === 'state',
    () => `${name}: a random op takes its generator state as first argument`,
  );
  return record as Op<Tensor, P>;
}

/** A view: its output lies inside its input's storage. */
export interface ViewRecord<P> {
  readonly name: string;
  readonly traits?: Partial<Traits>;
  readonly infer: (x: Aval, params: P) => Aval;
  /** Undefined when the input must be made dense first. */
  readonly view: (x: Aval, layout: Layout, out: Aval, params: P) => Layout | undefined;
  readonly vjp: (g: Tensor, params: P, x: Aval) => Tensor;
  readonly samples: readonly Sample<P>[];
}

/** A view op: one input `x`, nothing saved, no arithmetic. */
export function viewOp<P extends Params>(record: ViewRecord<P>): Op<Tensor, P> {
  return defineOp<P, readonly ['x'], never>({
    name: record.name,
    args: ['x'],
    traits: { class: 'view', remat: 'free', ...record.traits },
    infer: ([x], params) => [record.infer(present(x), params)],
    cost: () => ({ flops: 0, bytesRead: 0, bytesWritten: 0 }),
    saves: [],
    vjp: ([g], { params, inputs }) => [g && record.vjp(g, params, present(inputs[0]))],
    lower: {
      kind: 'view',
      view: (x, layout, out, params) => record.view(x, layout, out, params),
    },
    samples: record.samples,
  });
}

/** Params of every reduction: axes counted from the front, ascending. */
export interface ReduceParams extends Params {
  readonly axes: readonly number[];
  readonly keepDims: boolean;
}

export interface ReductionRecord<P extends ReduceParams, S extends 'x' | 'out'> {
  readonly name: string;
  /** dtype of the result; throws DTypeError for inputs it does not take. */
  readonly dtype: (x: Aval, params: P) => Aval['dtype'];
  /** One value per row, from the element `x` (computed on as the input's compute type). */
  readonly expr: (x: Expr, context: { readonly input: Aval; readonly params: P }) => Expr;
  readonly saves: readonly S[];
  readonly vjp:
    | ((g: Tensor, context: TypedVjpContext<S, P>) => Tensor | undefined)
    | 'nondifferentiable';
  readonly compose?: (x: Tensor, params: P) => Tensor;
  readonly samples: readonly Sample<P>[];
}

/** A reduction of `x` over `params.axes`, one row kernel. */
export function reductionOp<P extends ReduceParams, const S extends 'x' | 'out'>(
  record: ReductionRecord<P, S>,
): Op<Tensor, P> {
  const { vjp, compose } = record;
  return defineOp<P, readonly ['x'], S>({
    name: record.name,
    args: ['x'],
    traits: { class: 'reduction', remat: 'cheap' },
    infer: ([input], params) => {
      const x = present(input);
      return [{ shape: reducedShape(x.shape, params), dtype: record.dtype(x, params) }];
    },
    cost: (inputs, outputs, params) => {
      const x = present(inputs[0]);
      const perElement = flopsOf([record.expr(inputExpr(0, x), { input: x, params })]);
      return arithmeticCost(inputs, outputs, perElement * numElements(x.shape));
    },
    saves: record.saves,
    vjp: vjp === 'nondifferentiable' ? vjp : ([g], context) => [g && vjp(g, context)],
    ...(compose && { compose: ([x], params) => [compose(present(x), params)] }),
    lower: {
      kind: 'kernel',
      template: ([input], [output], params) => {
        const x = present(input);
        const out = present(output);
        return {
          space: x.shape,
          reduced: params.axes,
          inputs: [{ operand: 0, axes: ownAxes(x.shape) }],
          outputs: [
            {
              axes: keptAxes(x.shape.length, params.axes, params.keepDims),
              expr: storedAs(record.expr(inputExpr(0, x), { input: x, params }), out),
            },
          ],
        };
      },
    },
    samples: record.samples,
  });
}

/** Defaults for an op with hand-written kernels: not differentiable unless said, costly. */
export type RoutineRecord<
  A extends readonly string[],
  S extends SavedName<A>,
  P extends Params,
> = Omit<OpRecord<A, S, P>, 'lower' | 'cost'> & {
  readonly flops: (inputs: readonly Aval[], outputs: readonly Aval[], params: P) => number;
  readonly routine: Routine<P>;
};

export function routineOp<
  P extends Params,
  const A extends readonly string[] = readonly string[],
  const S extends SavedName<A> = SavedName<A>,
>(record: RoutineRecord<A, S, P>): Op<Tensor, P> {
  const { flops, routine, ...rest } = record;
  return defineOp<P, A, S>({
    ...rest,
    cost: (inputs, outputs, params) =>
      arithmeticCost(inputs, outputs, flops(inputs, outputs, params)),
    lower: { kind: 'routine', routine },
  } as OpRecord<A, S, P>);
}

// Parts of kernel templates.

/** The value that stands where the contract promises one (an input of a known position). */
export function present<T>(value: T | undefined): T {
  invariant(value !== undefined, () => 'an op got fewer operands than its record names');
  return value;
}

/** Axis map of an operand that has the space's own shape. */
export function ownAxes(shape: Shape): number[] {
  return shape.map((_, axis) => axis);
}

/** Axis map of an operand of `shape` broadcast (NumPy's rule) to `space`. */
export function broadcastAxes(shape: Shape, space: Shape): number[] {
  const lead = space.length - shape.length;
  return space.map((dim, axis) => {
    const own = axis - lead;
    return own < 0 || (shape[own] === 1 && dim !== 1) ? -1 : own;
  });
}

/** Axis map of a result in which `reduced` axes of the space are gone, or of size one (keepDims). */
export function keptAxes(rank: number, reduced: readonly number[], keepDims: boolean): number[] {
  let next = 0;
  return Array.from({ length: rank }, (_, axis) => {
    if (reduced.includes(axis)) {
      if (keepDims) next++;
      return -1;
    }
    return next++;
  });
}

/** Shape after a reduction. */
export function reducedShape(shape: Shape, params: ReduceParams): number[] {
  return shape.flatMap((dim, axis) => {
    if (!params.axes.includes(axis)) return [dim];
    return params.keepDims ? [1] : [];
  });
}

/** Input `index` of a kernel, widened from the dtype of `x`. */
export function inputExpr(index: number, x: Aval): Expr {
  return e.input(index, computeType(x.dtype));
}

/** `expr` converted to what an output of this dtype is computed as. */
export function storedAs(expr: Expr, out: Aval): Expr {
  return e.cast(expr, computeType(out.dtype));
}

/** A template whose operands all have the shape of the space or broadcast to it. */
export function broadcastTemplate(
  space: Shape,
  inputs: readonly Aval[],
  outputs: readonly Expr[],
  scalars: KernelTemplate['scalars'] = [],
): KernelTemplate {
  return {
    space,
    reduced: [],
    inputs: inputs.map((x, operand) => ({ operand, axes: broadcastAxes(x.shape, space) })),
    outputs: outputs.map((expr) => ({ axes: ownAxes(space), expr })),
    scalars,
  };
}

// Costs and checks.

/** Arithmetic that one point of a kernel does: nodes that compute, with fma as two. */
export function flopsOf(outputs: readonly Expr[]): number {
  let flops = 0;
  for (const { node } of linearizeExprs(outputs).lines) {
    if (node.kind === 'unary' || node.kind === 'binary' || node.kind === 'reduce') flops++;
    else if (node.kind === 'fma') flops += 2;
    else if (node.kind === 'random') flops += 10;
  }
  return flops;
}

/** Every operand moved once, plus arithmetic. */
export function arithmeticCost(
  inputs: readonly Aval[],
  outputs: readonly Aval[],
  flops: number,
): Cost {
  return { ...movementCost(inputs, outputs, avalBytes), flops };
}

/** Throws DTypeError unless `x` is a floating point tensor. */
export function requireFloat(who: string, x: Aval, name = 'x'): void {
  if (isFloat(x.dtype)) return;
  throw new DTypeError(
    `${who}: ${name} must be floating point (got ${formatAval(x)}). Cast it with cast(x, 'float32').`,
    { dtype: x.dtype },
  );
}

/** Sample input of float32 values in [-1, 1), or in `range`. */
export function floats(shape: Shape, range?: readonly [number, number]): SampleInput {
  return { shape, dtype: 'float32', ...(range && { range }) };
}
