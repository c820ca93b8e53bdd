/** The text of generated kernels; test/webgpu runs them. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type DType, dtypeNames } from '../../core/dtype.ts';
import { type Expr, e } from '../../ir/expr.ts';
import { computeType, type KernelInput, type KernelSpec } from '../../ir/kernel.ts';
import { generateWgslKernel, launchWords } from './kernel.ts';
import { libraryNames, UsedFunctions } from './library.ts';
import { generateWgslMatmul } from './matmul.ts';
import { rowShape } from './reduction.ts';
import { planWords } from './words.ts';

const at = (
  operand: number,
  strides: readonly number[],
  dtype: DType = 'float32',
): KernelInput => ({
  operand,
  dtype,
  offset: 0,
  strides,
});

function kernel(
  space: readonly number[],
  inputs: readonly KernelInput[],
  output: KernelInput,
  expr: Expr,
  reduced: readonly number[] = [],
): KernelSpec {
  const operands = output.operand + 1;
  return { space, reduced, inputs, outputs: [{ ...output, expr }], operands, scalars: [] };
}

const addition = kernel(
  [4, 8],
  [at(0, [8, 1]), at(1, [0, 1])],
  at(2, [8, 1]),
  e.add(e.input(0), e.input(1)),
);

test('a pointwise kernel reads as one would write it', () => {
  const { code, bindings, workgroups, entryPoint } = generateWgslKernel(addition);
  assert.equal(entryPoint, 'main');
  assert.deepEqual(workgroups, [1, 1, 1]);
  assert.deepEqual(
    bindings.map((b) => `${b.binding} ${b.type} ${b.operands}`),
    ['0 uniform ', '1 read-only-storage 0', '2 read-only-storage 1', '3 storage 2'],
  );
  assert.equal(
    code.slice(code.indexOf('\n') + 1),
    `@group(0) @binding(0) var<uniform> launch: array<vec4<u32>, 1>;
@group(0) @binding(1) var<storage, read> buffer1: array<u32>;
@group(0) @binding(2) var<storage, read> buffer2: array<u32>;
@group(0) @binding(3) var<storage, read_write> buffer3: array<u32>;
@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) groupId: vec3<u32>,
  @builtin(num_workgroups) groupCount: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let group = groupId.y * groupCount.x + groupId.x;
  let invocation = group * 256u + local;
  let i = invocation;
  if (i >= 32u) { return; }
  let c1 = i % 8u;
  let t0: f32 = bitcast<f32>(buffer1[launch[0].x + i]);
  let t1: f32 = bitcast<f32>(buffer2[launch[0].y + c1]);
  let t2: f32 = t0 + t1;
  buffer3[launch[0].z + i] = bitcast<u32>(t2);
}
`,
  );
});

test('operands in one buffer share a binding, written if any of them is', () => {
  const { bindings } = generateWgslKernel(addition, { buffers: [5, 9, 5] });
  assert.deepEqual(
    bindings.map((b) => `${b.binding} ${b.type} ${b.operands}`),
    ['0 uniform ', '1 storage 0,2', '2 read-only-storage 1'],
  );
});

test('too many buffers or points are refused with what to do', () => {
  assert.throws(() => generateWgslKernel(addition, { maxStorageBuffers: 2 }), {
    name: 'UnsupportedError',
    message: /got 3, the device allows 2/,
  });
  const huge = kernel([2 ** 20, 2 ** 20], [], at(0, [0, 0]), e.f32(1));
  assert.throws(() => generateWgslKernel(huge), { name: 'UnsupportedError', message: /2\^31/ });
});

test('packed outputs are written as whole words where they lie in order, else atomically', () => {
  const copy = (strides: readonly number[], dtype: DType) =>
    generateWgslKernel(
      kernel([6, 7], [at(0, [7, 1], dtype)], at(1, strides, dtype), e.input(0, computeType(dtype))),
    ).code;
  for (const dtype of dtypeNames) {
    assert.doesNotMatch(copy([7, 1], dtype), /atomic/);
    const packed = dtype !== 'float32' && dtype !== 'int32' && dtype !== 'uint32';
    assert.equal(/atomicOr/.test(copy([14, 2], dtype)), packed, dtype);
  }
});

test('two packed outputs in one operand are never written word by word', () => {
  const one = at(1, [1], 'bfloat16');
  const expr = e.input(0);
  const spec: KernelSpec = {
    space: [9],
    reduced: [],
    inputs: [at(0, [1])],
    outputs: [
      { ...one, expr },
      { ...one, offset: 9, expr },
    ],
    operands: 2,
    scalars: [],
  };
  assert.equal(planWords(spec, [0, 1]).points, 1);
});

test('outputs of two and four to a word share an invocation of four points when they line up', () => {
  const outputs = (offset: number) => [
    { ...at(0, [1], 'int8'), offset, expr: e.i32(1) },
    { ...at(1, [1], 'float16'), offset: 0, expr: e.f32(1) },
  ];
  const spec = (offset: number): KernelSpec => ({
    space: [40],
    reduced: [],
    inputs: [],
    outputs: outputs(offset),
    operands: 2,
    scalars: [],
  });
  assert.deepEqual(planWords(spec(2), [0, 1]), { points: 4, lead: 2, whole: new Set([0, 1]) });
  // An odd shift puts the word edges of the two at different points: one of them gives way.
  assert.equal(planWords(spec(1), [0, 1]).whole.size, 1);
});

test('the division of a reduction depends on the space alone', () => {
  const sum = (space: readonly number[], strides: readonly number[], reduced: readonly number[]) =>
    rowShape(kernel(space, [at(0, strides)], at(1, [0, 0]), e.reduce('sum', e.input(0)), reduced));
  assert.deepEqual(sum([64, 1000], [1000, 1], [1]), sum([64, 1000], [1, 64], [1]));
  const { rows, lanes, lanesInner } = sum([64, 1000], [1000, 1], [1]);
  assert.deepEqual({ rows, lanes, lanesInner }, { rows: 1, lanes: 256, lanesInner: true });
  const column = sum([1000, 64], [64, 1], [0]);
  assert.equal(column.lanesInner, false);
  assert.equal(column.rows * column.lanes, 256);
  const narrow = sum([64, 3], [3, 1], [1]);
  assert.deepEqual([narrow.rows, narrow.lanes], [16, 4]);
});

test('softmax makes one pass for each dependent reduction and one to store', () => {
  const x = e.input(0);
  const exp = e.unary('exp', e.sub(x, e.reduce('max', x)));
  const expr = e.div(exp, e.reduce('sum', exp));
  const spec = kernel([8, 512], [at(0, [512, 1])], at(1, [512, 1]), expr, [1]);
  const { code, workgroups } = generateWgslKernel(spec);
  assert.equal(code.match(/for \(var r = lane;/g)?.length, 3);
  assert.match(code, /fn row_max_f32/);
  assert.match(code, /fn row_sum_f32/);
  assert.deepEqual(workgroups, [8, 1, 1]);
});

test('equal expressions are computed once', () => {
  const square = () => e.mul(e.input(0), e.input(0));
  const spec = kernel([8], [at(0, [1])], at(1, [1]), e.add(square(), square()));
  assert.equal(generateWgslKernel(spec).code.match(/t0 \* t0/g)?.length, 1);
});

test('library functions come once and after those they call', () => {
  const functions = new UsedFunctions();
  for (const name of [...libraryNames, ...libraryNames]) functions.use(name);
  const text = functions.definitions().join('\n');
  const declared = [...text.matchAll(/^fn (\w+)/gm)].map((match) => match[1]);
  assert.deepEqual([...declared].sort(), [...libraryNames].sort());
  declared.forEach((name, i) => {
    const first = text.search(new RegExp(`\\b${name}\\(`));
    assert.equal(
      text.slice(first - 3, first),
      'fn ',
      `${name} (${i}) is called before it is declared`,
    );
  });
});

test('launch words hold places in words, then scalars by type', () => {
  const words = launchWords({ operands: 2, scalars: ['f32', 'i32', 'u32'] }, [64, 8], [1.5, -1, 7]);
  assert.deepEqual([...words], [16, 2, 0x3fc00000, 0xffffffff, 7, 0, 0, 0]);
});

test('a matrix product dispatches a tile per workgroup and entry', () => {
  const given = { transA: false, transB: false, lda: 64, ldb: 100, ldc: 100 };
  const one = generateWgslMatmul({ m: 130, n: 100, k: 64, ...given });
  assert.deepEqual(one.workgroups, [3 * 2, 1, 1]);
  assert.equal(one.bindings.length, 4);
  const many = generateWgslMatmul({ m: 130, n: 100, k: 64, ...given, batch: 5 });
  assert.deepEqual(many.workgroups, [3 * 2 * 5, 1, 1]);
  assert.equal(many.bindings.length, 5);
  assert.throws(() => generateWgslMatmul({ m: 1, n: 1, k: 1, ...given, dtypeA: 'int8' }), {
    name: 'ArgumentError',
  });
});
