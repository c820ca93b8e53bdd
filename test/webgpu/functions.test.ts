/** Accuracy of the written-out WGSL functions against float64. */

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { generateWgslKernel } from '../../src/codegen/wgsl/kernel.ts';
import { type Expr, e, type UnaryOp } from '../../src/ir/expr.ts';
import { openTestDevice, type TestDevice } from './device.ts';

const opened = await openTestDevice();
const missing = 'missing' in opened ? opened.missing : false;
const device = 'missing' in opened ? undefined! : opened;
if (missing) console.log(`WebGPU tests are skipped: ${missing}`);
after(() => device?.destroy());

async function evaluate(
  on: TestDevice,
  expr: Expr,
  columns: readonly Float32Array[],
): Promise<Float32Array> {
  const size = columns[0]!.length;
  const place = (operand: number) => ({
    operand,
    dtype: 'float32' as const,
    offset: 0,
    strides: [1],
  });
  const kernel = generateWgslKernel({
    space: [size],
    reduced: [],
    inputs: columns.map((_, i) => place(i)),
    outputs: [{ ...place(columns.length), expr }],
    operands: columns.length + 1,
    scalars: [],
  });
  const out = new Float32Array(size);
  const bytes = [...columns, out].map((column) => new Uint8Array(column.buffer));
  await on.run(kernel, [new Uint8Array(16), ...bytes]);
  return out;
}

/** Distance in units of the last place of the wanted float32 value. */
function ulps(have: number, want: number): number {
  if (Object.is(have, want) || have === want || (Number.isNaN(have) && Number.isNaN(want)))
    return 0;
  if (!Number.isFinite(have) || !Number.isFinite(want)) return Infinity;
  const exponent = Math.floor(Math.log2(Math.max(Math.abs(want), 2 ** -126)));
  return Math.abs(have - want) / 2 ** (exponent - 23);
}

function sweep(low: number, high: number, count: number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => low + ((high - low) * (i + 0.37)) / count);
}

/** erf by Simpson's rule on its integral: independent of any approximation of erf. */
function erf(x: number): number {
  const steps = 400;
  const h = x / steps;
  let sum = 1 + Math.exp(-x * x);
  for (let i = 1; i < steps; i++) sum += (i % 2 === 1 ? 4 : 2) * Math.exp(-((i * h) ** 2));
  return ((2 / Math.sqrt(Math.PI)) * sum * h) / 3;
}

const cases: readonly {
  readonly op: UnaryOp;
  readonly exact: (x: number) => number;
  readonly ranges: readonly (readonly [number, number])[];
  readonly ulps: number;
  readonly special: readonly number[];
}[] = [
  {
    op: 'exp',
    exact: Math.exp,
    ranges: [
      [-87, 88.7],
      [-1, 1],
    ],
    ulps: 2.5,
    special: [0, 89, 1e30, -110, -Infinity, Infinity, NaN],
  },
  {
    op: 'expm1',
    exact: Math.expm1,
    ranges: [
      [-20, 80],
      [-0.6, 0.6],
      [-1e-4, 1e-4],
    ],
    ulps: 3,
    special: [0, -Infinity, Infinity, NaN, 100],
  },
  {
    op: 'log',
    exact: Math.log,
    ranges: [
      [1e-30, 1e-25],
      [0.001, 0.5],
      [0.5, 2],
      [2, 1e6],
      [1e30, 3e38],
    ],
    ulps: 2.5,
    special: [0, 1, -1, Infinity, NaN],
  },
  {
    op: 'log1p',
    exact: Math.log1p,
    ranges: [
      [-0.9999, 1],
      [-1e-4, 1e-4],
      [1, 1e9],
    ],
    ulps: 3,
    special: [0, -1, -2, Infinity, NaN],
  },
  {
    op: 'sigmoid',
    exact: (x) => 1 / (1 + Math.exp(-x)),
    ranges: [
      [-80, 80],
      [-2, 2],
    ],
    ulps: 4,
    special: [0, -200, 200, Infinity, -Infinity, NaN],
  },
  {
    op: 'tanh',
    exact: Math.tanh,
    ranges: [
      [-12, 12],
      [-1, 1],
      [-1e-3, 1e-3],
    ],
    ulps: 4,
    special: [0, 50, -1e30, Infinity, -Infinity, NaN],
  },
  {
    op: 'erf',
    exact: erf,
    ranges: [
      [-4.5, 4.5],
      [-1.1, 1.1],
      [-1e-3, 1e-3],
    ],
    ulps: 4,
    special: [0, NaN],
  },
];

describe('accuracy of WGSL functions', { skip: missing }, () => {
  for (const { op, exact, ranges, ulps: bound, special } of cases) {
    test(`${op} is within ${bound} ulp`, async () => {
      for (const [low, high] of ranges) {
        const x = sweep(low, high, 4000);
        const have = await evaluate(device, e.unary(op, e.input(0)), [x]);
        x.forEach((value, i) => {
          const error = ulps(have[i]!, exact(value));
          assert.ok(
            error <= bound,
            `${op}(${value}) = ${have[i]}, want ${exact(value)}: ${error} ulp`,
          );
        });
      }
      const x = Float32Array.from(special);
      const have = await evaluate(device, e.unary(op, e.input(0)), [x]);
      x.forEach((value, i) => {
        const want = Math.fround(exact(value));
        assert.ok(ulps(have[i]!, want) <= bound, `${op}(${value}) = ${have[i]}, want ${want}`);
      });
    });
  }

  for (const op of ['sin', 'cos'] as const) {
    test(`${op} stays accurate for positions up to 1e5`, async () => {
      for (const [low, high] of [
        [-4, 4],
        [-1000, 1000],
        [-1e5, 1e5],
      ] as const) {
        const x = sweep(low, high, 4000);
        const have = await evaluate(device, e.unary(op, e.input(0)), [x]);
        x.forEach((value, i) => {
          const want = Math[op](value);
          assert.ok(
            Math.abs(have[i]! - want) < 1.5e-7,
            `${op}(${value}) = ${have[i]}, want ${want}`,
          );
        });
      }
    });
  }

  test('pow follows C for signs, zeros and infinities', async () => {
    const pairs = [
      [2, 10],
      [-2, 3],
      [-2, 2],
      [-2, 0.5],
      [0, 0],
      [0, 2],
      [0, -1],
      [5, 0],
      [1, NaN],
      [NaN, 0],
      [-8, -3],
      [Infinity, -2],
      [0.5, Infinity],
      [3, 2],
      [1.5, 1],
    ];
    const base = Float32Array.from(pairs, ([x]) => x!);
    const power = Float32Array.from(pairs, ([, y]) => y!);
    const have = await evaluate(device, e.binary('pow', e.input(0), e.input(1)), [base, power]);
    pairs.forEach(([x, y], i) => {
      // JavaScript alone makes 1 ** NaN a NaN.
      const want = x === 1 ? 1 : Math.fround(x! ** y!);
      assert.ok(ulps(have[i]!, want) <= 16, `${x} ** ${y} = ${have[i]}, want ${want}`);
    });
  });
});
