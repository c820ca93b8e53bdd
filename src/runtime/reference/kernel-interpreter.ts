/**
 * Runs a KernelSpec with plain loops in float64: the meaning of kernels that the generated code is
 * tested against. Floats are never rounded to narrower types, neither in between nor when stored;
 * integers and random words are exact. Reductions run in row-major order, so only their rounding
 * differs from the order that kernel.ts fixes.
 *
 * Each line of the expressions is evaluated for a stretch of the innermost axis at a time, into a
 * buffer of its own, so that choosing what to do costs little beside doing it.
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

/** Elements of the innermost axis that are evaluated together, at most. */
const stretchLength = 1024;

/** Evaluates all points of the kernel's space. `scalars` are the launch's scalars, in order. */
export function runKernel(
  spec: KernelSpec,
  operands: readonly ReferenceOperand[],
  scalars: readonly number[],
): void {
  const kernel = withAxis(normalizeKernel(spec));
  const run = new KernelRun(kernel, operands, scalars);
  const { space } = kernel;
  const inner = space.length - 1;
  const innerReduced = kernel.reduced.includes(inner);
  const kept = space.flatMap((_, axis) => (kernel.reduced.includes(axis) ? [] : [axis]));
  if (innerReduced) {
    forEachPoint(space, kept, run.coords, () => run.row());
    return;
  }
  // A unit is a stretch of columns; without reductions, of elements.
  forEachPoint(space, kept.slice(0, -1), run.coords, () => {
    forEachStretch(space[inner]!, (first, count) => {
      run.setStretch(first, count);
      run.row();
    });
  });
}

/** Buffers, evaluators and passes of one run. */
class KernelRun {
  readonly coords: number[];
  private readonly kernel: KernelSpec;
  private readonly operands: readonly ReferenceOperand[];
  private readonly scalars: readonly number[];
  private readonly inner: number;
  private readonly values: readonly Float64Array[];
  private readonly passes: readonly (() => void)[];
  /** Elements of the current stretch; its first one is coords[inner]. */
  private count = 0;

  constructor(
    kernel: KernelSpec,
    operands: readonly ReferenceOperand[],
    scalars: readonly number[],
  ) {
    this.kernel = kernel;
    this.operands = operands;
    this.scalars = scalars;
    this.coords = kernel.space.map(() => 0);
    this.inner = kernel.space.length - 1;
    const program = linearizeExprs(kernel.outputs.map((output) => output.expr));
    const length = Math.max(1, Math.min(stretchLength, kernel.space[this.inner]!));
    this.values = program.lines.map(() => new Float64Array(length));
    this.passes = this.planPasses(program.lines, program.roots);
  }

  setStretch(first: number, count: number): void {
    this.coords[this.inner] = first;
    this.count = count;
  }

  /** All passes over the current row, or over the current stretch of columns. */
  row(): void {
    for (const pass of this.passes) pass();
  }

  private planPasses(lines: readonly Line[], roots: readonly number[]): (() => void)[] {
    const { kernel } = this;
    const evaluators = lines.map((line, i) => this.evaluator(line, this.values[i]!));
    const evaluate = (work: readonly number[]): void => {
      for (const line of work) evaluators[line]!();
    };
    const stages = lines.map(() => 0);
    lines.forEach(({ node, operands }, i) => {
      const before = Math.max(0, ...operands.map((operand) => stages[operand]!));
      stages[i] = before + (node.kind === 'reduce' ? 1 : 0);
    });

    const passes: (() => void)[] = [];
    for (let stage = 1; stage <= Math.max(0, ...stages); stage++) {
      const reduces = lines.flatMap(({ node, operands }, line) =>
        node.kind === 'reduce' && stages[line] === stage
          ? [this.reduction(node, this.values[operands[0]!]!, this.values[line]!)]
          : [],
      );
      const from = lines.flatMap(({ node, operands }, line) =>
        node.kind === 'reduce' && stages[line] === stage ? [operands[0]!] : [],
      );
      const work = neededLines(lines, from);
      passes.push(() => {
        for (const reduction of reduces) reduction.begin();
        this.forEachStretchOfRow(() => {
          evaluate(work);
          for (const reduction of reduces) reduction.take();
        });
        for (const reduction of reduces) reduction.end();
      });
    }

    const stores = kernel.outputs.map((output, i) => ({
      perRow: kernel.reduced.every((axis) => output.strides[axis] === 0),
      root: roots[i]!,
      run: this.store(output, this.values[roots[i]!]!),
    }));
    const pointStores = stores.filter((store) => !store.perRow);
    const rowStores = stores.filter((store) => store.perRow);
    const pointWork = neededLines(
      lines,
      pointStores.map((store) => store.root),
    );
    const rowWork = neededLines(
      lines,
      rowStores.map((store) => store.root),
    );
    passes.push(() => {
      // Values of the row are read before the outputs of its points are written.
      this.toRowStart();
      evaluate(rowWork);
      const kept = rowStores.map(({ root }) => this.values[root]!.slice());
      if (pointStores.length > 0) {
        this.forEachStretchOfRow(() => {
          evaluate(pointWork);
          for (const store of pointStores) store.run();
        });
      }
      this.toRowStart();
      rowStores.forEach(({ root, run }, i) => {
        this.values[root]!.set(kept[i]!);
        run();
      });
    });
    return passes;
  }

  private get innerReduced(): boolean {
    return this.kernel.reduced.includes(this.inner);
  }

  /** Visits all reduced points of the row, stretch by stretch. */
  private forEachStretchOfRow(visit: () => void): void {
    const { kernel, inner } = this;
    if (!this.innerReduced) {
      forEachPoint(kernel.space, kernel.reduced, this.coords, visit);
      return;
    }
    forEachPoint(kernel.space, kernel.reduced.slice(0, -1), this.coords, () => {
      forEachStretch(kernel.space[inner]!, (first, count) => {
        this.setStretch(first, count);
        visit();
      });
    });
  }

  /** To the place where values of the whole row are read and stored. */
  private toRowStart(): void {
    for (const axis of this.kernel.reduced) this.coords[axis] = 0;
    if (this.innerReduced) this.count = 1;
  }

  /** Takes the elements of stretches in: into one value per column, or one for the row. */
  private reduction(node: Expr & { readonly kind: 'reduce' }, x: Float64Array, out: Float64Array) {
    const neutral = reduceNeutral(node.op, node.type);
    invariant(neutral.kind === 'const', () => 'reduceNeutral: not a constant');
    const start = neutral.value;
    const combine = binaryFunction(reduceCombine[node.op], node.type);
    const { innerReduced } = this;
    let sum = start;
    const sums = new Float64Array(out.length);
    return {
      begin: (): void => {
        sum = start;
        sums.fill(start);
      },
      take: (): void => {
        if (innerReduced) {
          for (let i = 0; i < this.count; i++) sum = combine(sum, x[i]!);
        } else {
          for (let i = 0; i < this.count; i++) sums[i] = combine(sums[i]!, x[i]!);
        }
      },
      end: (): void => {
        if (innerReduced) out.fill(sum);
        else out.set(sums);
      },
    };
  }

  /** Slot of the stretch's first element, and slots from one element to the next. */
  private place(access: KernelInput): { slot: () => number; step: number; data: Float64Array } {
    const operand = this.operands[access.operand];
    invariant(operand, () => `runKernel: operand ${access.operand} is missing`);
    const width = bytesPerElement(access.dtype);
    const base = operand.start + access.offset * width;
    const steps = access.strides.map((stride) => stride * width);
    const slot = (): number => {
      let at = base;
      for (let axis = 0; axis < steps.length; axis++) at += this.coords[axis]! * steps[axis]!;
      return at;
    };
    return { slot, step: steps[this.inner]!, data: operand.data };
  }

  private store(output: KernelInput, values: Float64Array): () => void {
    const { slot, step, data } = this.place(output);
    const stored = storeFunction(output.dtype);
    return () => {
      let at = slot();
      for (let i = 0; i < this.count; i++, at += step) data[at] = stored(values[i]!);
    };
  }

  /** A function that computes one line for the current stretch from the lines before it. */
  private evaluator({ node, operands }: Line, out: Float64Array): () => void {
    const [a, b, c] = operands.map((operand) => this.values[operand]!) as [
      Float64Array,
      Float64Array,
      Float64Array,
    ];
    const each = (value: (i: number) => number): (() => void) => {
      return () => {
        for (let i = 0; i < this.count; i++) out[i] = value(i);
      };
    };
    switch (node.kind) {
      case 'input': {
        const { slot, step, data } = this.place(this.kernel.inputs[node.index]!);
        return () => {
          let at = slot();
          for (let i = 0; i < this.count; i++, at += step) out[i] = data[at]!;
        };
      }
      case 'const':
        out.fill(asType(node.value, node.type));
        return () => {};
      case 'scalar':
        out.fill(asType(this.scalars[node.index] ?? 0, node.type));
        return () => {};
      case 'coord': {
        const along = node.axis === this.inner ? 1 : 0;
        return each((i) => this.coords[node.axis]! + along * i);
      }
      case 'linear':
        return () => {
          const first = this.linearIndex();
          for (let i = 0; i < this.count; i++) out[i] = (first + i) >>> 0;
        };
      case 'unary': {
        const run = unaryFunction(node.op, node.x.type);
        return each((i) => run(a[i]!));
      }
      case 'binary': {
        const run = binaryFunction(node.op, node.a.type);
        return each((i) => run(a[i]!, b[i]!));
      }
      case 'fma':
        return each((i) => a[i]! * b[i]! + c[i]!);
      case 'select':
        return each((i) => (a[i] ? b[i]! : c[i]!));
      case 'cast': {
        const run = castFunction(node.x.type, node.type);
        return each((i) => run(a[i]!));
      }
      case 'stored': {
        const run = storeFunction(node.dtype);
        return each((i) => run(a[i]!));
      }
      case 'reduce':
        return () => {};
      case 'random': {
        const word = philoxWord(node.draw);
        const [d, index] = [this.values[operands[3]!]!, this.values[operands[4]!]!];
        return each((i) => word(a[i]!, b[i]!, c[i]!, d[i]!, index[i]!));
      }
    }
  }

  private linearIndex(): number {
    const { space } = this.kernel;
    return this.coords.reduce((index, at, axis) => index * space[axis]! + at, 0);
  }
}

interface Line {
  readonly node: Expr;
  readonly operands: readonly number[];
}

/** The lines that `roots` depend on, in order, down to reductions. */
function neededLines(lines: readonly Line[], roots: readonly number[]): number[] {
  const want = new Set<number>();
  const visit = (line: number): void => {
    if (want.has(line) || lines[line]!.node.kind === 'reduce') return;
    want.add(line);
    lines[line]!.operands.forEach(visit);
  };
  roots.forEach(visit);
  return [...want].sort((a, b) => a - b);
}

/** A single point is a stretch of one element. */
function withAxis(kernel: KernelSpec): KernelSpec {
  if (kernel.space.length > 0) return kernel;
  return {
    ...kernel,
    space: [1],
    inputs: kernel.inputs.map((input) => ({ ...input, strides: [0] })),
    outputs: kernel.outputs.map((output) => ({ ...output, strides: [0] })),
  };
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

function forEachStretch(length: number, visit: (first: number, count: number) => void): void {
  for (let first = 0; first < length; first += stretchLength) {
    visit(first, Math.min(stretchLength, length - first));
  }
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
