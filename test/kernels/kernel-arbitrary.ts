/**
 * Random kernels whose results are exact: float values are small multiples of a power of two, and
 * each expression carries bounds that keep sums and products below 24 bits. Then generated code must
 * equal the float64 interpreter exactly, whatever the order of a reduction.
 */

import fc, { type GeneratorValue } from 'fast-check';
import type { DType } from '../../src/core/dtype.ts';
import { type BinaryOp, type ComputeType, type Expr, e } from '../../src/ir/expr.ts';
import type { KernelInput, KernelOutput, KernelSpec } from '../../src/ir/kernel.ts';
import type { OperandData } from './kernel-harness.ts';

export interface RandomKernel {
  readonly spec: KernelSpec;
  readonly operands: readonly OperandData[];
  readonly scalars: readonly number[];
}

/** A float expression with |value| <= bound, in multiples of 2^-fraction; others have no bound. */
interface Bounded {
  readonly expr: Expr;
  readonly bound: number;
  readonly fraction: number;
}

export interface Choices {
  readonly pick: <T>(items: readonly T[]) => T;
  readonly integer: (low: number, high: number) => number;
}

export function choices(g: GeneratorValue): Choices {
  return {
    pick: <T>(items: readonly T[]): T => items[g(fc.nat, { max: items.length - 1 })]!,
    integer: (min, max) => g(fc.integer, { min, max }),
  };
}

/** A layout of `space` in an operand of its own: axes permuted, padded, reversed, or broadcast. */
export function randomLayout(
  c: Choices,
  space: readonly number[],
  options: { readonly zeroAxes?: readonly number[]; readonly broadcast?: boolean },
): { offset: number; strides: number[]; length: number } {
  const order = space.map((_, axis) => axis);
  if (c.pick([true, false])) {
    for (let i = order.length - 1; i > 0; i--) {
      const j = c.integer(0, i);
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
  }
  const strides = new Array<number>(space.length).fill(0);
  const pad = c.pick([1, 1, 1, 2, 3]);
  let step = pad;
  let offset = c.integer(0, 2);
  for (const axis of order.toReversed()) {
    if (options.zeroAxes?.includes(axis)) continue;
    if (options.broadcast && c.integer(0, 3) === 0) continue;
    const reversed = c.integer(0, 4) === 0;
    strides[axis] = reversed ? -step : step;
    if (reversed) offset += step * Math.max(0, space[axis]! - 1);
    step *= Math.max(1, space[axis]!) + c.pick([0, 0, 0, 1]);
  }
  return { offset, strides, length: offset + step + pad + 4 };
}

const storedTypes: Readonly<Record<ComputeType, readonly DType[]>> = {
  f32: ['float32', 'float32', 'float16', 'bfloat16'],
  i32: ['int32', 'int8'],
  u32: ['uint32'],
  bool: ['bool'],
};

export function randomKernel(c: Choices): RandomKernel {
  const rank = c.integer(0, 4);
  const space = Array.from({ length: rank }, (_, axis) =>
    axis === rank - 1
      ? c.pick([1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 31, 32, 33, 48, 70])
      : c.pick([1, 2, 3, 4, 5]),
  );
  if (c.integer(0, 30) === 0 && rank > 0) space[c.integer(0, rank - 1)] = 0;
  const reducing = rank > 0 && c.integer(0, 2) > 0;
  const reduced = reducing ? space.flatMap((_, axis) => (c.pick([true, false]) ? [axis] : [])) : [];
  const rowLength = reduced.reduce((product, axis) => product * space[axis]!, 1);

  const inputs: KernelInput[] = [];
  const operands: OperandData[] = [];
  const leaves: Bounded[] = [];
  for (let i = c.integer(1, 3); i > 0; i--) {
    const type = c.pick<ComputeType>(['f32', 'f32', 'f32', 'i32', 'u32', 'bool']);
    const dtype = c.pick(storedTypes[type]);
    const { offset, strides, length } = randomLayout(c, space, { broadcast: true });
    leaves.push({ expr: e.input(inputs.length, type), bound: 3, fraction: 1 });
    inputs.push({ operand: operands.length, dtype, offset, strides });
    operands.push({ dtype, values: randomValues(c, type, dtype, length) });
  }
  const scalars = [c.integer(-3, 3), c.integer(-1000, 1000), c.integer(0, 1000)];
  leaves.push({ expr: e.scalar(0, 'f32'), bound: 3, fraction: 0 });
  leaves.push({ expr: e.scalar(1, 'i32'), bound: 0, fraction: 0 });
  leaves.push({ expr: e.scalar(2, 'u32'), bound: 0, fraction: 0 });
  leaves.push({ expr: e.linear(), bound: 0, fraction: 0 });
  if (rank > 0) leaves.push({ expr: e.coord(c.integer(0, rank - 1)), bound: 0, fraction: 0 });

  // Keeping `linear` out of most kernels lets the axes be reordered.
  const pool = c.integer(0, 2) === 0 ? leaves : leaves.filter((l) => l.expr.kind !== 'linear');
  const build = new RandomExpressions(c, pool, reduced.length > 0 ? rowLength : 0);
  const outputs: KernelOutput[] = [];
  for (let i = c.integer(1, 2); i > 0; i--) {
    const perRow = reduced.length > 0 && c.pick([true, false]);
    const type = c.pick<ComputeType>(['f32', 'f32', 'i32', 'u32', 'bool']);
    // A value per row is a reduction.
    const { expr } = perRow ? build.reduction(type, 2) : build.value(type, 4);
    const dtype = c.pick(storedTypes[expr.type]);
    const { offset, strides, length } = randomLayout(c, space, { zeroAxes: perRow ? reduced : [] });
    outputs.push({ operand: operands.length, dtype, offset, strides, expr });
    operands.push({ dtype, values: new Array<number>(length).fill(1) });
  }
  return {
    spec: {
      space,
      reduced,
      inputs,
      outputs,
      operands: operands.length,
      scalars: ['f32', 'i32', 'u32'],
    },
    operands,
    scalars,
  };
}

function randomValues(c: Choices, type: ComputeType, dtype: DType, length: number): number[] {
  // One draw seeds a small generator: shrinking single values would say little.
  let state = c.integer(1, 2 ** 31 - 1);
  const draw = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  const wide = c.pick([true, false]) && dtype !== 'int8';
  const value: Readonly<Record<ComputeType, () => number>> = {
    f32: () => Math.round(draw() * 12 - 6) / 2,
    i32: () => (wide ? Math.floor((draw() - 0.5) * 2 ** 32) : Math.floor(draw() * 200 - 100)),
    u32: () => (wide ? Math.floor(draw() * 2 ** 32) : Math.floor(draw() * 40)),
    bool: () => (draw() < 0.5 ? 1 : 0),
  };
  return Array.from({ length }, value[type]);
}

const limit = 2 ** 22;
const types: readonly ComputeType[] = ['f32', 'i32', 'u32', 'bool'];

class RandomExpressions {
  private readonly c: Choices;
  private readonly leaves: readonly Bounded[];
  /** Elements per row; 0 when nothing may be reduced. */
  private readonly rowLength: number;
  private readonly made: Bounded[] = [];

  constructor(c: Choices, leaves: readonly Bounded[], rowLength: number) {
    this.c = c;
    this.leaves = leaves;
    this.rowLength = rowLength;
  }

  value(type: ComputeType, depth: number): Bounded {
    // Now and then an expression that exists already, so that values are shared.
    const shared = this.made.filter(({ expr }) => expr.type === type);
    if (shared.length > 0 && this.c.integer(0, 4) === 0) return this.c.pick(shared);
    const result = depth === 0 ? this.leaf(type) : this.node(type, depth - 1);
    this.made.push(result);
    return result;
  }

  reduction(type: ComputeType, depth: number): Bounded {
    const x = this.value(type, depth);
    const op = this.c.pick(
      type === 'bool' ? (['max', 'min'] as const) : (['sum', 'max', 'min'] as const),
    );
    const bound = op === 'sum' ? x.bound * this.rowLength : Math.max(x.bound, 1);
    if (type === 'f32' && this.rowLength > 0 && this.tooWide(bound, x.fraction)) {
      return { ...this.tame(x), expr: e.reduce('max', this.tame(x).expr) };
    }
    const product = type === 'u32' && this.c.integer(0, 3) === 0;
    return { expr: e.reduce(product ? 'prod' : op, x.expr), bound, fraction: x.fraction };
  }

  private leaf(type: ComputeType): Bounded {
    const fitting = this.leaves.filter(({ expr }) => expr.type === type);
    if (fitting.length > 0 && this.c.integer(0, 4) > 0) return this.c.pick(fitting);
    if (type === 'f32') {
      return { expr: e.f32(this.c.integer(-8, 8) / 4), bound: 2, fraction: 2 };
    }
    const value = this.c.integer(type === 'i32' ? -9 : 0, 9);
    return { expr: e.constant(type === 'bool' ? value % 2 : value, type), bound: 9, fraction: 0 };
  }

  private node(type: ComputeType, depth: number): Bounded {
    const { c } = this;
    // An empty row has infinite extremes, whose sums are NaN in both, but not of exact bounds.
    if (this.rowLength > 0 && c.integer(0, 3) === 0) return this.reduction(type, depth);
    const kind = c.integer(0, 6);
    if (kind === 0) {
      const a = this.value(type, depth);
      const b = this.value(type, depth);
      return {
        expr: e.select(this.value('bool', depth).expr, a.expr, b.expr),
        bound: Math.max(a.bound, b.bound),
        fraction: Math.max(a.fraction, b.fraction),
      };
    }
    if (kind === 1) {
      const x = this.value(c.pick(types), depth);
      // Integers may be wide: only their low bits become floats.
      const from = x.expr.type;
      const narrow =
        type === 'f32' && (from === 'i32' || from === 'u32')
          ? e.binary('and', x.expr, e.constant(7, from))
          : x.expr;
      const float = type === 'f32' && from === 'f32';
      return float ? x : { expr: e.cast(narrow, type), bound: 7, fraction: 0 };
    }
    const wrapped = type === 'i32' && c.integer(0, 5) === 0 ? 'int8' : 'int32';
    switch (type) {
      case 'f32':
        return this.floatNode(depth);
      case 'bool':
        return { expr: this.boolNode(depth), bound: 1, fraction: 0 };
      default:
        return { expr: e.stored(this.integerNode(type, depth), wrapped), bound: 0, fraction: 0 };
    }
  }

  private floatNode(depth: number): Bounded {
    const { c } = this;
    const a = this.value('f32', depth);
    if (c.integer(0, 2) === 0) {
      const op = c.pick(['neg', 'abs', 'sign', 'floor', 'ceil', 'round'] as const);
      return { expr: e.unary(op, a.expr), bound: a.bound + 1, fraction: a.fraction };
    }
    const b = this.value('f32', depth);
    const op = c.pick(['add', 'sub', 'mul', 'max', 'min', 'fma'] as const);
    const fraction =
      op === 'mul' || op === 'fma' ? a.fraction + b.fraction : Math.max(a.fraction, b.fraction);
    const bound = op === 'mul' || op === 'fma' ? a.bound * b.bound + a.bound : a.bound + b.bound;
    if (this.tooWide(bound, fraction)) return this.tame(a);
    const expr = op === 'fma' ? e.fma(a.expr, b.expr, a.expr) : e.binary(op, a.expr, b.expr);
    return { expr, bound, fraction };
  }

  private boolNode(depth: number): Expr {
    const { c } = this;
    if (c.integer(0, 3) === 0) {
      return c.pick([true, false])
        ? e.unary('not', this.value('bool', depth).expr)
        : e.unary('isNan', this.value('f32', depth).expr);
    }
    const type = c.pick(types);
    const comparison = c.pick<BinaryOp>(['eq', 'ne', 'lt', 'le', 'gt', 'ge']);
    const op = type === 'bool' ? c.pick<BinaryOp>(['and', 'or', 'xor', comparison]) : comparison;
    return e.binary(op, this.value(type, depth).expr, this.value(type, depth).expr);
  }

  private integerNode(type: 'i32' | 'u32', depth: number): Expr {
    const { c } = this;
    const a = this.value(type, depth).expr;
    if (type === 'u32' && c.integer(0, 5) === 0) {
      const state = [
        e.u32(c.integer(0, 2 ** 31)),
        e.scalar(2, 'u32'),
        e.u32(2 ** 32 - 2),
        e.u32(7),
      ] as const;
      const index = c.pick([a, e.linear(), e.linear()]);
      return e.random([...state], c.integer(0, 5), index);
    }
    if (c.integer(0, 3) === 0) {
      const unary =
        type === 'i32' ? (['neg', 'abs', 'bitNot'] as const) : (['neg', 'bitNot'] as const);
      return e.unary(c.pick(unary), a);
    }
    const op = c.pick<BinaryOp>([
      'add',
      'sub',
      'mul',
      'div',
      'rem',
      'max',
      'min',
      'and',
      'or',
      'xor',
      'shl',
      'shr',
    ]);
    return e.binary(op, a, this.value(type, depth).expr);
  }

  private tooWide(bound: number, fraction: number): boolean {
    return bound * 2 ** fraction > limit;
  }

  /** Clamped to whole numbers from -4 to 4. */
  private tame(x: Bounded): Bounded {
    const clamped = e.binary('min', e.binary('max', e.unary('floor', x.expr), e.f32(-4)), e.f32(4));
    return { expr: clamped, bound: 4, fraction: 0 };
  }
}
