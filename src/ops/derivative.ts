/**
 * Derivatives of scalar expressions, by reverse accumulation. Pointwise ops get their gradients from
 * here, so each needs one kernel for its backward and is differentiable any number of times.
 *
 * Conventions at kinks are PyTorch's: abs and sign have slope 0 at 0, max and min give half to each side
 * of a tie, x^0 has slope 0. Conditions, integers and random words are constants.
 */

import { invariant } from '../core/errors.ts';
import { type Expr, e, operands } from '../ir/expr.ts';

const zero = e.f32(0);
const one = e.f32(1);

/**
 * The gradients of sum(seeds[k] * roots[k]) with respect to each node of `wrt` (f32 leaves, by
 * identity); undefined where it is zero everywhere.
 */
export function gradientExprs(
  roots: readonly Expr[],
  seeds: readonly Expr[],
  wrt: readonly Expr[],
): (Expr | undefined)[] {
  const relevant = dependents(roots, new Set(wrt));
  const adjoints = new Map<Expr, Expr>();
  const give = (node: Expr, amount: Expr): void => {
    if (!relevant.has(node) || node.type !== 'f32' || isConstant(amount, 0)) return;
    const have = adjoints.get(node);
    adjoints.set(node, have ? e.add(have, amount) : amount);
  };
  roots.forEach((root, k) => {
    const seed = seeds[k];
    if (seed) give(root, seed);
  });
  for (const node of [...relevant].reverse()) {
    const adjoint = adjoints.get(node);
    if (adjoint) propagate(node, adjoint, give);
  }
  return wrt.map((node) => adjoints.get(node));
}

/** Nodes that depend on one of `leaves`, operands before users. */
function dependents(roots: readonly Expr[], leaves: ReadonlySet<Expr>): Set<Expr> {
  const verdicts = new Map<Expr, boolean>();
  const order = new Set<Expr>();
  const visit = (node: Expr): boolean => {
    const known = verdicts.get(node);
    if (known !== undefined) return known;
    let depends = leaves.has(node);
    for (const part of operands(node)) if (visit(part)) depends = true;
    verdicts.set(node, depends);
    if (depends) order.add(node);
    return depends;
  };
  for (const root of roots) visit(root);
  return order;
}

function propagate(y: Expr, a: Expr, give: (node: Expr, amount: Expr) => void): void {
  switch (y.kind) {
    case 'unary': {
      const slope = unarySlope(y, y.x);
      if (slope) give(y.x, times(a, slope));
      return;
    }
    case 'binary':
      propagateBinary(y, a, give);
      return;
    case 'fma':
      give(y.a, times(a, y.b));
      give(y.b, times(a, y.a));
      give(y.c, a);
      return;
    case 'select':
      give(y.a, e.select(y.condition, a, zero));
      give(y.b, e.select(y.condition, zero, a));
      return;
    case 'cast':
      if (y.x.type === 'f32') give(y.x, a);
      return;
    case 'input':
    case 'random':
      return;
    default:
      invariant(false, () => `a pointwise expression with ${y.kind} has no derivative`);
  }
}

/** dy/dx of y = op(x); undefined where it is zero. */
function unarySlope(y: Expr & { kind: 'unary' }, x: Expr): Expr | undefined {
  switch (y.op) {
    case 'neg':
      return e.f32(-1);
    case 'abs':
      return e.unary('sign', x);
    case 'exp':
      return y;
    case 'expm1':
      return e.add(y, one);
    case 'log':
      return e.unary('reciprocal', x);
    case 'log1p':
      return e.unary('reciprocal', e.add(x, one));
    case 'sqrt':
      return e.div(e.f32(0.5), y);
    case 'rsqrt':
      return e.mul(e.f32(-0.5), e.mul(y, e.mul(y, y)));
    case 'reciprocal':
      return e.unary('neg', e.mul(y, y));
    case 'sin':
      return e.unary('cos', x);
    case 'cos':
      return e.unary('neg', e.unary('sin', x));
    case 'tanh':
      return e.sub(one, e.mul(y, y));
    case 'erf':
      return e.mul(e.f32(2 / Math.sqrt(Math.PI)), e.unary('exp', e.unary('neg', e.mul(x, x))));
    case 'sigmoid':
      return e.mul(y, e.sub(one, y));
    default:
      return undefined; // sign, floor, ceil, round: flat; isNan, not, bitNot: not numbers
  }
}

function propagateBinary(
  y: Expr & { kind: 'binary' },
  adjoint: Expr,
  give: (node: Expr, amount: Expr) => void,
): void {
  const { a, b } = y;
  switch (y.op) {
    case 'add':
      give(a, adjoint);
      give(b, adjoint);
      return;
    case 'sub':
      give(a, adjoint);
      give(b, e.unary('neg', adjoint));
      return;
    case 'mul':
      give(a, times(adjoint, b));
      give(b, times(adjoint, a));
      return;
    case 'div':
      give(a, e.div(adjoint, b));
      give(b, e.unary('neg', e.div(times(adjoint, y), b)));
      return;
    case 'pow': {
      const lowered = e.binary('pow', a, e.sub(b, one));
      const flat = e.binary('eq', b, zero);
      give(a, times(adjoint, e.select(flat, zero, times(b, lowered))));
      const atZero = e.binary('and', e.binary('eq', a, zero), e.binary('ge', b, zero));
      give(b, times(adjoint, e.select(atZero, zero, times(y, e.unary('log', a)))));
      return;
    }
    case 'max':
    case 'min': {
      const half = times(adjoint, e.f32(0.5));
      const tie = e.binary('eq', a, b);
      const aWins = e.binary(y.op === 'max' ? 'gt' : 'lt', a, b);
      give(a, e.select(aWins, adjoint, e.select(tie, half, zero)));
      give(b, e.select(aWins, zero, e.select(tie, half, adjoint)));
      return;
    }
    default:
      return; // comparisons and integer ops carry no gradient
  }
}

function times(a: Expr, b: Expr): Expr {
  if (isConstant(a, 1)) return b;
  if (isConstant(b, 1)) return a;
  if (isConstant(a, -1)) return e.unary('neg', b);
  if (isConstant(b, -1)) return e.unary('neg', a);
  return e.mul(a, b);
}

function isConstant(x: Expr, value: number): boolean {
  return x.kind === 'const' && x.value === value;
}
