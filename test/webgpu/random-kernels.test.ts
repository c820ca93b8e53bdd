/** Random specs: generated WGSL on a WebGPU device against plain evaluation. */

import { after, describe, test } from 'node:test';
import fc from 'fast-check';
import { contiguousStrides, numElements } from '../../src/core/shape.ts';
import { type BinaryOp, type ComputeType, type Expr, e, type UnaryOp } from '../../src/ir/expr.ts';
import { computeType } from '../../src/ir/kernel.ts';
import { checkKernel } from './check-kernel.ts';
import { openTestDevice } from './device.ts';
import { access, dtypes, fill, spec } from './specs.ts';

const opened = await openTestDevice();
const missing = 'missing' in opened ? opened.missing : false;
const device = 'missing' in opened ? undefined! : opened;
if (missing) console.log(`WebGPU tests are skipped: ${missing}`);
after(() => device?.destroy());

describe('random WGSL kernels on a device', { skip: missing }, () => {
  test('random pointwise kernels and reductions', async () => {
    await fc.assert(
      fc.asyncProperty(randomKernel, async ({ kernel, fills }) => {
        await checkKernel(device, kernel, fills, { scalars: [3], tolerance: 1e-5 });
      }),
      { numRuns: 60, seed: 20_11 },
    );
  });
});

const intBinary: readonly BinaryOp[] = [
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
];
const floatBinary: readonly BinaryOp[] = ['add', 'sub', 'mul', 'max', 'min'];
const compares: readonly BinaryOp[] = ['eq', 'ne', 'lt', 'le', 'gt', 'ge'];
// Exact functions only: a last-place difference under floor or a comparison would grow to 1.
const floatUnary: readonly UnaryOp[] = [
  'neg',
  'abs',
  'floor',
  'ceil',
  'round',
  'sign',
  'roundF16',
  'roundBf16',
];

/** Expressions over inputs 0..2 whose value is of `type`; ints stay exact, floats stay moderate. */
function exprOf(
  type: ComputeType,
  inputs: readonly ComputeType[],
  depth: number,
): fc.Arbitrary<Expr> {
  const leaves: fc.Arbitrary<Expr>[] = [
    fc
      .integer({ min: 0, max: 9 })
      .map((value) => e.constant(type === 'bool' ? value & 1 : value, type)),
  ];
  inputs.forEach((have, i) => leaves.push(fc.constant(e.cast(e.input(i, have), type))));
  if (type === 'i32') leaves.push(fc.constant(e.coord(0)), fc.constant(e.scalar(0, 'i32')));
  if (type === 'u32') leaves.push(fc.constant(e.linear()));
  const leaf = fc.oneof(...leaves);
  if (depth === 0) return leaf;
  const sub = exprOf(type, inputs, depth - 1);
  const pair = (ops: readonly BinaryOp[], part: fc.Arbitrary<Expr>) =>
    fc.tuple(fc.constantFrom(...ops), part, part).map(([op, a, b]) => e.binary(op, a, b));
  const choose = fc
    .tuple(exprOf('bool', inputs, 0), sub, sub)
    .map(([condition, a, b]) => e.select(condition, a, b));
  if (type === 'bool') {
    const compare = fc
      .constantFrom<ComputeType>('f32', 'i32', 'u32', 'bool')
      .chain((t) => pair(compares, exprOf(t, inputs, 0)));
    return fc.oneof(
      leaf,
      pair(['and', 'or', 'xor'], sub),
      compare,
      sub.map((x) => e.unary('not', x)),
    );
  }
  if (type === 'f32') {
    const unary = fc.tuple(fc.constantFrom(...floatUnary), sub).map(([op, x]) => e.unary(op, x));
    return fc.oneof(leaf, unary, pair(floatBinary, exprOf(type, inputs, 0)), choose);
  }
  return fc.oneof(
    leaf,
    pair(intBinary, sub),
    choose,
    sub.map((x) => e.unary('bitNot', x)),
  );
}

const randomKernel = fc
  .record({
    space: fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 1, maxLength: 3 }),
    inputs: fc.array(
      fc.record({ dtype: fc.constantFrom(...dtypes), mask: fc.nat(7), flip: fc.boolean() }),
      { minLength: 1, maxLength: 3 },
    ),
    outDtypes: fc.array(fc.constantFrom(...dtypes), { minLength: 1, maxLength: 2 }),
    offset: fc.nat(3),
    reducedMask: fc.nat(7),
  })
  .chain(({ space, inputs, outDtypes, offset, reducedMask }) => {
    const accesses = inputs.map(({ dtype, mask, flip }, operand) => {
      const kept = space.map((dim, axis) => (((mask >> axis) & 1) === 1 ? 1 : dim));
      const dense = contiguousStrides(kept);
      const strides = space.map((dim, axis) => (kept[axis] === 1 && dim !== 1 ? 0 : dense[axis]!));
      const size = numElements(kept);
      const flipped = flip ? strides.map((s) => -s) : strides;
      return { access: access(operand, dtype, flipped, flip ? size - 1 : 0), size };
    });
    const types = inputs.map(({ dtype }) => computeType(dtype));
    const reduced = [...space.keys()].filter((axis) => (reducedMask >> axis) & 1);
    const total = numElements(space);
    const outputs = fc.tuple(
      ...outDtypes.map((dtype, k) => {
        const out = access(inputs.length + k, dtype, contiguousStrides(space), offset);
        return exprOf(computeType(dtype), types, 3).map((expr) => {
          // Only exact reductions: maxima, and integer sums that wrap.
          const op = expr.type === 'i32' || expr.type === 'u32' ? 'sum' : 'max';
          return { ...out, expr: reduced.length > 0 ? combine(expr, e.reduce(op, expr)) : expr };
        });
      }),
    );
    return outputs.map((outs) => ({
      kernel: spec(
        space,
        accesses.map((a) => a.access),
        outs,
        { reduced, scalars: ['i32'] },
      ),
      fills: [
        ...accesses.map(({ access: a, size }, i) => fill(a.dtype, size, i)),
        ...outDtypes.map((dtype, k) => fill(dtype, total + offset + 3, 10 + k)),
      ],
    }));
  });

function combine(x: Expr, total: Expr): Expr {
  return e.binary(x.type === 'bool' ? 'xor' : 'min', x, total);
}
