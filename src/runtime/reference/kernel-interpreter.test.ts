import assert from 'node:assert/strict';
import { test } from 'node:test';
import { philox } from '../../core/random.ts';
import { e } from '../../ir/expr.ts';
import type { KernelSpec } from '../../ir/kernel.ts';
import { runKernel } from './kernel-interpreter.ts';
import {
  erf,
  binaryFunction,
  castFunction,
  philoxWord,
  unaryFunction,
} from './scalar-functions.ts';

test('erf at tabulated points, at the seam of its two formulas, and at the ends', () => {
  const table = [
    [0, 0],
    [0.5, 0.5204998778130465],
    [1, 0.8427007929497149],
    [-2, -0.9953222650189527],
    [2.5, 0.999593047982555],
    [3, 0.9999779095030014],
    [Infinity, 1],
  ] as const;
  for (const [x, want] of table) assert.ok(Math.abs(erf(x) - want) < 1e-14, `erf(${x})`);
  assert.ok(Math.abs(erf(2.5) - erf(2.5 - 1e-12)) < 1e-13);
  assert.ok(Number.isNaN(erf(Number.NaN)));
});

test('rounding, casts, integers and powers follow the definitions in ir/expr.ts', () => {
  const round = unaryFunction('round', 'f32');
  assert.deepEqual([0.5, 1.5, 2.5, -0.5, -1.5, 2.4].map(round), [0, 2, 2, -0, -2, 2]);
  const toInt = castFunction('f32', 'i32');
  assert.deepEqual(
    [1.9, -1.9, 3e9, -3e9, Number.NaN].map(toInt),
    [1, -1, 2147483647, -2147483648, 0],
  );
  assert.equal(castFunction('f32', 'u32')(-5), 0);
  assert.equal(castFunction('i32', 'u32')(-1), 4294967295);
  assert.equal(binaryFunction('div', 'i32')(-7, 2), -3);
  assert.equal(binaryFunction('div', 'i32')(-(2 ** 31), -1), -(2 ** 31));
  assert.equal(binaryFunction('rem', 'u32')(7, 0), 0);
  assert.equal(binaryFunction('mul', 'u32')(4294967295, 4294967295), 1);
  assert.equal(binaryFunction('pow', 'f32')(1, Number.NaN), 1);
});

test('random words are those of philox with a 64-bit draw offset', () => {
  const words = new Uint32Array(4);
  const word = philoxWord(3);
  for (const index of [0, 1, 2, 3, 4, 4294967295]) {
    philox(index >>> 2, 0, 1, 9, 11, 12, words);
    assert.equal(word(11, 12, 4294967294, 8, index), words[index & 3]);
  }
});

test('floats are not rounded, and elements lie one slot per byte', () => {
  const spec: KernelSpec = {
    space: [2],
    reduced: [],
    inputs: [{ operand: 0, dtype: 'float32', offset: 1, strides: [-1] }],
    outputs: [
      {
        operand: 1,
        dtype: 'bfloat16',
        offset: 0,
        strides: [1],
        expr: e.add(e.input(0), e.f32(0.1)),
      },
    ],
    operands: 2,
    scalars: [],
  };
  const data = new Float64Array(12);
  data[2] = 0.2;
  data[6] = 0.7;
  runKernel(
    spec,
    [
      { data, start: 2 },
      { data, start: 8 },
    ],
    [],
  );
  assert.deepEqual([data[8], data[10]], [0.7 + 0.1, 0.2 + 0.1]);
});

test('softmax in place reads the row before it writes it', () => {
  const x = e.input(0);
  const shifted = e.unary('exp', e.sub(x, e.reduce('max', x)));
  const access = { operand: 0, dtype: 'float32', offset: 0, strides: [3, 1] } as const;
  const data = new Float64Array(24);
  [1, 2, 3, 5, 5, 5].forEach((value, i) => {
    data[4 * i] = value;
  });
  runKernel(
    {
      space: [2, 3],
      reduced: [1],
      inputs: [access],
      outputs: [{ ...access, expr: e.div(shifted, e.reduce('sum', shifted)) }],
      operands: 1,
      scalars: [],
    },
    [{ data, start: 0 }],
    [],
  );
  const sum = Math.exp(-2) + Math.exp(-1) + 1;
  assert.deepEqual([data[0], data[4], data[8]], [Math.exp(-2) / sum, Math.exp(-1) / sum, 1 / sum]);
  assert.equal(data[12], 1 / 3);
});
