/**
 * A kernel group: nodes that run as one kernel. It holds one KernelTemplate whose expressions are those
 * of its members, with values that pass between members inlined.
 */

import type { DType } from '../core/dtype.ts';
import { definite } from '../core/errors.ts';
import type { Node, Value } from '../ir/graph.ts';
import { type Expr, e, mapExpr } from '../ir/expr.ts';
import type { KernelTemplate, TemplateInput } from '../ir/op.ts';
import type { Layout, Shape } from '../core/shape.ts';

export interface GroupOutput {
  readonly value: Value;
  readonly axes: readonly number[];
  readonly expr: Expr;
  readonly relayout?: (layout: Layout, shape: Shape) => Layout;
}

export interface KernelGroup {
  readonly nodes: Node[];
  readonly space: readonly number[];
  reduced: readonly number[];
  /** Distinct values read from memory. */
  readonly operands: Value[];
  /** `operand` counts `operands`. */
  readonly inputs: TemplateInput[];
  readonly outputs: GroupOutput[];
  readonly scalars: { readonly type: 'f32' | 'i32' | 'u32' | 'bool'; readonly value: number }[];
}

/** Limits that keep generated code and register pressure reasonable. */
const maxOperands = 14;
const maxOutputs = 8;
const maxExprNodes = 400;

export function templateOf(node: Node): KernelTemplate | undefined {
  if (node.op?.lower.kind !== 'kernel') return undefined;
  return node.op.lower.template(
    node.inputs.map((value) => value.aval),
    node.outputs.map((value) => value.aval),
    node.params,
  );
}

export function groupOf(
  node: Node,
  template: KernelTemplate,
  inlined: ReadonlyMap<Value, InlineSource> = new Map(),
): KernelGroup {
  const group: KernelGroup = {
    nodes: [],
    space: template.space,
    reduced: [],
    operands: [],
    inputs: [],
    outputs: [],
    scalars: [],
  };
  absorb(group, node, template, inlined);
  return group;
}

/** How a value can be read inside a group without going through memory. */
export interface InlineSource {
  /** As in TemplateOutput; undefined for a value that is the same everywhere. */
  readonly axes: readonly number[] | undefined;
  readonly expr: Expr;
}

export function innerOutput(group: KernelGroup, value: Value): InlineSource | undefined {
  const found = group.outputs.find((output) => output.value === value);
  return found && !found.relayout ? found : undefined;
}

/** The expression of a node that fills its output with one value; undefined for all others. */
export function fillOf(template: KernelTemplate): Expr | undefined {
  const [output, ...others] = template.outputs;
  if (!output || others.length > 0 || template.inputs.length > 0) return undefined;
  let uniform = true;
  const expr = mapExpr(output.expr, (x) => {
    if (x.kind === 'coord' || x.kind === 'linear' || x.kind === 'random') uniform = false;
    // The number is fixed in the trace: as a constant it can be read inside any kernel.
    const scalar = x.kind === 'scalar' ? template.scalars?.[x.index] : undefined;
    return scalar ? { kind: 'const', value: scalar.value, type: scalar.type } : x;
  });
  return uniform ? expr : undefined;
}

/**
 * Whether `node` can become part of `group` and read `inlined` values from its expressions. Beside equal
 * spaces: reductions must run over the same axes, and column reductions stay single-stage.
 */
export function fits(group: KernelGroup, node: Node, template: KernelTemplate): boolean {
  if (!sameList(group.space, template.space)) return false;
  const both = group.reduced.length > 0 && template.reduced.length > 0;
  if (both && !sameList(group.reduced, template.reduced)) return false;
  const reduced = both || template.reduced.length === 0 ? group.reduced : template.reduced;
  if (reduced.length > 0 && !innermostReduced(group.space, reduced)) return false;
  if (group.outputs.length + template.outputs.length > maxOutputs) return false;
  const fresh = node.inputs.filter((value) => !group.operands.includes(value)).length;
  return group.operands.length + fresh + group.outputs.length <= maxOperands;
}

/** Adds a node; inputs found in `inlined` are read as expressions. */
export function absorb(
  group: KernelGroup,
  node: Node,
  template: KernelTemplate,
  inlined: ReadonlyMap<Value, InlineSource>,
): boolean {
  const sources: Expr[] = [];
  const pending: { operand: Value; input: TemplateInput }[] = [];
  for (const input of template.inputs) {
    const value = definite(node.inputs[input.operand]);
    const source = inlined.get(value);
    const direct =
      source &&
      (source.axes === undefined || (!input.relayout && sameList(source.axes, input.axes)));
    if (source && !direct) return false;
    if (source) {
      sources.push(asStored(source.expr, value.aval.dtype));
      continue;
    }
    const index = inputIndex(group, pending, value, input);
    sources.push({
      kind: 'input',
      index,
      type: inputType(template, template.inputs.indexOf(input)),
    });
  }
  const scalarBase = group.scalars.length;
  const done = new Map<Expr, Expr>();
  const outputs = template.outputs.map((output, k): GroupOutput => {
    const expr = mapExpr(
      output.expr,
      (x) => {
        if (x.kind === 'input') return definite(sources[x.index]);
        if (x.kind === 'scalar') return { ...x, index: x.index + scalarBase };
        return x;
      },
      done,
    );
    const base = { value: definite(node.outputs[k]), axes: output.axes, expr };
    return output.relayout ? { ...base, relayout: output.relayout } : base;
  });
  if (done.size > maxExprNodes && group.nodes.length > 0) return false;
  for (const { operand, input } of pending) {
    let position = group.operands.indexOf(operand);
    if (position < 0) position = group.operands.push(operand) - 1;
    group.inputs.push({ ...input, operand: position });
  }
  group.outputs.push(...outputs);
  group.scalars.push(...(template.scalars ?? []));
  group.nodes.push(node);
  if (template.reduced.length > 0) group.reduced = template.reduced;
  return true;
}

/** What a reader would find in memory: 16-bit floats are rounded, fused or not. */
function asStored(expr: Expr, dtype: DType): Expr {
  if (dtype === 'float16') return e.unary('roundF16', expr);
  if (dtype === 'bfloat16') return e.unary('roundBf16', expr);
  return expr;
}

function inputIndex(
  group: KernelGroup,
  pending: { operand: Value; input: TemplateInput }[],
  value: Value,
  input: TemplateInput,
): number {
  const same = (other: TemplateInput): boolean =>
    !input.relayout && !other.relayout && sameList(other.axes, input.axes);
  const operand = group.operands.indexOf(value);
  const known = group.inputs.findIndex((other) => other.operand === operand && same(other));
  if (operand >= 0 && known >= 0) return known;
  const waiting = pending.findIndex((entry) => entry.operand === value && same(entry.input));
  if (waiting >= 0) return group.inputs.length + waiting;
  return group.inputs.length + pending.push({ operand: value, input }) - 1;
}

/** Compute type with which a template reads input `index`. */
function inputType(template: KernelTemplate, index: number): 'f32' | 'i32' | 'u32' | 'bool' {
  let found: 'f32' | 'i32' | 'u32' | 'bool' = 'f32';
  const seen = new Map<Expr, Expr>();
  for (const output of template.outputs) {
    mapExpr(
      output.expr,
      (x) => {
        if (x.kind === 'input' && x.index === index) found = x.type;
        return x;
      },
      seen,
    );
  }
  return found;
}

/** Whether the reduced axes are the last ones, sizes of one aside: rows lie inside each other. */
export function innermostReduced(space: readonly number[], reduced: readonly number[]): boolean {
  let axis = space.length - 1;
  let left = reduced.filter((r) => space[r] !== 1).length;
  for (; axis >= 0 && left > 0; axis--) {
    if (space[axis] === 1) continue;
    if (!reduced.includes(axis)) return false;
    left--;
  }
  return true;
}

export function sameList(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((x, i) => x === b[i]);
}
