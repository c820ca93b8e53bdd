/**
 * Normal form of a KernelSpec: the same values with the fewest axes, so that every code generator meets
 * few shapes of loop nest. Axes of size one go, equal inputs become one, and neighbouring axes that all
 * operands step through as if they were one are merged.
 *
 * What is kept: the relative order of the reduced axes, and whether the innermost axis (of size above
 * one) is reduced; so the order of every reduction (see kernel.ts) stays. Without `linear` nodes the
 * other axes are reordered: kept axes by the steps of the first output, largest first, so that work on
 * permuted tensors runs along memory; reduced axes before them, or behind them when the innermost axis
 * is reduced. With `linear` nodes all axes keep their order, because `linear` is the row-major index in it.
 */

import {
  type BinaryOp,
  type ComputeType,
  type Expr,
  e,
  mapExpr,
  operands,
  type ReduceOp,
} from './expr.ts';
import type { KernelInput, KernelOutput, KernelSpec } from './kernel.ts';

/** How the loops of a normalized kernel lie: what the innermost axis is. */
export type KernelShape =
  | 'pointwise' // nothing is reduced
  | 'row' // the innermost axis is reduced: 16 interleaved partials
  | 'column'; // the innermost axis is kept, others are reduced one by one

/** The equal kernel with the fewest axes. Its `space` may be empty: a single point. */
export function normalizeKernel(spec: KernelSpec): KernelSpec {
  const outputs = spec.outputs.map((output) => output.expr);
  const used = surveyExprs(outputs);
  const reduced = new Set(used.reduces ? spec.reduced : []);

  // Size-one axes go first: they decide neither strides nor order.
  let axes = spec.space.map((_, axis) => axis).filter((axis) => spec.space[axis] !== 1);
  if (!used.linear) axes = reorder(axes, reduced, spec.outputs[0]?.strides ?? []);

  const groups: number[][] = [];
  for (const axis of axes) {
    const last = groups.at(-1);
    const outer = last?.at(-1);
    if (last && outer !== undefined && mergeable(spec, outer, axis, reduced, used.coords))
      last.push(axis);
    else groups.push([axis]);
  }

  const position = new Map<number, number>();
  groups.forEach((group, i) => {
    for (const axis of group) position.set(axis, i);
  });
  const size = (axis: number): number => spec.space[axis] ?? 1;
  const strides = (given: readonly number[]): number[] =>
    groups.map((group) => given[group.at(-1) ?? -1] ?? 0);
  const { inputs, rename } = distinctInputs(spec.inputs, strides);
  const nothingReduced = !groups.some((group) => group.some((axis) => reduced.has(axis)));

  const done = new Map<Expr, Expr>();
  const rewrite = (node: Expr): Expr => {
    if (node.kind === 'coord') {
      const at = position.get(node.axis);
      return at === undefined ? e.i32(0) : e.coord(at);
    }
    if (node.kind === 'input') return e.input(rename[node.index] ?? node.index, node.type);
    if (node.kind === 'reduce' && nothingReduced) {
      // A row of one element: the neutral element takes it in, which matters for -0.
      return e.binary(reduceCombine[node.op], reduceNeutral(node.op, node.type), node.x);
    }
    return node;
  };
  return {
    space: groups.map((group) => group.reduce((product, axis) => product * size(axis), 1)),
    reduced: groups.flatMap((group, i) => (group.some((axis) => reduced.has(axis)) ? [i] : [])),
    inputs,
    outputs: spec.outputs.map(
      (output): KernelOutput => ({
        ...output,
        strides: strides(output.strides),
        expr: mapExpr(output.expr, rewrite, done),
      }),
    ),
    operands: spec.operands,
    scalars: spec.scalars,
  };
}

/** The loop shape of a normalized kernel. */
export function kernelShape(spec: KernelSpec): KernelShape {
  if (spec.reduced.length === 0) return 'pointwise';
  return spec.reduced.includes(spec.space.length - 1) ? 'row' : 'column';
}

/** The binary op that takes one more element into a reduction. */
export const reduceCombine: Readonly<Record<ReduceOp, BinaryOp>> = {
  sum: 'add',
  prod: 'mul',
  max: 'max',
  min: 'min',
};

/** The value a reduction starts from. */
export function reduceNeutral(op: ReduceOp, type: ComputeType): Expr {
  return e.constant(neutralValues[op][type], type);
}

const neutralValues: Readonly<Record<ReduceOp, Readonly<Record<ComputeType, number>>>> = {
  sum: { f32: 0, i32: 0, u32: 0, bool: 0 },
  prod: { f32: 1, i32: 1, u32: 1, bool: 1 },
  max: { f32: Number.NEGATIVE_INFINITY, i32: -(2 ** 31), u32: 0, bool: 0 },
  min: { f32: Number.POSITIVE_INFINITY, i32: 2 ** 31 - 1, u32: 2 ** 32 - 1, bool: 1 },
};

/** Which position-dependent nodes some expressions hold. */
export function surveyExprs(roots: readonly Expr[]): {
  readonly linear: boolean;
  readonly reduces: boolean;
  /** Axes that `coord` nodes name. */
  readonly coords: ReadonlySet<number>;
} {
  const seen = new Set<Expr>();
  const coords = new Set<number>();
  let linear = false;
  let reduces = false;
  const visit = (node: Expr): void => {
    if (seen.has(node)) return;
    seen.add(node);
    if (node.kind === 'coord') coords.add(node.axis);
    if (node.kind === 'linear') linear = true;
    if (node.kind === 'reduce') reduces = true;
    operands(node).forEach(visit);
  };
  roots.forEach(visit);
  return { linear, reduces, coords };
}

function reorder(
  axes: readonly number[],
  reduced: ReadonlySet<number>,
  strides: readonly number[],
): number[] {
  const step = (axis: number): number => Math.abs(strides[axis] ?? 0);
  const kept = axes.filter((axis) => !reduced.has(axis)).sort((a, b) => step(b) - step(a));
  const rest = axes.filter((axis) => reduced.has(axis));
  return reduced.has(axes.at(-1) ?? -1) ? [...kept, ...rest] : [...rest, ...kept];
}

/** Whether `inner` is stepped through by all operands as the continuation of `outer`. */
function mergeable(
  spec: KernelSpec,
  outer: number,
  inner: number,
  reduced: ReadonlySet<number>,
  coords: ReadonlySet<number>,
): boolean {
  if (reduced.has(outer) !== reduced.has(inner)) return false;
  if (coords.has(outer) || coords.has(inner)) return false;
  const dim = spec.space[inner] ?? 1;
  return [...spec.inputs, ...spec.outputs].every(
    ({ strides }) => (strides[outer] ?? 0) === (strides[inner] ?? 0) * dim,
  );
}

/** Inputs without repeats, and the place of each given input among them. */
function distinctInputs(
  inputs: readonly KernelInput[],
  strides: (given: readonly number[]) => number[],
): { inputs: KernelInput[]; rename: number[] } {
  const distinct: KernelInput[] = [];
  const byText = new Map<string, number>();
  const rename = inputs.map((input) => {
    const merged = { ...input, strides: strides(input.strides) };
    const text = `${input.operand} ${input.dtype} ${input.offset} ${merged.strides.join()}`;
    let index = byText.get(text);
    if (index === undefined) {
      index = distinct.length;
      distinct.push(merged);
      byText.set(text, index);
    }
    return index;
  });
  return { inputs: distinct, rename };
}
