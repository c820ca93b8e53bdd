/** Generated WebAssembly kernels: random specs, the order of reductions, layouts, threads, aliasing. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { philox } from '../../src/core/random.ts';
import { contiguousStrides, numElements } from '../../src/core/shape.ts';
import { type Expr, e, type ReduceOp } from '../../src/ir/expr.ts';
import type { KernelInput, KernelSpec } from '../../src/ir/kernel.ts';
import { checkRandomKernels } from './equals-interpreter.ts';
import { choices, randomLayout } from './kernel-arbitrary.ts';
import {
  assertSameNumbers,
  decode,
  type RunOptions,
  runReference,
  runWasm,
} from './kernel-harness.ts';

const x = e.input(0);
const shifted = e.unary('exp', e.sub(x, e.reduce('max', x)));
const softmax = e.div(shifted, e.reduce('sum', shifted));

function noise(count: number, seed: number, scale = 4): number[] {
  let state = seed >>> 0;
  return Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.fround((state / 2 ** 32 - 0.5) * scale);
  });
}

function dense(operand: number, space: readonly number[]): KernelInput {
  return { operand, dtype: 'float32', offset: 0, strides: contiguousStrides(space) };
}

/** The result of one float32 input and output over `space`, as numbers. */
function runOne(
  space: readonly number[],
  reduced: readonly number[],
  expr: Expr,
  values: readonly number[],
  options: RunOptions = {},
): number[] {
  const spec: KernelSpec = {
    space,
    reduced,
    inputs: [dense(0, space)],
    outputs: [{ ...dense(1, space), expr }],
    operands: 2,
    scalars: [],
  };
  const operands = [values, values.map(() => 0)].map((v) => ({
    dtype: 'float32' as const,
    values: v,
  }));
  return decode('float32', runWasm(spec, operands, [], options)[1]!);
}

test('random kernels equal the interpreter exactly, on one to three threads and either addressing', () => {
  checkRandomKernels(300);
});

test('a reduction takes its elements in the order that ir/kernel.ts fixes, whatever the layout', () => {
  const combine: Record<string, (a: number, b: number) => number> = {
    sum: (a, b) => Math.fround(a + b),
    prod: (a, b) => Math.fround(a * b),
  };
  fc.assert(
    fc.property(fc.gen(), (g) => {
      const c = choices(g);
      const rank = c.integer(1, 4);
      const space = Array.from({ length: rank }, () => c.pick([1, 2, 3, 5, 16, 19, 32]));
      const reduced = space.flatMap((_, axis) => (c.pick([true, false]) ? [axis] : []));
      if (reduced.length === 0) reduced.push(c.integer(0, rank - 1));
      const op = c.pick<ReduceOp>(['sum', 'prod']);
      const layout = randomLayout(c, space, {});
      const values = noise(layout.length, c.integer(1, 1e6), op === 'prod' ? 0.25 : 8).map((v) =>
        op === 'prod' ? Math.fround(v + 1) : v,
      );
      const kept = space.flatMap((_, axis) => (reduced.includes(axis) ? [] : [axis]));
      const keptSpace = kept.map((axis) => space[axis]!);
      const rows = numElements(keptSpace);
      const outStrides = space.map(() => 0);
      contiguousStrides(keptSpace).forEach((stride, i) => {
        outStrides[kept[i]!] = stride;
      });
      const out = decode(
        'float32',
        runWasm(
          {
            space,
            reduced,
            inputs: [
              { operand: 0, dtype: 'float32', offset: layout.offset, strides: layout.strides },
            ],
            outputs: [
              {
                operand: 1,
                dtype: 'float32',
                offset: 0,
                strides: outStrides,
                expr: e.reduce(op, x),
              },
            ],
            operands: 2,
            scalars: [],
          },
          [
            { dtype: 'float32', values },
            { dtype: 'float32', values: new Array<number>(rows).fill(0) },
          ],
          [],
          { threads: c.integer(1, 3) },
        )[1]!,
      );
      const innermost = space.findLastIndex((size) => size > 1);
      const interleaved = innermost < 0 || reduced.includes(innermost);
      const expected = rowElements(space, kept, reduced).map((points) => {
        const row = points.map(
          (point) =>
            values[
              layout.offset + point.reduce((at, i, axis) => at + i * layout.strides[axis]!, 0)
            ]!,
        );
        return reduceRow(row, combine[op]!, op === 'sum' ? 0 : 1, interleaved);
      });
      assertSameNumbers(out, expected);
    }),
    { numRuns: 200 },
  );
});

/** The points of each row, rows and points in row-major order. */
function rowElements(
  space: readonly number[],
  kept: readonly number[],
  reduced: readonly number[],
): number[][][] {
  const points = (axes: readonly number[], point: number[]): number[][] => {
    const [axis, ...rest] = axes;
    if (axis === undefined) return [point];
    return Array.from({ length: space[axis]! }, (_, i) =>
      points(
        rest,
        point.map((at, a) => (a === axis ? i : at)),
      ),
    ).flat();
  };
  const origin = space.map(() => 0);
  return points(kept, origin).map((row) => points(reduced, row));
}

function reduceRow(
  row: readonly number[],
  combine: (a: number, b: number) => number,
  neutral: number,
  interleaved: boolean,
): number {
  if (!interleaved) return row.reduce(combine, neutral);
  const partials = new Array<number>(16).fill(neutral);
  row.forEach((value, i) => {
    partials[i % 16] = combine(partials[i % 16]!, value);
  });
  for (const half of [8, 4, 2, 1]) {
    for (let j = 0; j < half; j++) partials[j] = combine(partials[j]!, partials[j + half]!);
  }
  return partials[0]!;
}

test('the same values give the same bits in every layout and on any number of threads', () => {
  const shared = e.unary('tanh', e.mul(x, e.f32(0.7)));
  const exprs: Record<string, Expr> = {
    softmax,
    norm: e.mul(x, e.unary('rsqrt', e.add(e.reduce('sum', e.mul(x, x)), e.f32(1e-5)))),
    mixed: e.fma(e.unary('sin', x), shared, e.sub(shared, e.unary('erf', x))),
    logs: e.add(
      e.unary('log1p', e.unary('abs', x)),
      e.binary('pow', e.unary('abs', x), e.f32(1.3)),
    ),
  };
  fc.assert(
    fc.property(fc.gen(), (g) => {
      const c = choices(g);
      const space = [c.integer(1, 4), c.integer(1, 5), c.pick([1, 3, 4, 7, 16, 21, 64, 67])];
      const reduced = c.pick([[2], [0], [0, 1], [1, 2], [0, 2]]);
      const name = c.pick(Object.keys(exprs));
      const expr = exprs[name]!;
      const isReduction = name === 'softmax' || name === 'norm';
      const values = noise(numElements(space), c.integer(1, 1e6));
      const reference = runOne(space, isReduction ? reduced : [], expr, values);

      const layout = randomLayout(c, space, {});
      const spread = new Array<number>(layout.length).fill(Number.NaN);
      const at = (i: number): number =>
        contiguousStrides(space).reduce(
          (slot, step, axis) =>
            slot + (Math.floor(i / step) % space[axis]!) * layout.strides[axis]!,
          layout.offset,
        );
      values.forEach((value, i) => {
        spread[at(i)] = value;
      });
      const place = { dtype: 'float32' as const, offset: layout.offset, strides: layout.strides };
      const out = decode(
        'float32',
        runWasm(
          {
            space,
            reduced: isReduction ? reduced : [],
            inputs: [{ operand: 0, ...place }],
            outputs: [{ operand: 1, ...place, expr }],
            operands: 2,
            scalars: [],
          },
          [
            { dtype: 'float32', values: spread },
            { dtype: 'float32', values: spread },
          ],
          [],
          { threads: c.integer(1, 3), alias: c.pick([true, false]) ? { 1: 0 } : {} },
        )[1]!,
      );
      assertSameNumbers(
        values.map((_, i) => out[at(i)]),
        reference,
      );
    }),
    { numRuns: 150 },
  );
});

test('long stretches are cut into blocks for threads without a seam', () => {
  for (const space of [[1023], [5003], [131_077], [3, 4099], [70, 33]]) {
    const values = noise(numElements(space), 11);
    const expected = values.map((value) => Math.fround(value * 2));
    for (const threads of [1, 2, 3]) {
      assertSameNumbers(runOne(space, [], e.add(x, x), values, { threads }), expected);
    }
  }
});

test('outputs may take the place of inputs, also across the passes over a row', () => {
  const space = [5, 37];
  const a = noise(185, 3);
  const b = noise(185, 4);
  // One of softmax backward's forms: reads both inputs again in the last pass.
  const g = e.input(1);
  const p = e.unary('exp', x);
  const backward = e.sub(g, e.mul(p, e.reduce('sum', e.mul(g, p))));
  for (const [expr, reduced] of [
    [softmax, [1]],
    [softmax, [0]],
    [backward, [1]],
    [backward, [0]],
    [e.add(shifted, g), [1]],
  ] as const) {
    const spec: KernelSpec = {
      space,
      reduced,
      inputs: [dense(0, space), dense(1, space)],
      outputs: [{ ...dense(2, space), expr }],
      operands: 3,
      scalars: [],
    };
    const operands = [a, b, a].map((values) => ({ dtype: 'float32' as const, values }));
    const apart = decode('float32', runWasm(spec, operands)[2]!);
    const expected = runReference(spec, operands)[2]!;
    apart.forEach((value, i) => {
      const error = Math.abs(value - expected[i]!);
      assert.ok(error <= 1e-5 * (1 + Math.abs(expected[i]!)), `element ${i}`);
    });
    for (const other of [0, 1]) {
      const inPlace = runWasm(spec, operands, [], { alias: { 2: other }, threads: 2 })[2]!;
      assertSameNumbers(decode('float32', inPlace), apart);
    }
  }
});

test('random words equal core/random.ts for every alignment of rows', () => {
  const words = new Uint32Array(4);
  const state = [7, 0xffff_fff0, 0xffff_ffff, 3] as const;
  const [s0, s1, s2, s3] = state.map((word) => e.u32(word)) as [Expr, Expr, Expr, Expr];
  for (const [space, strides] of [
    [[257], [1]],
    [
      [5, 16],
      [16, 1],
    ],
    [
      [3, 12],
      [13, 1],
    ],
    [
      [4, 7],
      [9, 1],
    ],
    [
      [2, 3, 20],
      [64, 20, 1],
    ],
    [
      [2, 20],
      [1, 2],
    ],
  ] as const) {
    const draw = 2;
    const length = 200 + numElements(space);
    const spec: KernelSpec = {
      space,
      reduced: [],
      inputs: [],
      outputs: [
        {
          operand: 0,
          dtype: 'uint32',
          offset: 0,
          strides,
          expr: e.random([s0, s1, s2, s3], draw, e.linear()),
        },
      ],
      operands: 1,
      scalars: [],
    };
    const values = new Array<number>(length).fill(0);
    const out = decode(
      'uint32',
      runWasm(spec, [{ dtype: 'uint32', values }], [], { threads: 2 })[0]!,
    );
    const low = (state[2] + draw) >>> 0;
    const high = state[3] + 1; // the sum carries
    contiguousStrides(space);
    for (let i = 0; i < numElements(space); i++) {
      philox(i >>> 2, 0, low, high, state[0], state[1], words);
      const at = contiguousStrides(space).reduce(
        (slot, step, axis) => slot + (Math.floor(i / step) % space[axis]!) * strides[axis]!,
        0,
      );
      assert.equal(out[at], words[i % 4]);
    }
  }
});

test('random words inside reductions that cross rows at any phase', () => {
  // 12 is no multiple of 16, and the rows cannot be merged: elements are taken one by one.
  const space = [3, 2, 12];
  const state = [e.u32(1), e.u32(2), e.u32(3), e.u32(4)] as const;
  const spec: KernelSpec = {
    space,
    reduced: [0, 2],
    inputs: [],
    outputs: [
      {
        operand: 0,
        dtype: 'uint32',
        offset: 0,
        strides: [0, 1, 0],
        expr: e.reduce('sum', e.random([...state], 0, e.linear())),
      },
    ],
    operands: 1,
    scalars: [],
  };
  const operands = [{ dtype: 'uint32' as const, values: [0, 0] }];
  assertSameNumbers(
    decode('uint32', runWasm(spec, operands)[0]!),
    runReference(spec, operands)[0]!,
  );
});
