/** Generated WGSL kernels on a WebGPU device against plain evaluation of their specs. */

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { generateWgslKernel } from '../../src/codegen/wgsl/kernel.ts';
import { libraryNames, UsedFunctions } from '../../src/codegen/wgsl/library.ts';
import { type Expr, e } from '../../src/ir/expr.ts';
import { computeType } from '../../src/ir/kernel.ts';
import { checkKernel, type OperandFill } from './check-kernel.ts';
import { openTestDevice } from './device.ts';
import { access, dtypes, fill, spec } from './specs.ts';

const opened = await openTestDevice();
const missing = 'missing' in opened ? opened.missing : false;
const device = 'missing' in opened ? undefined! : opened;
if (missing) console.log(`WebGPU tests are skipped: ${missing}`);
after(() => device?.destroy());

describe('WGSL kernels on a device', { skip: missing }, () => {
  test('every library function compiles', async () => {
    const functions = new UsedFunctions();
    for (const name of libraryNames) functions.use(name);
    await device.compile(functions.definitions().join('\n'));
  });

  for (const dtype of dtypes) {
    test(`${dtype}: copies odd sizes between any offsets and keeps the neighbours`, async () => {
      for (const [size, from, to] of [
        [1, 0, 0],
        [7, 1, 2],
        [300, 3, 1],
        [515, 0, 3],
      ] as const) {
        const out = { ...access(1, dtype, [1], to), expr: e.input(0, computeType(dtype)) };
        const kernel = spec([size], [access(0, dtype, [1], from)], [out]);
        await checkKernel(device, kernel, [fill(dtype, size + 5, 1), fill(dtype, size + 6, 2)]);
      }
    });

    test(`${dtype}: reads values as they would be stored`, async () => {
      const floats = dtype.includes('float');
      const from = floats ? 'float32' : dtype === 'int8' ? 'int32' : dtype;
      const value = (i: number): number => (floats ? i ** 3 / 7 : dtype === 'bool' ? i % 2 : i * 3);
      const input = { dtype: from, elements: 300, value };
      const out = { ...access(1, from, [1]), expr: e.stored(e.input(0, computeType(from)), dtype) };
      await checkKernel(device, spec([300], [access(0, from, [1])], [out]), [
        input,
        fill(from, 300, 2),
      ]);
    });

    test(`${dtype}: writes through strides, transposed and reversed`, async () => {
      const x = e.input(0, computeType(dtype));
      const out = { ...access(1, dtype, [1, -5, 20], 15), expr: x };
      const kernel = spec([5, 4, 3], [access(0, dtype, [12, 3, 1])], [out]);
      await checkKernel(device, kernel, [fill(dtype, 60, 3), fill(dtype, 60, 4)]);
    });

    test(`${dtype}: reduces rows and columns`, async () => {
      const type = computeType(dtype);
      // Small whole numbers sum exactly in any order.
      const small = (i: number) => (dtype === 'bool' ? i % 3 && 1 : (i * 7) % 5);
      const input = { dtype, elements: 9 * 37, value: small };
      for (const [inStrides, outStrides, reduced] of [
        [[37, 1], [1, 0], [1]],
        [[37, 1], [0, 1], [0]],
      ] as const) {
        for (const op of ['sum', 'max', 'min'] as const) {
          const out = { ...access(1, dtype, outStrides), expr: e.reduce(op, e.input(0, type)) };
          const kernel = spec([9, 37], [access(0, dtype, inStrides)], [out], { reduced });
          await checkKernel(device, kernel, [input, fill(dtype, 40, 5)]);
        }
      }
    });
  }

  test('broadcasts, scalars, coordinates and shared buffers in one kernel', async () => {
    const sum = e.add(e.mul(e.input(0), e.input(1)), e.scalar(1));
    const at = e.add(e.coord(1), e.mul(e.coord(0), e.scalar(0, 'i32')));
    const expr = e.add(sum, e.cast(e.add(at, e.cast(e.linear(), 'i32')), 'f32'));
    const kernel = spec(
      [3, 1, 17],
      [access(0, 'float32', [17, 0, 1]), access(1, 'bfloat16', [0, 5, 1])],
      [
        { ...access(2, 'float32', [17, 3, 1]), expr },
        { ...access(3, 'float16', [17, 17, 1]), expr: e.input(0) },
      ],
      { scalars: ['i32', 'f32'] },
    );
    const fills = [
      fill('float32', 51, 1),
      fill('bfloat16', 17, 2),
      fill('float32', 51, 3),
      fill('float16', 51, 4),
    ];
    await checkKernel(device, kernel, fills, { scalars: [-3, 0.25], tolerance: 1e-6 });
    const buffers = [7, 7, 7, 7];
    await checkKernel(device, kernel, fills, { scalars: [-3, 0.25], tolerance: 1e-6, buffers });
  });

  test('packed rows of odd length with a broadcast row', async () => {
    const expr = e.add(e.input(0), e.input(1));
    const kernel = spec(
      [9, 13],
      [access(0, 'bfloat16', [13, 1]), access(1, 'bfloat16', [0, 1])],
      [{ ...access(2, 'bfloat16', [13, 1], 1), expr }],
    );
    await checkKernel(device, kernel, [
      fill('bfloat16', 117, 1),
      fill('bfloat16', 13, 2),
      fill('bfloat16', 120, 3),
    ]);
  });

  test('stores round to nearest even and keep infinities, NaN and subnormals', async () => {
    const values = [
      0,
      -0,
      1,
      65504,
      65519.99,
      65520,
      -65536,
      1e-8,
      2 ** -25,
      2 ** -24,
      3e-5,
      6.1e-5,
    ];
    values.push(2049, 2051, 1.0009765625, 1.00048828125, 1.00146484375, Infinity, -Infinity, NaN);
    values.push(
      3.4e38,
      1.00390625,
      1.01171875,
      257,
      259,
      5.9e-8,
      -9e-8,
      2 ** -14,
      1023.5 * 2 ** -24,
    );
    for (const dtype of ['float16', 'bfloat16'] as const) {
      const input: OperandFill = {
        dtype: 'float32',
        elements: values.length,
        value: (i) => values[i]!,
      };
      const store = spec(
        [values.length],
        [access(0, 'float32', [1])],
        [{ ...access(1, dtype, [1]), expr: e.input(0) }],
      );
      await checkKernel(device, store, [input, fill(dtype, values.length, 1)]);
      const load = spec(
        [values.length],
        [access(0, dtype, [1])],
        [{ ...access(1, 'float32', [1]), expr: e.input(0) }],
      );
      await checkKernel(device, load, [{ ...input, dtype }, fill('float32', values.length, 1)]);
    }
  });

  test('random words equal Philox of core/random.ts', async () => {
    const state = [0, 1, 2, 3].map((i) => e.input(i, 'u32')) as [Expr, Expr, Expr, Expr];
    const inputs = [0, 1, 2, 3].map((i) => access(0, 'uint32', [0], i));
    const words = [0xdeadbeef, 0x12345678, 0xfffffffe, 41];
    const expr = e.random(state, 5, e.linear());
    const kernel = spec([1031], inputs, [{ ...access(1, 'uint32', [1]), expr }]);
    await checkKernel(device, kernel, [
      { dtype: 'uint32', elements: 4, value: (i) => words[i]! },
      fill('uint32', 1031, 1),
    ]);
  });

  test('more workgroups than one dimension holds', async () => {
    const [rows, width] = [65535 + 7, 64];
    const kernel = spec(
      [rows, width],
      [access(0, 'int8', [0, 1])],
      [{ ...access(1, 'int32', [1, 0]), expr: e.reduce('sum', e.input(0, 'i32')) }],
      { reduced: [1] },
    );
    const shader = generateWgslKernel(kernel);
    assert.equal(shader.workgroups[1], 2);
    const out = new Int32Array(rows);
    const ones = new Uint8Array(width).fill(1);
    await device.run(shader, [new Uint8Array(16), ones, new Uint8Array(out.buffer)]);
    assert.ok(out.every((x) => x === width));
  });

  for (const dtype of ['float32', 'bfloat16'] as const) {
    for (const [rows, width] of [
      [5, 33],
      [3, 260],
      [130, 8],
      [2, 1031],
    ] as const) {
      test(`softmax in place: ${dtype} ${rows} x ${width}`, async () => {
        const x = e.input(0);
        const exp = e.unary('exp', e.sub(x, e.reduce('max', x)));
        const expr = e.div(exp, e.reduce('sum', exp));
        const kernel = spec(
          [rows, width],
          [access(0, dtype, [width, 1])],
          [{ ...access(0, dtype, [width, 1]), expr }],
          { reduced: [1] },
        );
        const tolerance = dtype === 'float32' ? 2e-6 : 5e-3;
        await checkKernel(device, kernel, [fill(dtype, rows * width, 6)], { tolerance });
      });
    }
  }

  test('layer norm: two dependent reductions, per-row and per-point outputs', async () => {
    const [rows, width] = [6, 100];
    const x = e.input(0);
    const mean = e.mul(e.reduce('sum', x), e.f32(1 / width));
    const centered = e.sub(x, mean);
    const variance = e.mul(e.reduce('sum', e.mul(centered, centered)), e.f32(1 / width));
    const scale = e.unary('rsqrt', e.add(variance, e.scalar(0)));
    const kernel = spec(
      [rows, width],
      [access(0, 'float16', [width, 1]), access(1, 'float32', [0, 1])],
      [
        { ...access(2, 'float16', [width, 1]), expr: e.mul(e.mul(centered, scale), e.input(1)) },
        { ...access(3, 'bfloat16', [1, 0]), expr: mean },
        { ...access(4, 'float32', [1, 0]), expr: scale },
      ],
      { reduced: [1], scalars: ['f32'] },
    );
    const fills = [
      fill('float16', rows * width, 1),
      fill('float32', width, 2),
      fill('float16', rows * width, 3),
      fill('bfloat16', rows, 4),
      fill('float32', rows, 5),
    ];
    await checkKernel(device, kernel, fills, { scalars: [1e-5], tolerance: 5e-3 });
  });

  test('a reduction has the same bits whatever its layout', async () => {
    const [rows, width] = [5, 777];
    const value = (i: number) => Math.fround(Math.sin(i * 12.9898) * 43.75);
    const sums = async (strides: readonly number[]) => {
      const kernel = spec(
        [rows, width],
        [access(0, 'float32', strides)],
        [{ ...access(1, 'float32', [1, 0]), expr: e.reduce('sum', e.input(0)) }],
        { reduced: [1] },
      );
      const x = new Float32Array(rows * width);
      for (let r = 0; r < rows; r++) {
        for (let c = 0; c < width; c++) x[r * strides[0]! + c * strides[1]!] = value(r * width + c);
      }
      const out = new Uint8Array(rows * 4);
      await device.run(generateWgslKernel(kernel), [
        new Uint8Array(16),
        new Uint8Array(x.buffer),
        out,
      ]);
      return out;
    };
    assert.deepEqual(await sums([width, 1]), await sums([1, rows]));
  });

  test('softmax over a middle axis', async () => {
    const x = e.input(0);
    const exp = e.unary('exp', e.sub(x, e.reduce('max', x)));
    const expr = e.div(exp, e.reduce('sum', exp));
    const strides = [21 * 70, 70, 1];
    const kernel = spec(
      [3, 21, 70],
      [access(0, 'float32', strides)],
      [{ ...access(1, 'float32', strides), expr }],
      { reduced: [1] },
    );
    const size = 3 * 21 * 70;
    await checkKernel(device, kernel, [fill('float32', size, 1), fill('float32', size, 2)], {
      tolerance: 2e-6,
    });
  });

  test('reductions over nothing and over everything', async () => {
    const sum = e.reduce('sum', e.input(0));
    const empty = spec(
      [4, 0],
      [access(0, 'float32', [0, 1])],
      [{ ...access(1, 'float32', [1, 0]), expr: e.reduce('max', e.input(0)) }],
      { reduced: [1] },
    );
    assert.equal(generateWgslKernel(empty).workgroups[0], 1);
    await checkKernel(device, { ...empty, space: [4, 3] }, [
      fill('float32', 3, 1),
      fill('float32', 4, 2),
    ]);
    const out = new Uint8Array(16);
    await device.run(generateWgslKernel(empty), [new Uint8Array(16), new Uint8Array(16), out]);
    assert.deepEqual([...new Float32Array(out.buffer)], Array(4).fill(-Infinity));
    const all = spec(
      [8, 300],
      [access(0, 'float32', [300, 1])],
      [{ ...access(1, 'float32', [0, 0]), expr: sum }],
      { reduced: [0, 1] },
    );
    await checkKernel(device, all, [fill('float32', 2400, 3), fill('float32', 1, 4)], {
      tolerance: 1e-5,
    });
  });

  test('NaN spreads through max and min reductions', async () => {
    const input: OperandFill = {
      dtype: 'float32',
      elements: 100,
      value: (i) => (i === 63 ? NaN : i),
    };
    for (const op of ['max', 'min'] as const) {
      const kernel = spec(
        [2, 50],
        [access(0, 'float32', [50, 1])],
        [{ ...access(1, 'float32', [1, 0]), expr: e.reduce(op, e.input(0)) }],
        { reduced: [1] },
      );
      await checkKernel(device, kernel, [input, fill('float32', 2, 1)]);
    }
  });
});
