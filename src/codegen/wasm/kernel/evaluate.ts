/**
 * Emits the lines of a program for a group of neighbouring vectors. Values that do not vary along the
 * vector axis are computed once per group, the others vector by vector; a value that is read once is
 * computed where it is read.
 */

import { bytesPerElement } from '../../../core/dtype.ts';
import { invariant } from '../../../core/errors.ts';
import type { KernelInput } from '../../../ir/kernel.ts';
import type { KernelArguments } from '../kernel-function.ts';
import type { Ptr } from '../pointer.ts';
import { I32, type Var } from '../scalars.ts';
import { F32x4, I32x4 } from '../vectors.ts';
import { asStored, type ElementRun, loadElements, storeElements } from './elements.ts';
import { asF32, asI32, type Lane4, type Lanes } from './lanes.ts';
import { binaryLanes, castLanes, unaryLanes } from './operations.ts';
import { type PhiloxStream, philoxBlocks, philoxStream, philoxWord } from './philox.ts';
import type { KernelProgram, PassPlan } from './program.ts';

/** An input or output of the kernel; inputs come first, then outputs. */
export interface Access extends KernelInput {
  readonly bytes: number;
}

/** Where the group of vectors being emitted lies. */
export interface Site {
  /** Address of each access at the group's first element. */
  readonly pointers: ReadonlyMap<number, Ptr>;
  /** Coordinates of the group's first element. */
  readonly coords: readonly (I32 | undefined)[];
  /** Set when the first element's position along the vector axis may be no multiple of four. */
  readonly unaligned?: boolean;
}

/** Number of lanes of each vector of a group: 4, but for the last vector of a row. */
export type Widths = readonly number[];

export class Evaluator {
  readonly l: Lanes;
  readonly program: KernelProgram;
  readonly accesses: readonly Access[];
  private readonly args: KernelArguments;
  /** Values at hand: one for all vectors of a group, or one per vector. */
  private readonly values = new Map<number, readonly Lane4[]>();
  private readonly streams = new Map<number, PhiloxStream>();
  /** Lines that wait in memory, by the access to read them from. */
  private readonly waiting = new Map<number, number>();
  private readonly blockRandom: boolean;

  constructor(l: Lanes, program: KernelProgram, args: KernelArguments) {
    this.l = l;
    this.program = program;
    this.args = args;
    const { spec } = program;
    this.accesses = [...spec.inputs, ...spec.outputs].map((access) => ({
      ...access,
      bytes: bytesPerElement(access.dtype),
    }));
    this.blockRandom = program.weights.every(
      (weight, axis) => axis === program.vectorAxis || weight % 4 === 0,
    );
  }

  /** Access number of an output. */
  outputAccess(output: number): number {
    return this.program.spec.inputs.length + output;
  }

  varies(line: number): boolean {
    return (this.program.lines[line]!.varies & (1 << this.program.vectorAxis)) !== 0;
  }

  /** Whether a pass finds the value without evaluating anything. */
  known = (line: number): boolean =>
    this.values.has(line) ||
    this.waiting.has(line) ||
    this.program.lines[line]!.node.kind === 'const';

  setValue(line: number, values: readonly Lane4[]): void {
    this.values.set(line, values);
  }

  /** Forgets the values of `lines`: they belong to a unit of work whose code has ended. */
  forget(lines: Iterable<number>): void {
    for (const line of lines) {
      this.values.delete(line);
      this.waiting.delete(line);
    }
  }

  /** From here on `line` is read from `access`. */
  setWaiting(line: number, access: number): void {
    this.waiting.set(line, access);
  }

  /** The access that a line waits in, if it does. */
  waitingIn(line: number): number | undefined {
    return this.waiting.get(line);
  }

  /** The value of a line at hand in vector `u` of the group. */
  valueAt(line: number, u: number, lanes: number, site: Site): Lane4 {
    const values = this.values.get(line);
    if (values) return values.length === 1 ? values[0]! : values[u]!;
    const access = this.waiting.get(line);
    if (access !== undefined) return this.load(access, u, lanes, site);
    const { node } = this.program.lines[line]!;
    invariant(node.kind === 'const', () => `Evaluator: line ${line} (${node.kind}) is not at hand`);
    return this.constant(node.value, node.type);
  }

  /** Evaluates `lines` in order and keeps their values; `widths` are those of the unit. */
  evaluateAndKeep(lines: readonly number[], widths: Widths, site: Site): void {
    for (const line of lines) {
      const { node, operands } = this.program.lines[line]!;
      const us = this.varies(line) ? widths.map((_, u) => u) : [0];
      const values = us.map((u) =>
        this.l.hold(
          this.compute(line, u, widths[u]!, site, (i) =>
            this.valueAt(operands[i]!, u, widths[u]!, site),
          ),
        ),
      );
      this.values.set(line, values);
      if (node.kind === 'random')
        invariant(this.streams.has(line), () => 'random without a stream');
    }
  }

  /** Sets up what a `random` line needs; its state must be at hand and uniform. */
  prepareRandom(line: number, site: Site): void {
    const { node, operands } = this.program.lines[line]!;
    if (node.kind !== 'random') return;
    const word = (i: number): I32x4 => asI32(this.valueAt(operands[i]!, 0, 4, site));
    this.streams.set(line, philoxStream(this.l, [word(0), word(1), word(2), word(3)], node.draw));
  }

  /**
   * Emits a pass's lines for a group. `sink` gets, vector by vector, the values of the plan's roots;
   * they are all computed before it runs.
   */
  evaluateGroup(
    plan: PassPlan,
    widths: Widths,
    site: Site,
    sink: (values: readonly Lane4[], u: number, lanes: number) => void,
  ): void {
    const { l } = this;
    const { lines } = this.program;
    l.scope(() => {
      const shared = new Map<number, readonly Lane4[]>();
      const at = (line: number, u: number, own: Map<number, Lane4>): Lane4 => {
        const value = own.get(line);
        if (value) return value;
        const group = shared.get(line);
        if (group) return group.length === 1 ? group[0]! : group[u]!;
        return this.valueAt(line, u, widths[u]!, site);
      };
      const none = new Map<number, Lane4>();
      for (const line of plan.order) {
        const { node, operands } = lines[line]!;
        if (node.kind === 'random' && !site.unaligned && this.inBlocks(operands[4]!)) {
          shared.set(line, this.randomBlocks(line, widths.length, site));
        } else if (!this.varies(line)) {
          const value = this.compute(line, 0, widths[0]!, site, (i) => at(operands[i]!, 0, none));
          shared.set(line, [l.hold(value)]);
        }
      }
      widths.forEach((lanes, u) => {
        l.scope(() => {
          const own = new Map<number, Lane4>();
          for (const line of plan.order) {
            if (shared.has(line)) continue;
            const { operands } = lines[line]!;
            const value = this.compute(line, u, lanes, site, (i) => at(operands[i]!, u, own));
            own.set(line, plan.uses.get(line) === 1 ? value : l.hold(value));
          }
          const roots = plan.roots.map((line) => at(line, u, own));
          sink(roots.length > 1 ? roots.map((value) => l.hold(value)) : roots, u, lanes);
        });
      });
    });
  }

  /** Stores an output's value in vector `u` of the group. */
  store(access: number, value: Lane4, u: number, lanes: number, site: Site): void {
    storeElements(this.l, this.accesses[access]!.dtype, this.run(access, u, lanes, site), value);
  }

  load(access: number, u: number, lanes: number, site: Site): Lane4 {
    return loadElements(this.l, this.accesses[access]!.dtype, this.run(access, u, lanes, site));
  }

  private run(access: number, u: number, lanes: number, site: Site): ElementRun {
    const { strides, bytes } = this.accesses[access]!;
    const stride = strides[this.program.vectorAxis]!;
    const at = site.pointers.get(access);
    invariant(at, () => `Evaluator: no pointer for access ${access}`);
    return { at, offset: 4 * u * stride * bytes, stride, lanes };
  }

  private compute(
    line: number,
    u: number,
    lanes: number,
    site: Site,
    operand: (i: number) => Lane4,
  ): Lane4 {
    const { l } = this;
    const { node } = this.program.lines[line]!;
    switch (node.kind) {
      case 'input':
        return this.load(node.index, u, lanes, site);
      case 'const':
        return this.constant(node.value, node.type);
      case 'scalar': {
        const slot = this.program.spec.operands + node.index;
        if (node.type === 'f32') return F32x4.splat(this.args.f32(slot));
        const value = I32x4.splat(this.args.i32(slot));
        return node.type === 'bool' ? value.ne(I32x4.of(0)) : value;
      }
      case 'coord':
        if (node.axis !== this.program.vectorAxis) return I32x4.splat(coordinate(site, node.axis));
        return this.ramp(coordinate(site, node.axis), u);
      case 'linear':
        return this.ramp(this.linearIndex(site), u);
      case 'unary':
        return unaryLanes(l, node.op, node.x.type, operand(0));
      case 'binary':
        return binaryLanes(l, node.op, node.a.type, operand(0), operand(1));
      case 'fma':
        return l.fma(asF32(operand(0)), asF32(operand(1)), asF32(operand(2)));
      case 'select':
        return l.select<Lane4>(asI32(operand(0)), operand(1), operand(2));
      case 'cast':
        return castLanes(l, node.x.type, node.type, operand(0));
      case 'stored':
        return asStored(l, node.dtype, operand(0));
      case 'random':
        return philoxWord(l, this.streams.get(line)!, asI32(operand(4)));
      case 'reduce':
        return invariant(false, () => `Evaluator: reduction ${line} was not computed`) as never;
    }
  }

  constant(value: number, type: string): Lane4 {
    if (type === 'f32') return this.l.f32(value);
    return this.l.i32(type === 'bool' ? (value ? -1 : 0) : value);
  }

  /** start + 4 u + lane */
  private ramp(start: I32, u: number): I32x4 {
    return I32x4.splat(start).add(this.l.i32Lanes([4 * u, 4 * u + 1, 4 * u + 2, 4 * u + 3]));
  }

  private linearIndex(site: Site): I32 {
    let index: I32 | undefined;
    this.program.weights.forEach((weight, axis) => {
      const at = site.coords[axis];
      if (!at) return;
      const term = weight === 1 ? at : at.mul(weight | 0);
      index = index ? index.add(term) : term;
    });
    return index ?? I32.of(0);
  }

  /** Whether an index line is `linear` at groups that start on multiples of four elements. */
  private inBlocks(line: number): boolean {
    return this.blockRandom && this.program.lines[line]!.node.kind === 'linear';
  }

  private randomBlocks(line: number, vectors: number, site: Site): readonly Lane4[] {
    const block: Var<I32> = this.l.f.let(this.linearIndex(site).shrU(2));
    const words: Lane4[] = [];
    for (let u = 0; u < vectors; u += 4) {
      words.push(...philoxBlocks(this.l, this.streams.get(line)!, block.add(u)));
    }
    return words;
  }
}

function coordinate(site: Site, axis: number): I32 {
  return site.coords[axis] ?? I32.of(0);
}
