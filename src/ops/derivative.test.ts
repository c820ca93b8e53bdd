import assert from 'node:assert/strict';
import { describe } from 'node:test';
import { alsoCompiled } from '../../test/support/also-compiled.ts';
import { type Expr, e, printExprs } from '../ir/expr.ts';
import { gradientExprs } from './derivative.ts';

const it = alsoCompiled(import.meta.url);

const x = e.input(0);
const y = e.input(1);
const g = e.input(2);

function gradient(root: Expr, wrt: readonly Expr[] = [x]): string {
  const found = gradientExprs([root], [g], wrt).filter((part) => part !== undefined);
  return printExprs(found);
}

describe('gradientExprs', () => {
  it('is the seed where the expression is the variable', () => {
    assert.equal(gradientExprs([x], [g], [x])[0], g);
    assert.equal(gradientExprs([e.add(x, y)], [g], [x, y])[1], g);
  });

  it('is undefined where the expression does not depend on the variable', () => {
    assert.deepEqual(gradientExprs([e.unary('exp', y)], [g], [x]), [undefined]);
    assert.deepEqual(gradientExprs([e.unary('floor', x)], [g], [x]), [undefined]);
    assert.deepEqual(gradientExprs([e.cast(e.cast(x, 'i32'), 'f32')], [g], [x]), [undefined]);
  });

  it('adds up the paths to a variable that occurs twice', () => {
    assert.equal(gradient(e.mul(x, x)), printExprs([e.add(e.mul(g, x), e.mul(g, x))]));
  });

  it('sums over several roots', () => {
    const [slope] = gradientExprs([x, e.unary('neg', x)], [g, y], [x]);
    assert.ok(slope);
    assert.equal(printExprs([slope]), printExprs([e.add(g, e.unary('neg', y))]));
  });

  it('shares the nodes of the expression it differentiates', () => {
    const root = e.unary('sigmoid', x);
    const [slope] = gradientExprs([root], [g], [x]);
    const text = printExprs([slope ?? x]);
    assert.equal(text.split('sigmoid').length - 1, 1);
  });

  it('refuses what is not elementwise', () => {
    assert.throws(() => gradientExprs([e.reduce('sum', x)], [g], [x]), /reduce has no derivative/);
  });
});
