/**
 * Walking an iteration space: coordinates from flat counters, element indices from coordinates, and
 * the lines of the kernel's expressions at one point.
 */

import { contiguousStrides } from '../../core/shape.ts';
import { type ComputeType, type Expr, linearizeExprs } from '../../ir/expr.ts';
import { computeType, type KernelInput, type KernelSpec } from '../../ir/kernel.ts';
import { expressionText, type PointNames } from './expressions.ts';
import type { UsedFunctions } from './library.ts';
import type { KernelStorage } from './storage.ts';
import { indexText, u32Text, type WgslText } from './text.ts';

export interface ProgramLine {
  readonly node: Expr;
  readonly operands: readonly number[];
}

/** The expressions of a kernel in straight-line form; line i is the WGSL name `t<i>`. */
export interface KernelProgram {
  readonly lines: readonly ProgramLine[];
  /** Line of each output. */
  readonly roots: readonly number[];
}

export function kernelProgram(spec: KernelSpec): KernelProgram {
  return linearizeExprs(spec.outputs.map((out) => out.expr));
}

export const lineName = (line: number): string => `t${line}`;

/** The axes an access moves along: size above one and stride not zero. */
export function movingAxes(spec: KernelSpec, access: KernelInput): number[] {
  return spec.space.flatMap((dim, axis) => (dim > 1 && access.strides[axis] !== 0 ? [axis] : []));
}

/** Whether element number = offset + row-major number of the point. */
export function isRowMajor(spec: KernelSpec, access: KernelInput): boolean {
  const dense = contiguousStrides(spec.space);
  return spec.space.every((dim, axis) => dim === 1 || access.strides[axis] === dense[axis]);
}

/**
 * Names `c<axis>` for the coordinates of point number `counter` in the row-major space of `axes`;
 * only those in `wanted` are written.
 */
export function writeCoordinates(
  text: WgslText,
  spec: KernelSpec,
  axes: readonly number[],
  counter: string,
  wanted: ReadonlySet<number>,
): void {
  let step = 1;
  for (let i = axes.length - 1; i >= 0; i--) {
    const axis = axes[i]!;
    const dim = spec.space[axis]!;
    if (wanted.has(axis)) {
      const quotient = step === 1 ? counter : `${counter} / ${u32Text(step)}`;
      const outermost = axes.slice(0, i).every((other) => spec.space[other] === 1);
      text.line(
        `let c${axis} = ${outermost ? quotient : `${step === 1 ? quotient : `(${quotient})`} % ${u32Text(dim)}`};`,
      );
    }
    step *= dim;
  }
}

/** Writes expression lines at a point whose coordinates are named. */
export class PointWriter {
  readonly #spec: KernelSpec;
  readonly #program: KernelProgram;
  readonly #storage: KernelStorage;
  readonly #functions: UsedFunctions;
  /** Name of the row-major number of the point, where one exists. */
  readonly #linear: string | undefined;

  constructor(parts: {
    readonly spec: KernelSpec;
    readonly program: KernelProgram;
    readonly storage: KernelStorage;
    readonly functions: UsedFunctions;
    readonly linear?: string;
  }) {
    this.#spec = parts.spec;
    this.#program = parts.program;
    this.#storage = parts.storage;
    this.#functions = parts.functions;
    this.#linear = parts.linear;
  }

  get program(): KernelProgram {
    return this.#program;
  }

  /** `let` lines for the given program lines, which must be in ascending order. */
  write(text: WgslText, lines: Iterable<number>): void {
    for (const line of lines) {
      const { node, operands } = this.#program.lines[line]!;
      const value = expressionText(node, operands.map(lineName), this.#names());
      text.line(`let ${lineName(line)}: ${node.type} = ${value};`);
    }
  }

  /** Element index of an access at the point. */
  index(access: KernelInput): string {
    if (this.#linear !== undefined && isRowMajor(this.#spec, access)) {
      return indexText(undefined, access.offset, [{ name: this.#linear, step: 1 }]);
    }
    const terms = movingAxes(this.#spec, access).map((axis) => ({
      name: `c${axis}`,
      step: access.strides[axis]!,
    }));
    return indexText(undefined, access.offset, terms);
  }

  /** Coordinates that `lines` and the stores of `outputs` mention. */
  wantedAxes(lines: Iterable<number>, outputs: readonly number[]): Set<number> {
    const wanted = new Set<number>();
    const touch = (access: KernelInput): void => {
      if (this.#linear !== undefined && isRowMajor(this.#spec, access)) return;
      for (const axis of movingAxes(this.#spec, access)) wanted.add(axis);
    };
    for (const line of lines) {
      const { node } = this.#program.lines[line]!;
      if (node.kind === 'input') touch(this.#spec.inputs[node.index]!);
      else if (node.kind === 'coord') wanted.add(node.axis);
      else if (node.kind === 'linear' && this.#linear === undefined) {
        for (const axis of this.#spec.space.keys()) wanted.add(axis);
      }
    }
    for (const output of outputs) touch(this.#spec.outputs[output]!);
    return wanted;
  }

  /** Stored bits of an output at the point. */
  bits(output: number): string {
    const { dtype } = this.#spec.outputs[output]!;
    const line = this.#program.roots[output]!;
    const type: ComputeType = this.#program.lines[line]!.node.type;
    return this.#storage.encode(lineName(line), type, dtype);
  }

  /** Stores an output element by element. */
  store(text: WgslText, output: number): void {
    const access = this.#spec.outputs[output]!;
    const index = this.index(access);
    this.#storage.store(text, access.operand, access.dtype, index, this.bits(output));
  }

  #names(): PointNames {
    return {
      functions: this.#functions,
      input: (index) => {
        const access = this.#spec.inputs[index]!;
        const { text } = this.#storage.load(access.operand, access.dtype, this.index(access));
        return { text, type: computeType(access.dtype) };
      },
      scalarWord: (index) => this.#storage.scalarWord(index),
      coord: (axis) => (this.#spec.space[axis] === 1 ? '0u' : `c${axis}`),
      linear: () => {
        if (this.#linear !== undefined) return this.#linear;
        const dense = contiguousStrides(this.#spec.space);
        const terms = dense.map((step, axis) => ({ name: `c${axis}`, step }));
        return indexText(
          undefined,
          0,
          terms.filter((_, axis) => this.#spec.space[axis] !== 1),
        );
      },
    };
  }
}
