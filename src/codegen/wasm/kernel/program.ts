/**
 * What the generator knows about a normalized kernel before it emits code: its expressions as numbered
 * lines, along which axes each line varies, after which pass over a row it can be computed, and which
 * lines a pass must evaluate.
 */

import { invariant } from '../../../core/errors.ts';
import { type Expr, linearizeExprs, type UnaryOp } from '../../../ir/expr.ts';
import type { KernelInput, KernelOutput, KernelSpec } from '../../../ir/kernel.ts';

export interface Line {
  readonly node: Expr;
  readonly operands: readonly number[];
  /** Bit a is set when the value varies along axis a. */
  readonly varies: number;
  /** Number of passes over the row that must have ended before the value can be computed. */
  readonly stage: number;
}

export interface KernelProgram {
  readonly spec: KernelSpec;
  readonly lines: readonly Line[];
  /** Line of each output. */
  readonly roots: readonly number[];
  /** The innermost axis: vectors run along it. */
  readonly vectorAxis: number;
  /** Bits of the reduced axes. */
  readonly reducedMask: number;
  /** Row-major steps of the whole space. */
  readonly weights: readonly number[];
  /** Outputs that are stored once per row, not at each point. */
  readonly perRow: readonly boolean[];
  /** Passes that reductions need before the outputs of each point can be computed. */
  readonly stages: number;
}

/** Analyses a normalized kernel with at least one axis. */
export function kernelProgram(spec: KernelSpec): KernelProgram {
  const { space } = spec;
  invariant(
    space.length > 0 && space.length <= 30,
    () => `kernelProgram: want 1 to 30 axes, got ${space.length}`,
  );
  const reducedMask = spec.reduced.reduce((mask, axis) => mask | (1 << axis), 0);
  const linear = linearizeExprs(spec.outputs.map((output) => output.expr));
  const lines: Line[] = [];
  for (const { node, operands } of linear.lines) {
    const parts = operands.map((operand) => lines[operand]!);
    const below = parts.reduce((mask, part) => mask | part.varies, 0);
    const stage = Math.max(0, ...parts.map((part) => part.stage));
    lines.push({
      node,
      operands,
      varies: node.kind === 'reduce' ? below & ~reducedMask : below | ownVariation(spec, node),
      stage: node.kind === 'reduce' ? stage + 1 : stage,
    });
  }
  const weights = new Array<number>(space.length);
  let weight = 1;
  for (let axis = space.length - 1; axis >= 0; axis--) {
    weights[axis] = weight;
    weight *= space[axis]!;
  }
  return {
    spec,
    lines,
    roots: linear.roots,
    vectorAxis: space.length - 1,
    reducedMask,
    weights,
    perRow: spec.outputs.map((output) => spec.reduced.every((axis) => output.strides[axis] === 0)),
    stages: Math.max(0, ...lines.map((line) => line.stage)),
  };
}

/** The lines to evaluate for `roots`, in order, down to those that `known` says are at hand. */
export interface PassPlan {
  readonly order: readonly number[];
  /** How often each line is read by other lines of the pass or as a root. */
  readonly uses: ReadonlyMap<number, number>;
  readonly roots: readonly number[];
}

export function planPass(
  program: KernelProgram,
  roots: readonly number[],
  known: (line: number) => boolean,
): PassPlan {
  const uses = new Map<number, number>();
  const visit = (line: number): void => {
    if (known(line)) return;
    const count = uses.get(line) ?? 0;
    uses.set(line, count + 1);
    if (count === 0) program.lines[line]!.operands.forEach(visit);
  };
  roots.forEach(visit);
  return { order: [...uses.keys()].sort((a, b) => a - b), uses, roots };
}

/** A value of one pass that later passes read back instead of computing it again. */
export interface KeptValue {
  readonly line: number;
  readonly output: number;
  /** The pass that computes it. */
  readonly stage: number;
}

/**
 * Costly values that one reduction pass computes and a later pass needs again, each with a float32
 * output in whose place it can wait. That is safe when no later pass reads an input that may lie at
 * the same address as that output: one with the same strides.
 */
export function keptValues(
  program: KernelProgram,
  unitLevel: (line: number) => boolean,
): KeptValue[] {
  const { spec, lines, perRow, roots } = program;
  const kept: KeptValue[] = [];
  const pointOutputs = spec.outputs.flatMap((output, i) =>
    !perRow[i] && output.dtype === 'float32' ? [{ output, i }] : [],
  );
  if (pointOutputs.length === 0) return kept;
  const rootsOf = (stage: number): number[] =>
    stage > program.stages
      ? roots.filter((_, i) => !perRow[i])
      : lines.flatMap((line) =>
          line.node.kind === 'reduce' && line.stage === stage ? [line.operands[0]!] : [],
        );
  for (let stage = 1; stage <= program.stages; stage++) {
    const now = planPass(program, rootsOf(stage), unitLevel);
    const candidates = now.order.filter(
      (line) => lines[line]!.node.type === 'f32' && isCostly(lines[line]!.node),
    );
    for (const line of candidates.toReversed()) {
      const known = (other: number): boolean =>
        unitLevel(other) || other === line || kept.some((value) => value.line === other);
      const later = Array.from({ length: program.stages + 1 - stage }, (_, i) =>
        planPass(program, rootsOf(stage + 1 + i), (x) => unitLevel(x)),
      );
      if (!later.some((plan) => plan.uses.has(line))) continue;
      const loads = Array.from({ length: program.stages + 1 - stage }, (_, i) =>
        planPass(program, rootsOf(stage + 1 + i), known),
      )
        .flatMap((plan) => plan.order)
        .flatMap((other) => {
          const { node } = lines[other]!;
          return node.kind === 'input' ? [spec.inputs[node.index]!] : [];
        });
      const place = pointOutputs.find(
        ({ output, i }) =>
          !kept.some((value) => value.output === i) &&
          !loads.some((input) => sameStrides(input, output)),
      );
      if (place) kept.push({ line, output: place.i, stage });
    }
  }
  return kept;
}

/** Rough work of evaluating a line for four lanes, in simple instructions. */
export function lineCost(node: Expr): number {
  switch (node.kind) {
    case 'unary':
      return unaryCosts[node.op] ?? 1;
    case 'binary':
      if (node.op === 'pow') return 120;
      if (node.op === 'div' || node.op === 'rem') return node.type === 'f32' ? 4 : 20;
      return 1;
    case 'random':
      return 60;
    default:
      return 1;
  }
}

const unaryCosts: Partial<Record<UnaryOp, number>> = {
  exp: 25,
  expm1: 25,
  log: 30,
  log1p: 40,
  sqrt: 5,
  rsqrt: 9,
  reciprocal: 4,
  sin: 60,
  cos: 60,
  tanh: 35,
  erf: 50,
  sigmoid: 35,
};

function isCostly(node: Expr): boolean {
  return lineCost(node) >= 25;
}

function ownVariation(spec: KernelSpec, node: Expr): number {
  switch (node.kind) {
    case 'input':
      return (spec.inputs[node.index]?.strides ?? []).reduce(
        (mask, stride, axis) => (stride === 0 ? mask : mask | (1 << axis)),
        0,
      );
    case 'coord':
      return 1 << node.axis;
    case 'linear':
      return (1 << spec.space.length) - 1;
    default:
      return 0;
  }
}

function sameStrides(a: KernelInput, b: KernelOutput): boolean {
  return a.strides.every((stride, axis) => stride === b.strides[axis]);
}
