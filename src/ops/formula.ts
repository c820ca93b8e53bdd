/**
 * Formulas: lists of scalar expressions of broadcast inputs, made into ops. An elementwise op is a formula,
 * and so is its backward, whose inputs are the cotangents and whatever saved values its expressions
 * read. The backward of a backward is made on first use.
 */

import { type DType, isFloat } from '../core/dtype.ts';
import { broadcastShapes, numElements } from '../core/shape.ts';
import type { Aval } from '../ir/aval.ts';
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

/** What a gradient expression may read: the cotangent, the output, and the inputs by position. */
export interface GradientTerms {
  readonly g: Expr;
  readonly out: Expr;
  readonly inputs: readonly Expr[];
}

/** Expressions of some inputs, with their gradients. */
export interface Formula<P> {
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

/** The op of a formula. */
export function formulaOp<P extends Params>(
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

/** The backward op of an elementwise op; undefined for ops without gradients. */
export function backwardOf(op: AnyOp): Op<Tensor, BackwardParams> | undefined {
  return backwards.get(op)?.op();
}

/** Avals of these dtypes, for asking what does not depend on shapes. */
export function asAvals(dtypes: readonly DType[]): Aval[] {
  return dtypes.map((dtype) => ({ shape: [], dtype }));
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}
