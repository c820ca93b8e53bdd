/**
 * The scalar expression IR. A kernel is a few of these expressions evaluated at every point of an
 * iteration space; every backend derives its code from them (WebAssembly SIMD, WGSL, plain loops).
 *
 * Exactness. An expression means the same bits wherever it is fused: each node rounds to float32 on
 * its own, `fma` is fused only where an `fma` node says so, and code generators never contract,
 * reassociate or drop nodes. So a recomputed value equals the first one bit for bit.
 */

/** What a value is while it is computed on. Storage dtypes widen to one of these when loaded. */
export type ComputeType = 'f32' | 'i32' | 'u32' | 'bool';

/** f32 in, f32 out, unless stated. */
export type UnaryOp =
  | 'neg' // f32, i32, u32
  | 'abs' // f32, i32
  | 'sign' // f32: -1, 0, 1; NaN stays NaN
  | 'exp'
  | 'expm1'
  | 'log'
  | 'log1p'
  | 'sqrt'
  | 'rsqrt' // 1 / sqrt(x), two roundings
  | 'reciprocal' // 1 / x
  | 'sin'
  | 'cos'
  | 'tanh'
  | 'erf'
  | 'sigmoid' // 1 / (1 + exp(-x)), no overflow for large |x|
  | 'floor'
  | 'ceil'
  | 'round' // ties to even
  | 'roundF16' // f32 to the nearest float16 and back, ties to even
  | 'roundBf16' // the same for bfloat16
  | 'isNan' // f32 -> bool
  | 'not' // bool -> bool
  | 'bitNot'; // i32, u32

/** Both operands and the result have one type, unless stated. */
export type BinaryOp =
  | 'add'
  | 'sub'
  | 'mul'
  | 'div' // f32; i32/u32 truncate toward zero, x / 0 = 0
  | 'rem' // i32, u32; x rem 0 = 0
  | 'pow' // f32
  | 'max' // f32: NaN if either is NaN
  | 'min'
  | 'and' // bool, i32, u32
  | 'or'
  | 'xor'
  | 'shl' // u32, i32
  | 'shr' // u32 logical, i32 arithmetic
  | 'eq' // any -> bool; comparisons with NaN are false but for ne
  | 'ne'
  | 'lt'
  | 'le'
  | 'gt'
  | 'ge';

export type ReduceOp = 'sum' | 'prod' | 'max' | 'min';

export type Expr =
  /** The kernel's input `index` at the current point, widened to `type`. */
  | { readonly kind: 'input'; readonly index: number; readonly type: ComputeType }
  | { readonly kind: 'const'; readonly value: number; readonly type: ComputeType }
  /** Run-time scalar `index` of the launch: the same for all points, no new kernel per value. */
  | { readonly kind: 'scalar'; readonly index: number; readonly type: ComputeType }
  /** Coordinate of the point along a space axis, i32. */
  | { readonly kind: 'coord'; readonly axis: number; readonly type: 'i32' }
  /** Row-major index of the point in the whole space, u32. */
  | { readonly kind: 'linear'; readonly type: 'u32' }
  | { readonly kind: 'unary'; readonly op: UnaryOp; readonly x: Expr; readonly type: ComputeType }
  | {
      readonly kind: 'binary';
      readonly op: BinaryOp;
      readonly a: Expr;
      readonly b: Expr;
      readonly type: ComputeType;
    }
  /** a * b + c with one rounding where the target has it, else two; f32. */
  | {
      readonly kind: 'fma';
      readonly a: Expr;
      readonly b: Expr;
      readonly c: Expr;
      readonly type: 'f32';
    }
  | {
      readonly kind: 'select';
      readonly condition: Expr;
      readonly a: Expr;
      readonly b: Expr;
      readonly type: ComputeType;
    }
  /** Value conversion: float to int truncates and saturates (NaN to 0), bool to number 0/1, number to bool x != 0. */
  | { readonly kind: 'cast'; readonly x: Expr; readonly type: ComputeType }
  /**
   * Reduction of `x` over all reduced axes of the kernel's space: the same value at every point of a
   * row. May stand inside other expressions, and its operand may hold earlier reductions (softmax:
   * exp(x - max(x)) / sum(exp(x - max(x)))).
   */
  | { readonly kind: 'reduce'; readonly op: ReduceOp; readonly x: Expr; readonly type: ComputeType }
  /**
   * One u32 word of Philox 4x32-10, as core/random.ts defines it: word (index mod 4) of
   * philox(key [state0, state1], counter [index div 4, 0, lo, hi]) where (lo, hi) is the 64-bit sum of
   * (state2, state3) and `draw`. `state` are u32 expressions, uniform over the space.
   */
  | {
      readonly kind: 'random';
      readonly state: readonly [Expr, Expr, Expr, Expr];
      readonly draw: number;
      readonly index: Expr;
      readonly type: 'u32';
    };

export const e = {
  input: (index: number, type: ComputeType = 'f32'): Expr => ({ kind: 'input', index, type }),
  f32: (value: number): Expr => ({ kind: 'const', value, type: 'f32' }),
  i32: (value: number): Expr => ({ kind: 'const', value, type: 'i32' }),
  u32: (value: number): Expr => ({ kind: 'const', value, type: 'u32' }),
  bool: (value: boolean): Expr => ({ kind: 'const', value: value ? 1 : 0, type: 'bool' }),
  constant: (value: number, type: ComputeType): Expr => ({ kind: 'const', value, type }),
  scalar: (index: number, type: ComputeType = 'f32'): Expr => ({ kind: 'scalar', index, type }),
  coord: (axis: number): Expr => ({ kind: 'coord', axis, type: 'i32' }),
  linear: (): Expr => ({ kind: 'linear', type: 'u32' }),
  unary: (op: UnaryOp, x: Expr): Expr => ({
    kind: 'unary',
    op,
    x,
    type: op === 'isNan' ? 'bool' : x.type,
  }),
  binary: (op: BinaryOp, a: Expr, b: Expr): Expr => ({
    kind: 'binary',
    op,
    a,
    b,
    type: comparisons.has(op) ? 'bool' : a.type,
  }),
  add: (a: Expr, b: Expr): Expr => e.binary('add', a, b),
  sub: (a: Expr, b: Expr): Expr => e.binary('sub', a, b),
  mul: (a: Expr, b: Expr): Expr => e.binary('mul', a, b),
  div: (a: Expr, b: Expr): Expr => e.binary('div', a, b),
  fma: (a: Expr, b: Expr, c: Expr): Expr => ({ kind: 'fma', a, b, c, type: 'f32' }),
  select: (condition: Expr, a: Expr, b: Expr): Expr => ({
    kind: 'select',
    condition,
    a,
    b,
    type: a.type,
  }),
  cast: (x: Expr, type: ComputeType): Expr => (x.type === type ? x : { kind: 'cast', x, type }),
  reduce: (op: ReduceOp, x: Expr): Expr => ({ kind: 'reduce', op, x, type: x.type }),
  random: (state: readonly [Expr, Expr, Expr, Expr], draw: number, index: Expr): Expr => ({
    kind: 'random',
    state,
    draw,
    index,
    type: 'u32',
  }),
} as const;

export const comparisons: ReadonlySet<BinaryOp> = new Set(['eq', 'ne', 'lt', 'le', 'gt', 'ge']);

/** The direct operands of an expression, in evaluation order. */
export function operands(x: Expr): readonly Expr[] {
  switch (x.kind) {
    case 'unary':
    case 'cast':
    case 'reduce':
      return [x.x];
    case 'binary':
      return [x.a, x.b];
    case 'fma':
      return [x.a, x.b, x.c];
    case 'select':
      return [x.condition, x.a, x.b];
    case 'random':
      return [...x.state, x.index];
    default:
      return [];
  }
}

/** A copy of `x` with its direct operands replaced, in the order of `operands`. */
export function withOperands(x: Expr, parts: readonly Expr[]): Expr {
  const at = (i: number): Expr => parts[i] ?? x;
  switch (x.kind) {
    case 'unary':
    case 'cast':
    case 'reduce':
      return { ...x, x: at(0) };
    case 'binary':
      return { ...x, a: at(0), b: at(1) };
    case 'fma':
      return { ...x, a: at(0), b: at(1), c: at(2) };
    case 'select':
      return { ...x, condition: at(0), a: at(1), b: at(2) };
    case 'random':
      return { ...x, state: [at(0), at(1), at(2), at(3)], index: at(4) };
    default:
      return x;
  }
}

/** Rebuilds the expression bottom-up; shared nodes stay shared. `visit` sees rebuilt operands. */
export function mapExpr(
  x: Expr,
  visit: (node: Expr) => Expr,
  done: Map<Expr, Expr> = new Map(),
): Expr {
  const known = done.get(x);
  if (known) return known;
  const parts = operands(x);
  const mapped = parts.map((part) => mapExpr(part, visit, done));
  const same = mapped.every((part, i) => part === parts[i]);
  const result = visit(same ? x : withOperands(x, mapped));
  done.set(x, result);
  return result;
}

/**
 * Numbered straight-line form of some expressions: one line per distinct node, in evaluation order.
 * Equal subexpressions get one line, so shared work is visible and the text stays linear in size.
 */
export function linearizeExprs(roots: readonly Expr[]): {
  readonly lines: readonly { readonly node: Expr; readonly operands: readonly number[] }[];
  /** Line number of each root. */
  readonly roots: readonly number[];
} {
  const lines: { node: Expr; operands: number[] }[] = [];
  const byText = new Map<string, number>();
  const byNode = new Map<Expr, number>();
  const visit = (node: Expr): number => {
    const known = byNode.get(node);
    if (known !== undefined) return known;
    const parts = operands(node).map(visit);
    const text = `${head(node)}(${parts.join(',')})`;
    let line = byText.get(text);
    if (line === undefined) {
      line = lines.length;
      lines.push({ node, operands: parts });
      byText.set(text, line);
    }
    byNode.set(node, line);
    return line;
  };
  return { roots: roots.map(visit), lines };
}

/** Compact text of some expressions, used as cache key and in printed graphs. */
export function printExprs(roots: readonly Expr[]): string {
  const program = linearizeExprs(roots);
  const body = program.lines.map((line, i) => {
    const parts = line.operands.map((operand) => `t${operand}`).join(', ');
    return `t${i} = ${head(line.node)}${parts === '' ? '' : `(${parts})`}`;
  });
  return `${body.join('; ')}; -> ${program.roots.map((root) => `t${root}`).join(', ')}`;
}

function head(x: Expr): string {
  switch (x.kind) {
    case 'input':
      return `%${x.index}:${x.type}`;
    case 'const':
      return `${Object.is(x.value, -0) ? '-0' : x.value}:${x.type}`;
    case 'scalar':
      return `$${x.index}:${x.type}`;
    case 'coord':
      return `@${x.axis}`;
    case 'linear':
      return '@linear';
    case 'cast':
      return `to.${x.type}`;
    case 'random':
      return `random#${x.draw}`;
    case 'unary':
    case 'binary':
      return x.op;
    case 'reduce':
      return `reduce.${x.op}`;
    default:
      return x.kind;
  }
}
