/** Accuracy of the generated element-wise functions, conversions between dtypes, integer edge cases. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DType } from '../../src/core/dtype.ts';
import { type BinaryOp, type ComputeType, type Expr, e, type UnaryOp } from '../../src/ir/expr.ts';
import { computeType, type KernelSpec } from '../../src/ir/kernel.ts';
import { assertSameNumbers, decode, encode, runReference, runWasm } from './kernel-harness.ts';

const largest = 3.4028234663852886e38;
const special = [
  0,
  -0,
  1,
  -1,
  Infinity,
  -Infinity,
  NaN,
  2 ** -149,
  -(2 ** -149),
  2 ** -126,
  largest,
  -largest,
  0.5,
  -0.5,
  1e-10,
  -1e-10,
  88.7,
  88.8,
  -87.5,
  -100,
  -103.9,
  -104,
  -110,
  9.02,
  1e5,
  1e9,
  1e20,
  3e38,
  2.5,
  -1.5,
  -0.9999999,
  16777217,
  3,
  -3,
].map(Math.fround);

function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Values of an expression over operands of equal length: generated code and interpreter. */
function evaluate(
  inputs: readonly { readonly dtype: DType; readonly values: readonly number[] }[],
  dtype: DType,
  expr: Expr,
  relaxedSimd = true,
): { got: Uint8Array; want: number[] } {
  const length = inputs[0]!.values.length;
  const access = { offset: 0, strides: [1] };
  const spec: KernelSpec = {
    space: [length],
    reduced: [],
    inputs: inputs.map((input, operand) => ({ operand, dtype: input.dtype, ...access })),
    outputs: [{ operand: inputs.length, dtype, ...access, expr }],
    operands: inputs.length + 1,
    scalars: [],
  };
  const operands = [...inputs, { dtype, values: new Array<number>(length).fill(0) }];
  return {
    got: runWasm(spec, operands, [], { relaxedSimd }).at(-1)!,
    want: runReference(spec, operands).at(-1)!,
  };
}

/** Error in units in the last place of the exact value; 0 when it rounds to the same float. */
function ulps(got: number, want: number): number {
  if (Object.is(got, Math.fround(want))) return 0;
  if (Number.isNaN(got) && Number.isNaN(want)) return 0;
  const size = Math.abs(want);
  const unit = size >= 2 ** -126 ? 2 ** (Math.floor(Math.log2(size)) - 23) : 2 ** -149;
  const error = Math.abs(got - want) / unit;
  return Number.isNaN(error) || error === 0 ? Number.POSITIVE_INFINITY : error;
}

type Range = readonly [low: number, high: number];

const bounds: readonly { op: UnaryOp; ulps: number; ranges: readonly Range[] }[] = [
  {
    op: 'exp',
    ulps: 1.1,
    ranges: [
      [-104, 89],
      [-1, 1],
    ],
  },
  {
    op: 'expm1',
    ulps: 1.7,
    ranges: [
      [-20, 89],
      [-1, 1],
      [-1e-3, 1e-3],
    ],
  },
  {
    op: 'log',
    ulps: 0.9,
    ranges: [
      [0, 100],
      [0.5, 2],
      [0, 1e-37],
    ],
  },
  {
    op: 'log1p',
    ulps: 1.6,
    ranges: [
      [-1, 10],
      [-0.1, 0.1],
      [-1e-6, 1e-6],
    ],
  },
  {
    op: 'sin',
    ulps: 2,
    ranges: [
      [-100, 100],
      [-1e5, 1e5],
      [-1e9, 1e9],
      [-3e38, 3e38],
    ],
  },
  {
    op: 'cos',
    ulps: 2,
    ranges: [
      [-100, 100],
      [-1e5, 1e5],
      [-1e9, 1e9],
      [-3e38, 3e38],
    ],
  },
  {
    op: 'tanh',
    ulps: 2.4,
    ranges: [
      [-10, 10],
      [-0.5, 0.5],
      [-1e-4, 1e-4],
    ],
  },
  {
    op: 'erf',
    ulps: 1.3,
    ranges: [
      [-4.5, 4.5],
      [-1e-3, 1e-3],
    ],
  },
  {
    op: 'sigmoid',
    ulps: 2.6,
    ranges: [
      [-104, 104],
      [-10, 10],
    ],
  },
  {
    op: 'rsqrt',
    ulps: 1.5,
    ranges: [
      [0, 100],
      [0, 1e-37],
    ],
  },
  {
    op: 'sqrt',
    ulps: 0,
    ranges: [
      [0, 100],
      [0, 1e-37],
    ],
  },
  { op: 'reciprocal', ulps: 0, ranges: [[-100, 100]] },
  { op: 'neg', ulps: 0, ranges: [[-9, 9]] },
  { op: 'abs', ulps: 0, ranges: [[-9, 9]] },
  { op: 'sign', ulps: 0, ranges: [[-9, 9]] },
  { op: 'floor', ulps: 0, ranges: [[-9, 9]] },
  { op: 'ceil', ulps: 0, ranges: [[-9, 9]] },
  { op: 'round', ulps: 0, ranges: [[-9, 9]] },
];

for (const { op, ulps: bound, ranges } of bounds) {
  test(`${op} is within ${bound} units in the last place, special values included`, () => {
    const random = generator(17);
    const values = [
      ...special,
      ...ranges.flatMap(([low, high]) =>
        Array.from({ length: 20_000 }, () => Math.fround(low + (high - low) * random())),
      ),
    ];
    for (const relaxedSimd of [true, false]) {
      const inputs = [{ dtype: 'float32' as const, values }];
      const { got, want } = evaluate(inputs, 'float32', e.unary(op, e.input(0)), relaxedSimd);
      decode('float32', got).forEach((value, i) => {
        const error = ulps(value, want[i]!);
        assert.ok(error <= bound, `${op}(${values[i]}) = ${value}, want ${want[i]}: ${error} ulp`);
      });
    }
  });
}

test('pow is within one unit in the last place and has the special cases of C', () => {
  const random = generator(5);
  const pairs = special.flatMap((a) => special.map((b) => [a, b]));
  for (let i = 0; i < 20_000; i++) {
    pairs.push([Math.exp((random() - 0.5) * 170), (random() - 0.5) * 4]);
    pairs.push([0.5 + random(), (random() - 0.5) * 300]);
    pairs.push([-Math.round(random() * 9), Math.round((random() - 0.5) * 20)]);
  }
  const [a, b] = [0, 1].map((i) => pairs.map((pair) => Math.fround(pair[i]!)));
  const inputs = [a!, b!].map((values) => ({ dtype: 'float32' as const, values }));
  const { got, want } = evaluate(inputs, 'float32', e.binary('pow', e.input(0), e.input(1)));
  decode('float32', got).forEach((value, i) => {
    const error = ulps(value, want[i]!);
    assert.ok(error <= 1, `${a![i]} ** ${b![i]} = ${value}, want ${want[i]}: ${error} ulp`);
  });
});

test('max and min hand NaN on', () => {
  const pairs = special.flatMap((a) => special.map((b) => [a, b]));
  const inputs = [0, 1].map((i) => ({
    dtype: 'float32' as const,
    values: pairs.map((pair) => pair[i]!),
  }));
  for (const op of ['max', 'min'] as const) {
    const { got, want } = evaluate(inputs, 'float32', e.binary(op, e.input(0), e.input(1)));
    assertSameNumbers(decode('float32', got), want);
  }
});

test('every float16 and bfloat16 widens exactly', () => {
  for (const dtype of ['float16', 'bfloat16'] as const) {
    const all = Uint16Array.from({ length: 65_536 }, (_, i) => i);
    const values = decode(dtype, new Uint8Array(all.buffer));
    const { got } = evaluate([{ dtype, values }], 'float32', e.input(0));
    assertSameNumbers(decode('float32', got), values);
  }
});

test('float32 rounds to float16 and bfloat16 to nearest even', () => {
  for (const dtype of ['float16', 'bfloat16'] as const) {
    // Each value of the narrow type, the middle to its neighbour, and both sides of the middle.
    const all = Uint16Array.from({ length: 65_536 }, (_, i) => i);
    const narrow = decode(dtype, new Uint8Array(all.buffer));
    const values = narrow.flatMap((value, i) => {
      const next = narrow[i + 1] ?? value;
      const middle = Math.fround(value / 2 + next / 2);
      return [
        value,
        middle,
        Math.fround(middle * (1 + 2 ** -22)),
        Math.fround(middle * (1 - 2 ** -22)),
      ];
    });
    values.push(...special, 65_519, 65_520, 65_536, 2 ** -25, 2 ** -25 * 1.001);
    const { got } = evaluate([{ dtype: 'float32', values }], dtype, e.input(0));
    assertSameNumbers(decode(dtype, got), decode(dtype, encode({ dtype, values })));
  }
});

test('a value read as stored is what storing and loading gives', () => {
  const random = Array.from({ length: 4000 }, (_, i) => Math.sin(i * 1.7) * 2 ** ((i % 320) - 160));
  const floats = [
    ...special,
    ...random,
    65_504,
    65_519,
    65_520,
    65_536,
    2 ** -25,
    2 ** -25 * 1.001,
  ];
  const integers = [0, 1, -1, 127, 128, 129, 255, 256, -128, -129, 2 ** 31 - 1, -(2 ** 31), 65_537];
  for (const [dtype, wide, values] of [
    ['float16', 'float32', floats],
    ['bfloat16', 'float32', floats],
    ['int8', 'int32', integers],
  ] as const) {
    const x = e.input(0, computeType(dtype));
    const { got } = evaluate([{ dtype: wide, values }], wide, e.stored(x, dtype));
    const stored = evaluate([{ dtype: wide, values }], dtype, x).got;
    assertSameNumbers(decode(wide, got), decode(dtype, stored));
  }
});

test('casts between all compute types', () => {
  const floats = [...special, 2147483648, -2147483648, 4294967296, 0.9, -0.9, 300.7, -300.7];
  const integers = [0, 1, -1, 127, 128, -129, 2 ** 31 - 1, -(2 ** 31), 65_537];
  const sources: readonly { dtype: DType; values: readonly number[] }[] = [
    { dtype: 'float32', values: floats },
    { dtype: 'int32', values: integers },
    { dtype: 'uint32', values: [...integers.map((v) => v >>> 0), 2 ** 32 - 1] },
    { dtype: 'int8', values: [0, 1, -1, 127, -128] },
    { dtype: 'bool', values: [0, 1, 1, 0, 1] },
  ];
  for (const source of sources) {
    for (const dtype of ['float32', 'int32', 'uint32', 'int8', 'bool'] as const) {
      const to: ComputeType = computeType(dtype);
      const expr = e.cast(e.input(0, computeType(source.dtype)), to);
      const { got, want } = evaluate([source], dtype, expr);
      assertSameNumbers(decode(dtype, got), decode(dtype, encode({ dtype, values: want })));
    }
  }
});

test('integer ops at the ends of their ranges', () => {
  const ops: readonly BinaryOp[] = [
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
    'eq',
    'ne',
    'lt',
    'le',
    'gt',
    'ge',
  ];
  const values = [
    0,
    1,
    -1,
    2,
    -2,
    7,
    -7,
    31,
    32,
    33,
    2 ** 31 - 1,
    -(2 ** 31),
    -(2 ** 31) + 1,
    123_456_789,
  ];
  for (const dtype of ['int32', 'uint32'] as const) {
    const pairs = values.flatMap((a) => values.map((b) => [a, b]));
    const inputs = [0, 1].map((i) => ({
      dtype,
      values: pairs.map((pair) => (dtype === 'int32' ? pair[i]! : pair[i]! >>> 0)),
    }));
    const type = computeType(dtype);
    for (const op of ops) {
      const expr = e.binary(op, e.input(0, type), e.input(1, type));
      const out = expr.type === 'bool' ? 'bool' : dtype;
      const { got, want } = evaluate(inputs, out, expr);
      assertSameNumbers(decode(out, got), want, `${dtype} ${op}`);
    }
    const unary =
      dtype === 'int32' ? (['neg', 'abs', 'bitNot'] as const) : (['neg', 'bitNot'] as const);
    for (const op of unary) {
      const { got, want } = evaluate([inputs[0]!], dtype, e.unary(op, e.input(0, type)));
      assertSameNumbers(decode(dtype, got), want, `${dtype} ${op}`);
    }
  }
});
