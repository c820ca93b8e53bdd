/** Tensors from nothing: kernels without inputs. */

import type { DType } from '../core/dtype.ts';
import { ArgumentError, ShapeError } from '../core/errors.ts';
import { type Shape, formatShape } from '../core/shape.ts';
import type { Aval } from '../ir/aval.ts';
import { type Expr, e } from '../ir/expr.ts';
import { computeType } from '../ir/kernel.ts';
import { type Op, type Params, type Sample, movementCost } from '../ir/op.ts';
import { avalBytes } from '../ir/aval.ts';
import { apply1 } from '../tensor/apply.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { defineOp, ownAxes, present, storedAs } from './define.ts';

export interface CreationOptions {
  /** Default float32. */
  readonly dtype?: DType;
  readonly requiresGrad?: boolean;
}

interface CreationParams extends Params {
  readonly shape: Shape;
  readonly dtype: DType;
  /** Run-time scalars of the kernel. */
  readonly values: readonly number[];
}

function creationOp(
  name: string,
  /** The value at a point; `at` reads scalar k in the type it computes with. */
  expr: (out: Aval, at: (k: number) => Expr) => Expr,
  samples: readonly Sample<CreationParams>[],
): Op<Tensor, CreationParams> {
  return defineOp<CreationParams, readonly [], never>({
    name,
    args: [],
    traits: { class: 'creation', remat: 'free' },
    infer: (_, { shape, dtype }) => {
      if (!shape.every((dim) => Number.isInteger(dim) && dim >= 0)) {
        throw new ShapeError(
          `${name}: sizes must be integers from 0 up (got ${formatShape(shape)}). Correct the shape.`,
          { shape },
        );
      }
      return [{ shape, dtype }];
    },
    cost: (inputs, outputs) => movementCost(inputs, outputs, avalBytes),
    saves: [],
    vjp: 'nondifferentiable',
    lower: {
      kind: 'kernel',
      template: (_, [output], { values }) => {
        const out = present(output);
        const type = computeType(out.dtype);
        const wide = type === 'bool' ? 'i32' : type;
        return {
          space: out.shape,
          reduced: [],
          inputs: [],
          outputs: [
            {
              axes: ownAxes(out.shape),
              expr: storedAs(
                expr(out, (k) => e.scalar(k, wide)),
                out,
              ),
            },
          ],
          scalars: values.map((value) => ({ type: wide, value })),
        };
      },
    },
    samples,
  });
}

export const fullOp: Op<Tensor, CreationParams> = creationOp('full', (_, at) => at(0), [
  { label: 'floats', inputs: [], params: { shape: [3, 5], dtype: 'float32', values: [2.5] } },
  { label: 'ints', inputs: [], params: { shape: [7], dtype: 'int32', values: [-3] } },
]);

/** A tensor of one value (torch.full). dtype defaults to float32. */
export function full(shape: Shape, value: number, options: CreationOptions = {}): Tensor {
  const dtype = options.dtype ?? 'float32';
  return finish(apply1(fullOp, [], { shape, dtype, values: [value] }), options);
}

/** torch.zeros */
export function zeros(shape: Shape, options: CreationOptions = {}): Tensor {
  return full(shape, 0, options);
}

/** torch.ones */
export function ones(shape: Shape, options: CreationOptions = {}): Tensor {
  return full(shape, 1, options);
}

/** A tensor of one value, of the shape and dtype of x (torch.full_like). */
export function fullLike(x: Tensor, value: number, options: CreationOptions = {}): Tensor {
  return full(x.shape, value, { dtype: x.dtype, ...options });
}

/** torch.zeros_like */
export function zerosLike(x: Tensor, options: CreationOptions = {}): Tensor {
  return fullLike(x, 0, options);
}

/** torch.ones_like */
export function onesLike(x: Tensor, options: CreationOptions = {}): Tensor {
  return fullLike(x, 1, options);
}

export const arangeOp: Op<Tensor, CreationParams> = creationOp(
  'arange',
  (_, at) => {
    const start = at(0);
    const index = e.cast(e.cast(e.linear(), 'i32'), start.type);
    return e.add(start, e.mul(index, at(1)));
  },
  [
    { label: 'ints', inputs: [], params: { shape: [9], dtype: 'int32', values: [-3, 2] } },
    { label: 'floats', inputs: [], params: { shape: [7], dtype: 'float32', values: [0.5, 0.25] } },
  ],
);

/**
 * start, start + step, ... up to before `end` (torch.arange). dtype defaults to int32 when all three are
 * whole, else float32.
 */
export function arange(
  start: number,
  end: number,
  step = 1,
  options: CreationOptions = {},
): Tensor {
  if (step === 0 || !Number.isFinite((end - start) / step)) {
    throw new ArgumentError(
      `arange: the step must be finite and not 0 (got ${start} to ${end} by ${step}). Choose another step.`,
    );
  }
  const count = Math.max(0, Math.ceil((end - start) / step));
  const whole = [start, end, step].every(Number.isInteger);
  const dtype = options.dtype ?? (whole ? 'int32' : 'float32');
  return finish(apply1(arangeOp, [], { shape: [count], dtype, values: [start, step] }), options);
}

/** `count` evenly spaced values from start to end, both included (torch.linspace). */
export function linspace(
  start: number,
  end: number,
  count: number,
  options: CreationOptions = {},
): Tensor {
  const dtype = options.dtype ?? 'float32';
  const step = count > 1 ? (end - start) / (count - 1) : 0;
  return finish(apply1(arangeOp, [], { shape: [count], dtype, values: [start, step] }), options);
}

export const eyeOp: Op<Tensor, CreationParams> = creationOp(
  'eye',
  () => e.cast(e.binary('eq', e.coord(0), e.coord(1)), 'i32'),
  [
    { label: 'square', inputs: [], params: { shape: [3, 3], dtype: 'float32', values: [] } },
    { label: 'wide', inputs: [], params: { shape: [3, 5], dtype: 'int32', values: [] } },
  ],
);

/** Ones on the diagonal of a matrix, zeros elsewhere (torch.eye). */
export function eye(rows: number, columns = rows, options: CreationOptions = {}): Tensor {
  const dtype = options.dtype ?? 'float32';
  return finish(apply1(eyeOp, [], { shape: [rows, columns], dtype, values: [] }), options);
}

function finish(made: Tensor, { requiresGrad }: CreationOptions): Tensor {
  if (requiresGrad) made.requiresGrad = true;
  return made;
}
