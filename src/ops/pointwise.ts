/**
 * Elementwise ops. A record states its scalar expression and dtype rule; broadcasting, the kernel and
 * the gradients follow. The backward of an op is one kernel of its own, `<name>Backward`, whose
 * expressions come from symbolic differentiation (derivative.ts) unless the record gives them in
 * terms of the output. A backward op is an elementwise op too, so it has a backward in turn: every
 * op here is differentiable any number of times.
 *
 * Only the values that the wanted gradients read are saved: x * w with w frozen saves w alone.
 */

import { type DType, dtypes as dtypeInfo, isFloat, promoteDTypes } from '../core/dtype.ts';
import { DTypeError, invariant } from '../core/errors.ts';
import { type Aval, formatAval } from '../ir/aval.ts';
import { type ComputeType, type Expr, e } from '../ir/expr.ts';
import { computeType } from '../ir/kernel.ts';
import type { Op, Params, Sample, Traits } from '../ir/op.ts';
import type { Tensor } from '../tensor/tensor.ts';
import {
  type Formula,
  type GradientTerms,
  type ScalarValue,
  asAvals,
  formulaOp,
} from './formula.ts';

/** The dtype that inputs are converted to and that of the result. */
export interface DTypes {
  readonly compute: DType;
  readonly out: DType;
}

/**
 * - float: the promoted dtype of the inputs; integers and bools compute in float32.
 * - number: the promoted dtype; bools are an error.
 * - any: the promoted dtype, bools too.
 * - compare: compute as any, the result is bool.
 * - logical: everything is converted to bool.
 */
export type DTypeRule = 'float' | 'number' | 'any' | 'compare' | 'logical';

export interface PointwiseRecord<A extends readonly string[], P extends Params> {
  readonly name: string;
  readonly args: A;
  readonly dtypes: DTypeRule | ((inputs: readonly Aval[], params: P) => DTypes);
  /** Run-time scalars: read by `expr` as e.scalar(k), no kernel per value. */
  readonly scalars?: (params: P, type: ComputeType) => readonly ScalarValue[];
  /** The value at a point; inputs are already of the compute type (but see `raw`). */
  readonly expr: (inputs: readonly Expr[], params: P) => Expr;
  /** Inputs that `expr` gets in their own type: conditions. */
  readonly raw?: readonly number[];
  /**
   * 'symbolic' differentiates `expr`; a function gives one expression per input, for ops whose slope
   * is cheaper from the output or has a convention at a kink; 'none' for integer and bool results.
   */
  readonly gradients:
    | 'symbolic'
    | 'none'
    | ((terms: GradientTerms, params: P) => readonly (Expr | undefined)[]);
  readonly traits?: Partial<Traits>;
  readonly samples: readonly Sample<P>[];
}

/** An elementwise op from its record. */
export function pointwise<P extends Params, const A extends readonly string[]>(
  record: PointwiseRecord<A, P>,
): Op<Tensor, P> {
  const { name, scalars } = record;
  const resolve = (inputs: readonly Aval[], params: P): DTypes =>
    typeof record.dtypes === 'function'
      ? record.dtypes(inputs, params)
      : applyRule(name, record.args, record.dtypes, inputs);
  const formula: Formula<P> = {
    name,
    standIns: () => record.args.map((_, i) => (record.raw?.includes(i) ? 'bool' : 'float32')),
    outputs: (inputs, inputDTypes, params) => {
      const types = resolve(asAvals(inputDTypes), params);
      const type = computeType(types.compute);
      const ready = inputs.map((x, i) => (record.raw?.includes(i) ? x : e.cast(x, type)));
      return [record.expr(ready, params)];
    },
    scalars: (inputDTypes, params) =>
      scalars?.(params, computeType(resolve(asAvals(inputDTypes), params).compute)) ?? [],
    gradients: typeof record.gradients === 'function' ? record.gradients : undefined,
    outDTypes: (inputs, params) => [resolve(inputs, params).out],
  };
  return formulaOp(formula, {
    args: record.args,
    names: record.args,
    traits: record.traits,
    differentiable: record.gradients !== 'none',
    samples: record.samples,
  });
}

function applyRule(
  name: string,
  args: readonly string[],
  rule: DTypeRule,
  inputs: readonly Aval[],
): DTypes {
  if (rule === 'logical') return { compute: 'bool', out: 'bool' };
  const first = inputs[0];
  invariant(first, () => `${name} has no inputs`);
  let common = first.dtype;
  for (const x of inputs) common = promoteDTypes(common, x.dtype);
  if (rule === 'compare') return { compute: common, out: 'bool' };
  if (rule === 'float') {
    const dtype = isFloat(common) ? common : 'float32';
    return { compute: dtype, out: dtype };
  }
  if (rule === 'number' && dtypeInfo[common].kind === 'bool') {
    throw new DTypeError(
      `${name}: bools are not numbers (got ${inputs.map((x, i) => `${args[i]} ${formatAval(x)}`).join(', ')}). ` +
        "Use a logical function, or cast(x, 'int32') first.",
      { dtypes: inputs.map((x) => x.dtype) },
    );
  }
  return { compute: common, out: common };
}
