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
import { broadcastShapes, numElements } from '../core/shape.ts';
import { type Aval, formatAval } from '../ir/aval.ts';
import { type ComputeType, type Expr, e, mapExpr, operands } from '../ir/expr.ts';
import { computeType } from '../ir/kernel.ts';
import {
  type AnyOp,
  type KernelTemplate,
  type Op,
  type Params,
  type Sample,
  type Traits,
  paramsKey,
} from '../ir/op.ts';
import { apply } from '../tensor/apply.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { gradientTo } from './broadcast.ts';
import {
  arithmeticCost,
  broadcastTemplate,
  defineOp,
  flopsOf,
  inputExpr,
  present,
  storedAs,
} from './define.ts';
import { gradientExprs } from './derivative.ts';

export interface ScalarValue {
  readonly type: ComputeType;
  readonly value: number;
}

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

/** What a gradient expression may read: the cotangent, the output, and the inputs by position. */
export interface GradientTerms {
  readonly g: Expr;
  readonly out: Expr;
  readonly inputs: readonly Expr[];
}

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

/** The backward op of an elementwise op; undefined for ops without gradients. */
export function backwardOf(op: AnyOp): Op<Tensor, BackwardParams> | undefined {
  return backwards.get(op)?.op();
}

// The machinery: a formula is a list of expressions of some inputs.

interface Formula<P> {
  readonly name: string;
  /** dtypes to derive with where the real ones are not known: which values a gradient reads is the same. */
  readonly standIns: (params: P) => readonly DType[];
  readonly outputs: (
    inputs: readonly Expr[],
    dtypes: readonly DType[],
    params: P,
  ) => readonly Expr[];
  readonly scalars: (dtypes: readonly DType[], params: P) => readonly ScalarValue[];
  /** Gradients of the first output, when not by differentiation. */
  readonly gradients:
    | ((terms: GradientTerms, params: P) => readonly (Expr | undefined)[])
    | undefined;
  readonly outDTypes: (inputs: readonly Aval[], params: P) => readonly DType[];
}

/** What one application of a backward op computes, and from what. */
export interface BackwardParams extends Params {
  /** Params of the op that this is the backward of. */
  readonly of: Params;
  /** dtypes of that op's inputs. */
  readonly dtypes: readonly DType[];
  /** Outputs of that op that have a cotangent. */
  readonly given: readonly number[];
  /** Inputs of that op that want a gradient: one output each, at full shape. */
  readonly wants: readonly number[];
}

type Slot =
  | { readonly kind: 'cotangent'; readonly index: number }
  | { readonly kind: 'input'; readonly index: number }
  | { readonly kind: 'output'; readonly index: number };

interface Program {
  /** Values it reads, in order. */
  readonly uses: readonly Slot[];
  /** One expression per wanted input; input k of them is `uses[k]`; undefined where zero. */
  readonly exprs: readonly (Expr | undefined)[];
}

const backwards = new WeakMap<object, { readonly op: () => Op<Tensor, BackwardParams> }>();
const programLimit = 512;

function formulaOp<P extends Params>(
  formula: Formula<P>,
  rest: {
    readonly args: readonly string[];
    /** Names of inputs for saving; undefined when numbered. */
    readonly names: readonly string[] | undefined;
    readonly traits: Partial<Traits> | undefined;
    readonly differentiable: boolean;
    readonly samples: readonly Sample<P>[];
  },
): Op<Tensor, P> {
  const backward = new Backward(formula);
  const savesOf = new WeakMap<object, Map<string, readonly 'out'[]>>();
  const nameOf = (slot: Slot): string => {
    if (slot.kind === 'output') return slot.index === 0 ? 'out' : `out${slot.index}`;
    return rest.names?.[slot.index] ?? `values${slot.index}`;
  };
  const infer = (inputs: readonly Aval[], params: P): Aval[] => {
    const shape = broadcastShapes(formula.name, ...inputs.map((x) => x.shape));
    return formula.outDTypes(inputs, params).map((dtype) => ({ shape, dtype }));
  };
  const exprsFor = (inputs: readonly Aval[], outputs: readonly Aval[], params: P): Expr[] => {
    const exprs = formula.outputs(
      inputs.map((x, i) => inputExpr(i, x)),
      inputs.map((x) => x.dtype),
      params,
    );
    return exprs.map((expr, k) => storedAs(expr, present(outputs[k])));
  };
  const op: Op<Tensor, P> = defineOp<P, readonly string[], string & 'out'>({
    name: formula.name,
    args: rest.args,
    traits: { class: 'elementwise', remat: 'cheap', ...rest.traits },
    infer,
    cost: (inputs, outputs, params) => {
      const each = flopsOf(exprsFor(inputs, outputs, params));
      return arithmeticCost(inputs, outputs, each * numElements(present(outputs[0]).shape));
    },
    saves: (params, needs) => {
      const dtypes = formula.standIns(params);
      const wants = range(dtypes.length).filter(needs);
      const key = wants.join();
      const known = savesOf.get(params)?.get(key);
      if (known) return known;
      const given = formula.outDTypes(asAvals(dtypes), params).map((_, k) => k);
      const program = backward.program({ of: params, dtypes, given, wants });
      const names = program.uses.flatMap((slot) =>
        slot.kind === 'cotangent' ? [] : [nameOf(slot) as 'out'],
      );
      const byNeeds = savesOf.get(params) ?? new Map<string, readonly 'out'[]>();
      savesOf.set(params, byNeeds.set(key, names));
      return names;
    },
    vjp: rest.differentiable
      ? (cotangents, context) =>
          backward.gradients(cotangents, context, (slot) => context.saved(nameOf(slot) as 'out'))
      : 'nondifferentiable',
    lower: {
      kind: 'kernel',
      template: (inputs, outputs, params): KernelTemplate => {
        const dtypes = inputs.map((x) => x.dtype);
        return broadcastTemplate(
          present(outputs[0]).shape,
          inputs,
          exprsFor(inputs, outputs, params),
          formula.scalars(dtypes, params),
        );
      },
    },
    samples: rest.samples,
  });
  if (rest.differentiable) backwards.set(op, { op: () => backward.op() });
  return op;
}

/** Makes and runs the backward of one formula. */
class Backward<P extends Params> {
  readonly #formula: Formula<P>;
  readonly #programs = new Map<string, Program>();
  readonly #byIdentity = new WeakMap<object, Program>();
  #op: Op<Tensor, BackwardParams> | undefined;

  constructor(formula: Formula<P>) {
    this.#formula = formula;
  }

  /** The backward as an op; made on first use, for it has a backward itself. */
  op(): Op<Tensor, BackwardParams> {
    this.#op ??= formulaOp(this.#asFormula(), {
      args: ['...values'],
      names: undefined,
      traits: undefined,
      differentiable: true,
      samples: [],
    });
    return this.#op;
  }

  program(params: BackwardParams): Program {
    const seen = this.#byIdentity.get(params);
    if (seen) return seen;
    const key = paramsKey(params);
    let program = this.#programs.get(key);
    if (!program) {
      program = this.#derive(params);
      if (this.#programs.size >= programLimit) this.#programs.clear();
      this.#programs.set(key, program);
    }
    this.#byIdentity.set(params, program);
    return program;
  }

  gradients(
    cotangents: readonly (Tensor | undefined)[],
    context: {
      readonly params: P;
      readonly inputs: readonly Aval[];
      readonly needs: (i: number) => boolean;
    },
    saved: (slot: Slot) => Tensor,
  ): (Tensor | undefined)[] {
    const { params, inputs } = context;
    const dtypes = inputs.map((x) => x.dtype);
    const given = range(cotangents.length).filter((k) => cotangents[k] !== undefined);
    const results = new Array<Tensor | undefined>(inputs.length).fill(undefined);
    const wants: number[] = [];
    const all = range(inputs.length).filter(
      (i) => context.needs(i) && isFloat(dtypes[i] ?? 'bool'),
    );
    const whole: BackwardParams = { of: params, dtypes, given, wants: all };
    const program = this.program(whole);
    all.forEach((input, k) => {
      const expr = program.exprs[k];
      if (!expr) return;
      const slot = expr.kind === 'input' ? program.uses[expr.index] : undefined;
      // A gradient that is just the cotangent needs no kernel.
      if (slot?.kind === 'cotangent') results[input] = cotangents[slot.index];
      else wants.push(input);
    });
    if (wants.length > 0) {
      const asked = wants.length === all.length ? whole : { ...whole, wants };
      const values = this.program(asked).uses.map((slot) =>
        slot.kind === 'cotangent' ? present(cotangents[slot.index]) : saved(slot),
      );
      const made = apply(this.op(), values, asked);
      wants.forEach((input, k) => {
        results[input] = made[k];
      });
    }
    return results.map((result, i) => result && gradientTo(result, present(inputs[i])));
  }

  #derive({ of, dtypes, given, wants }: BackwardParams): Program {
    const formula = this.#formula;
    const params = of as P;
    const inputs = dtypes.map((dtype, i) => e.input(i, computeType(dtype)));
    const outputs = formula.outputs(inputs, dtypes, params);
    // Placeholders far from input numbers; renumbered below to what is really read.
    const cotangents = outputs.map((_, k) => e.input(cotangentBase + k));
    const results = outputs.map((_, k) => e.input(outputBase + k));
    const [g, out] = [cotangents[0], results[0]];
    const all =
      formula.gradients && g && out
        ? formula.gradients({ g, out, inputs }, params)
        : gradientExprs(
            given.map((k) => present(outputs[k])),
            given.map((k) => present(cotangents[k])),
            inputs,
          );
    const asked = wants.map((i) => all[i]);
    const slots = new Map<Expr, Slot>();
    inputs.forEach((x, index) => slots.set(x, { kind: 'input', index }));
    cotangents.forEach((x, index) => slots.set(x, { kind: 'cotangent', index }));
    results.forEach((x, index) => slots.set(x, { kind: 'output', index }));
    const read = leavesOf(asked);
    const used = [...slots.keys()].filter((leaf) => read.has(leaf));
    const renumber = new Map(used.map((leaf, k) => [leaf, e.input(k, leaf.type)]));
    const done = new Map<Expr, Expr>();
    return {
      uses: used.map((leaf) => present(slots.get(leaf))),
      exprs: asked.map((expr) => expr && mapExpr(expr, (node) => renumber.get(node) ?? node, done)),
    };
  }

  #asFormula(): Formula<BackwardParams> {
    const formula = this.#formula;
    return {
      name: `${formula.name}Backward`,
      standIns: (params) =>
        this.program(params).uses.map((slot) =>
          slot.kind === 'input' ? (params.dtypes[slot.index] ?? 'float32') : 'float32',
        ),
      outputs: (inputs, _, params) =>
        this.program(params).exprs.map((expr) =>
          mapExpr(expr ?? e.f32(0), (node) =>
            node.kind === 'input' ? present(inputs[node.index]) : node,
          ),
        ),
      scalars: (_, params) => formula.scalars(params.dtypes, params.of as P),
      gradients: undefined,
      outDTypes: (inputs, params) => {
        const first = this.program(params).uses.findIndex((slot) => slot.kind === 'cotangent');
        const dtype = inputs[first]?.dtype ?? 'float32';
        return params.wants.map(() => dtype);
      },
    };
  }
}

const cotangentBase = 1 << 20;
const outputBase = 1 << 21;

function leavesOf(roots: readonly (Expr | undefined)[]): Set<Expr> {
  const seen = new Set<Expr>();
  const visit = (node: Expr): void => {
    if (seen.has(node)) return;
    seen.add(node);
    for (const part of operands(node)) visit(part);
  };
  for (const root of roots) if (root) visit(root);
  return seen;
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

function asAvals(dtypes: readonly DType[]): Aval[] {
  return dtypes.map((dtype) => ({ shape: [], dtype }));
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}
