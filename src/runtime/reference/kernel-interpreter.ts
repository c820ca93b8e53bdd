/**
 * Runs a KernelSpec with plain loops in float64: the meaning of kernels that the generated code is
 * tested against. Floats are never rounded to narrower types, neither in between nor when stored;
 * integers and random words are exact. Reductions run in row-major order, so only their rounding
 * differs from the order that kernel.ts fixes.
 *
 * Operand storage: one float64 slot per byte of the block; element i of a dtype that is w bytes wide
 * lies in slot `start + i * w`.
 */

import { bytesPerElement, type DType } from '../../core/dtype.ts';
import { invariant } from '../../core/errors.ts';
import { type ComputeType, type Expr, linearizeExprs } from '../../ir/expr.ts';
import type { KernelInput, KernelSpec } from '../../ir/kernel.ts';
import { normalizeKernel, reduceCombine, reduceNeutral } from '../../ir/kernel-space.ts';
import { binaryFunction, castFunction, philoxWord, unaryFunction } from './scalar-functions.ts';

export interface ReferenceOperand {
  readonly data: Float64Array;
  /** Slot of the operand's first byte. */
  readonly start: number;
}

/** Evaluates all points of the kernel's space. `scalars` are the launch's scalars, in order. */
export function runKernel(
  spec: KernelSpec,
  operands: readonly ReferenceOperand[],
  scalars: readonly number[],
): void {
  const kernel = normalizeKernel(spec);
  const { space } = kernel;
  const program = linearizeExprs(kernel.outputs.map((output) => output.expr));
  const { lines } = program;
  const rank = space.length;
  const isReduced = space.map((_, axis) => kernel.reduced.includes(axis));
  const kept = axesWhere(isReduced, false);
  const reduced = axesWhere(isReduced, true);
  const coords = new Array<number>(rank).fill(0);
  const values = new Float64Array(Math.max(lines.length, 1));

  const slotOf = (access: KernelInput): (() => number) => {
    const operand = operands[access.operand];
    invariant(operand, () => `runKernel: operand ${access.operand} is missing`);
    const width = bytesPerElement(access.dtype);
    const base = operand.start + access.offset * width;
    const steps = access.strides.map((stride) => stride * width);
    return () => {
      let slot = base;
      for (let axis = 0; axis < rank; axis++) slot += coords[axis]! * steps[axis]!;
      return slot;
    };
  };
  const evaluators = lines.map(({ node, operands: parts }) =>
    evaluator(node, parts, values, {
      load: (index) => {
        const access = kernel.inputs[index]!;
        const slot = slotOf(access);
        const { data } = operands[access.operand]!;
        return () => data[slot()]!;
      },
      scalar: (index) => scalars[index] ?? 0,
      coords,
      space,
    }),
  );

  // Which lines each pass evaluates: those a reduction of that stage, or an output, depends on.
  const stages = lines.map(() => 0);
  lines.forEach(({ node, operands: parts }, i) => {
    stages[i] =
      Math.max(0, ...parts.map((part) => stages[part]!)) + (node.kind === 'reduce' ? 1 : 0);
  });
  const needed = (roots: readonly number[]): number[] => {
    const want = new Set<number>();
    const visit = (line: number): void => {
      if (want.has(line) || lines[line]!.node.kind === 'reduce') return;
      want.add(line);
      lines[line]!.operands.forEach(visit);
    };
    roots.forEach(visit);
    return [...want].sort((a, b) => a - b);
  };
  const passes: { run: () => void }[] = [];
  for (let stage = 1; stage <= Math.max(0, ...stages); stage++) {
    const reduces = lines.flatMap(({ node, operands: parts }, line) =>
      node.kind === 'reduce' && stages[line] === stage
        ? [
            {
              line,
              from: parts[0]!,
              neutral: reduceNeutral(node.op, node.type),
              combine: binaryFunction(reduceCombine[node.op], node.type),
            },
          ]
        : [],
    );
    const work = needed(reduces.map(({ from }) => from));
    passes.push({
      run: () => {
        const sums = reduces.map(({ neutral }) => (neutral.kind === 'const' ? neutral.value : 0));
        forEachPoint(space, reduced, coords, () => {
          for (const line of work) values[line] = evaluators[line]!();
          reduces.forEach(({ from, combine }, i) => {
            sums[i] = combine(sums[i]!, values[from]!);
          });
        });
        reduces.forEach(({ line }, i) => {
          values[line] = sums[i]!;
        });
      },
    });
  }

  const stores = kernel.outputs.map((output, i) => {
    const perRow = reduced.every((axis) => output.strides[axis] === 0);
    const slot = slotOf(output);
    const { data } = operands[output.operand]!;
    const root = program.roots[i]!;
    const stored = storeFunction(output.dtype);
    return { perRow, root, run: () => (data[slot()] = stored(values[root]!)) };
  });
  const pointStores = stores.filter((store) => !store.perRow);
  const rowStores = stores.filter((store) => store.perRow);
  const pointWork = needed(pointStores.map((store) => store.root));
  const rowWork = needed(rowStores.map((store) => store.root));
  forEachPoint(space, kept, coords, () => {
    for (const pass of passes) pass.run();
    // Per-row values are read at the row's first point, before any output is written.
    for (const axis of reduced) coords[axis] = 0;
    for (const line of rowWork) values[line] = evaluators[line]!();
    const rowValues = rowStores.map(({ root }) => values[root]!);
    if (pointStores.length > 0) {
      forEachPoint(space, reduced, coords, () => {
        for (const line of pointWork) values[line] = evaluators[line]!();
        for (const store of pointStores) store.run();
      });
      for (const axis of reduced) coords[axis] = 0;
    }
    rowStores.forEach((store, i) => {
      values[store.root] = rowValues[i]!;
      store.run();
    });
  });
}

interface Sources {
  readonly load: (index: number) => () => number;
  readonly scalar: (index: number) => number;
  readonly coords: readonly number[];
  readonly space: readonly number[];
}

/** A function that computes one line from the values of the lines before it. */
function evaluator(
  node: Expr,
  parts: readonly number[],
  values: Float64Array,
  sources: Sources,
): () => number {
  const [a = 0, b = 0, c = 0] = parts;
  switch (node.kind) {
    case 'input':
      return sources.load(node.index);
    case 'const': {
      const value = asType(node.value, node.type);
      return () => value;
    }
    case 'scalar': {
      const value = asType(sources.scalar(node.index), node.type);
      return () => value;
    }
    case 'coord':
      return () => sources.coords[node.axis] ?? 0;
    case 'linear':
      return () => {
        let index = 0;
        for (let axis = 0; axis < sources.space.length; axis++) {
          index = index * sources.space[axis]! + sources.coords[axis]!;
        }
        return index >>> 0;
      };
    case 'unary': {
      const run = unaryFunction(node.op, node.x.type);
      return () => run(values[a]!);
    }
    case 'binary': {
      const run = binaryFunction(node.op, node.a.type);
      return () => run(values[a]!, values[b]!);
    }
    case 'fma':
      return () => values[a]! * values[b]! + values[c]!;
    case 'select':
      return () => (values[a] ? values[b]! : values[c]!);
    case 'cast': {
      const run = castFunction(node.x.type, node.type);
      return () => run(values[a]!);
    }
    case 'reduce':
      return () => values[parts[0]!]!;
    case 'random': {
      const word = philoxWord(node.draw);
      return () =>
        word(
          values[parts[0]!]!,
          values[parts[1]!]!,
          values[parts[2]!]!,
          values[parts[3]!]!,
          values[parts[4]!]!,
        );
    }
  }
}

function asType(value: number, type: ComputeType): number {
  switch (type) {
    case 'f32':
      return value;
    case 'i32':
      return value | 0;
    case 'u32':
      return value >>> 0;
    case 'bool':
      return value ? 1 : 0;
  }
}

/** What a store keeps of a value: integers wrap, bool is 0 or 1, floats stay as they are. */
function storeFunction(dtype: DType): (value: number) => number {
  switch (dtype) {
    case 'int8':
      return (value) => (value << 24) >> 24;
    case 'int32':
      return (value) => value | 0;
    case 'uint32':
      return (value) => value >>> 0;
    case 'bool':
      return (value) => (value ? 1 : 0);
    default:
      return (value) => value;
  }
}

function axesWhere(flags: readonly boolean[], wanted: boolean): number[] {
  return flags.flatMap((flag, axis) => (flag === wanted ? [axis] : []));
}

/** Calls `visit` for every setting of `axes`, row-major; the other coordinates stay. */
function forEachPoint(
  space: readonly number[],
  axes: readonly number[],
  coords: number[],
  visit: () => void,
): void {
  for (const axis of axes) {
    if (space[axis] === 0) return;
    coords[axis] = 0;
  }
  for (;;) {
    visit();
    let i = axes.length - 1;
    for (; i >= 0; i--) {
      const axis = axes[i]!;
      const next = coords[axis]! + 1;
      if (next < space[axis]!) {
        coords[axis] = next;
        break;
      }
      coords[axis] = 0;
    }
    if (i < 0) return;
  }
}
