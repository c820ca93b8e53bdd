import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Expr, e, printExprs } from './expr.ts';
import type { KernelSpec } from './kernel.ts';
import { kernelShape, normalizeKernel } from './kernel-space.ts';

function spec(
  space: readonly number[],
  reduced: readonly number[],
  input: readonly number[],
  output: readonly number[],
  expr: Expr,
): KernelSpec {
  return {
    space,
    reduced,
    inputs: [{ operand: 0, dtype: 'float32', offset: 0, strides: input }],
    outputs: [{ operand: 1, dtype: 'float32', offset: 0, strides: output, expr }],
    operands: 2,
    scalars: [],
  };
}

/** Space, reduced axes, strides and expressions in one line. */
function summary(kernel: KernelSpec): string {
  return [
    `[${kernel.space}] reduced [${kernel.reduced}]`,
    ...kernel.inputs.map((input) => `in (${input.strides})`),
    ...kernel.outputs.map((output) => `out (${output.strides})`),
    printExprs(kernel.outputs.map((output) => output.expr)),
  ].join(' ');
}

const x = e.input(0);

test('dense axes merge into one, and axes of size one go', () => {
  const kernel = normalizeKernel(spec([2, 1, 3, 4], [], [12, 99, 4, 1], [12, 0, 4, 1], x));
  assert.equal(summary(kernel), '[24] reduced [] in (1) out (1) t0 = %0:f32; -> t0');
});

test('an axis that one operand steps through otherwise stays', () => {
  const kernel = normalizeKernel(spec([2, 3, 4], [], [0, 4, 1], [12, 4, 1], x));
  assert.equal(summary(kernel), '[2,12] reduced [] in (0,1) out (12,1) t0 = %0:f32; -> t0');
});

test('kept and reduced axes never merge', () => {
  const kernel = normalizeKernel(spec([2, 3, 4], [2], [12, 4, 1], [3, 1, 0], e.reduce('sum', x)));
  assert.equal(
    summary(kernel),
    '[6,4] reduced [1] in (4,1) out (1,0) t0 = %0:f32; t1 = reduce.sum(t0); -> t1',
  );
  assert.equal(kernelShape(kernel), 'row');
});

test('reduced axes that become neighbours merge when operands allow', () => {
  const kernel = normalizeKernel(spec([2, 3, 4], [0, 2], [4, 8, 1], [0, 1, 0], e.reduce('sum', x)));
  assert.equal(
    summary(kernel),
    '[3,8] reduced [1] in (8,1) out (1,0) t0 = %0:f32; t1 = reduce.sum(t0); -> t1',
  );
});

test('the innermost axis stays kept: reduced, then kept', () => {
  const kernel = normalizeKernel(
    spec([2, 3, 5, 4], [0, 2], [60, 20, 4, 1], [0, 4, 0, 1], e.reduce('sum', x)),
  );
  assert.deepEqual(kernel.space, [2, 5, 3, 4]);
  assert.deepEqual(kernel.reduced, [0, 1]);
  assert.equal(kernelShape(kernel), 'column');
});

test('permuted operands of one layout become one dense axis', () => {
  const kernel = normalizeKernel(spec([3, 4, 5], [], [5, 15, 1], [5, 15, 1], x));
  assert.equal(summary(kernel), '[60] reduced [] in (1) out (1) t0 = %0:f32; -> t0');
});

test('linear keeps the order of the axes, also where they merge', () => {
  const body = e.mul(x, e.cast(e.linear(), 'f32'));
  const kernel = normalizeKernel(
    spec([2, 3, 4, 5], [1], [60, 20, 5, 1], [20, 0, 5, 1], e.reduce('sum', body)),
  );
  assert.deepEqual(kernel.space, [2, 3, 20]);
  assert.deepEqual(kernel.reduced, [1]);
});

test('axes named by coord do not merge and are renumbered', () => {
  const body = e.add(x, e.cast(e.add(e.coord(2), e.coord(1)), 'f32'));
  const kernel = normalizeKernel(spec([3, 1, 4, 5], [], [20, 0, 5, 1], [20, 0, 5, 1], body));
  assert.equal(
    summary(kernel),
    '[3,4,5] reduced [] in (20,5,1) out (20,5,1) t0 = %0:f32; t1 = @1; t2 = 0:i32; ' +
      't3 = add(t1, t2); t4 = to.f32(t3); t5 = add(t0, t4); -> t5',
  );
});

test('equal inputs become one', () => {
  const input = { operand: 0, dtype: 'float32', offset: 0, strides: [1] } as const;
  const kernel = normalizeKernel({
    ...spec([4], [], [1], [1], e.add(x, e.mul(e.input(1), e.input(2)))),
    inputs: [input, { ...input }, { ...input, offset: 1 }],
  });
  assert.equal(kernel.inputs.length, 2);
  assert.equal(
    printExprs([kernel.outputs[0]?.expr ?? x]),
    't0 = %0:f32; t1 = %1:f32; t2 = mul(t0, t1); t3 = add(t0, t2); -> t3',
  );
});

test('a row of one element still takes the neutral element in', () => {
  const kernel = normalizeKernel(spec([3, 1], [1], [1, 1], [1, 0], e.reduce('max', x)));
  assert.equal(
    summary(kernel),
    '[3] reduced [] in (1) out (1) t0 = -Infinity:f32; t1 = %0:f32; t2 = max(t0, t1); -> t2',
  );
});

test('a single point has no axes', () => {
  const kernel = normalizeKernel(spec([1, 1], [], [1, 1], [1, 1], x));
  assert.deepEqual(kernel.space, []);
  assert.equal(kernelShape(kernel), 'pointwise');
});
