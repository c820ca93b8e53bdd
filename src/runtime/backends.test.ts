import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import type { DType } from '../core/dtype.ts';
import { hostTensor, hostValues } from '../core/host-tensor.ts';
import { contiguousStrides } from '../core/shape.ts';
import { e } from '../ir/expr.ts';
import type { KernelSpec } from '../ir/kernel.ts';
import type { Operand } from '../ir/op.ts';
import type { Block } from './allocator.ts';
import type { Backend, Lowered } from './backend.ts';
import {
  createCpuBackend,
  createNullBackend,
  createReferenceBackend,
  defaultBackend,
  setDefaultBackend,
} from './registry.ts';

/** Softmax over the last axis times a run-time scalar; rows x columns. */
function softmax(rows: number, columns: number): Lowered {
  const x = e.input(0);
  const exponential = e.unary('exp', e.sub(x, e.reduce('max', x)));
  const spec: KernelSpec = {
    space: [rows, columns],
    reduced: [1],
    inputs: [{ operand: 0, dtype: 'float32', offset: 0, strides: [columns, 1] }],
    outputs: [
      {
        operand: 1,
        dtype: 'float32',
        offset: 0,
        strides: [columns, 1],
        expr: e.mul(e.div(exponential, e.reduce('sum', exponential)), e.scalar(0)),
      },
    ],
    operands: 2,
    scalars: ['f32'],
  };
  return { kind: 'kernel', spec, scalars: [1] };
}

function store(backend: Backend, values: readonly number[], dtype: DType = 'float32'): Block {
  const { data } = hostTensor(values, [values.length], dtype);
  const block = backend.allocator.alloc(data.length, 'temporary');
  backend.write({ block, byteOffset: 0 }, data, dtype);
  return block;
}

function load(backend: Backend, block: Block, count: number, dtype: DType = 'float32'): number[] {
  const bytes = hostTensor(new Array(count).fill(0), [count], dtype).data.length;
  const data = backend.read({ block, byteOffset: 0 }, bytes, dtype);
  return [...hostValues({ dtype, shape: [count], data })];
}

const backends = {
  cpu: createCpuBackend({ threads: 2 }),
  reference: createReferenceBackend(),
} as const;

after(() => {
  for (const backend of Object.values(backends)) {
    assert.equal(backend.allocator.stats().live, 0);
    backend.dispose();
  }
});

for (const [name, backend] of Object.entries<Backend>(backends)) {
  describe(`${name} backend`, () => {
    it('stores and gives back every dtype', () => {
      const cases: readonly [DType, readonly number[]][] = [
        ['float32', [1.5, -2.25, Number.POSITIVE_INFINITY]],
        ['float16', [0.5, -65504, 2 ** -24]],
        ['bfloat16', [1, -3.140625, 2 ** 100]],
        ['int32', [-(2 ** 31), 2 ** 31 - 1, 7]],
        ['uint32', [2 ** 32 - 1, 0, 5]],
        ['int8', [-128, 127, 3]],
        ['bool', [1, 0, 1]],
      ];
      for (const [dtype, values] of cases) {
        const block = store(backend, values, dtype);
        assert.deepEqual(load(backend, block, values.length, dtype), values);
        backend.allocator.free(block);
      }
    });

    it('runs a kernel with a scalar, alone and in a program', () => {
      const [rows, columns] = [70, 300];
      const values = Array.from({ length: rows * columns }, (_, i) => Math.sin(i) * 3);
      const x = store(backend, values);
      const y = store(backend, new Array(values.length).fill(0));
      const executable = backend.prepare(softmax(rows, columns));
      assert.equal(backend.prepare(softmax(rows, columns)).key, executable.key);
      backend.launch(
        executable,
        [2],
        [
          { block: x, byteOffset: 0 },
          { block: y, byteOffset: 0 },
        ],
      );
      const alone = load(backend, y, values.length);
      for (let row = 0; row < rows; row++) {
        const own = alone.slice(row * columns, (row + 1) * columns);
        const sum = own.reduce((total, value) => total + value, 0);
        assert.ok(Math.abs(sum - 2) < 1e-5, `row ${row} sums to ${sum}`);
      }
      backend.fillZero({ block: y, byteOffset: 0 }, values.length * 4);
      assert.ok(load(backend, y, values.length).every((value) => value === 0));
      const operands = [
        { slot: 0, byteOffset: 0 },
        { slot: 1, byteOffset: 0 },
      ];
      const program = backend.createProgram([
        { executable, scalars: [2], operands, label: 'softmax' },
        { executable, scalars: [0], operands, copyBytes: columns * 4, label: 'copy of row 0' },
      ]);
      program.run([x, y]);
      const together = load(backend, y, values.length);
      assert.deepEqual(together.slice(columns), alone.slice(columns));
      assert.deepEqual(together.slice(0, columns), load(backend, x, columns));
      assert.equal(program.profile([x, y]).length, 2);
      program.dispose();
      backend.allocator.free(x);
      backend.allocator.free(y);
    });
  });
}

describe('reference backend', () => {
  const backend = backends.reference;

  it('agrees with the cpu backend', () => {
    const values = Array.from({ length: 1200 }, (_, i) => Math.cos(i * i));
    const results = Object.values<Backend>(backends).map((each) => {
      const [x, y] = [store(each, values), store(each, new Array(1200).fill(0))];
      const operands = [x, y].map((block) => ({ block, byteOffset: 0 }));
      each.launch(each.prepare(softmax(4, 300)), [1], operands);
      const out = load(each, y, 1200);
      each.allocator.free(x);
      each.allocator.free(y);
      return out;
    });
    const [cpu, reference] = results;
    cpu!.forEach((value, i) => assert.ok(Math.abs(value - reference![i]!) < 1e-7));
  });

  it('keeps float64 precision between kernels', () => {
    const block = backend.allocator.alloc(8, 'temporary');
    const values = [1 / 3, 1 + 2 ** -40];
    backend.writeValues({ block, byteOffset: 0 }, values, 'float32');
    assert.deepEqual([...backend.readValues({ block, byteOffset: 0 }, 2, 'float32')], values);
    assert.deepEqual(load(backend, block, 2), values.map(Math.fround));
    backend.allocator.free(block);
  });

  it('gives routines dense arrays, and stores strided outputs', () => {
    const operand = (strides: number[], offset = 0): Operand => ({
      aval: { shape: [2, 3], dtype: 'float32' },
      layout: { offset, strides },
    });
    const lowered: Lowered = {
      kind: 'routine',
      name: 'addInto',
      routine: {
        wasm: { none: 'a test' },
        wgsl: { none: 'a test' },
        reference: ([x], [out], { inputs }) => {
          assert.deepEqual(inputs[0]!.shape, [2, 3]);
          x!.forEach((value, i) => {
            out![i]! += 10 * value;
          });
        },
      },
      inputs: [operand([1, 2], 1)],
      outputs: [operand(contiguousStrides([2, 3]))],
      params: {},
    };
    const x = store(backend, [9, 1, 2, 3, 4, 5, 6]);
    const y = store(backend, [0, 0, 0, 0, 1, 1, 1, 1, 1]);
    backend.launch(
      backend.prepare(lowered),
      [],
      [
        { block: x, byteOffset: 0 },
        { block: y, byteOffset: 12 },
      ],
    );
    assert.deepEqual(load(backend, y, 9), [0, 0, 0, 10, 31, 51, 21, 41, 61]);
    backend.allocator.free(x);
    backend.allocator.free(y);
  });

  it('asks for a dtype, and checks ranges and owners', () => {
    const block = backend.allocator.alloc(4, 'temporary');
    const at = { block, byteOffset: 0 };
    assert.throws(() => backend.write(at, new Uint8Array(4)), /Give a dtype/);
    assert.throws(() => backend.read(at, 4), /Give a dtype/);
    assert.throws(() => backend.read(at, 128, 'float32'), /outside its block/);
    backend.allocator.free(block);
    assert.throws(() => backend.read(at, 4, 'float32'), /freed/);
    const foreign = createNullBackend().allocator.alloc(4, 'temporary');
    assert.throws(() => backend.fillZero({ block: foreign, byteOffset: 0 }, 4), /another backend/);
  });
});

describe('null backend', () => {
  it('accounts for memory it does not have and computes nothing', async () => {
    const backend = createNullBackend();
    const block = backend.allocator.alloc(2 ** 45, 'activation');
    assert.equal(backend.allocator.stats().peak, 2 ** 45);
    const at = { block, byteOffset: 0 };
    const executable = backend.prepare(softmax(2, 3));
    assert.equal(executable.operands, 2);
    backend.launch();
    const program = backend.createProgram([
      { executable, scalars: [1], operands: [], label: 'softmax' },
    ]);
    program.run([block]);
    assert.deepEqual(program.profile([block]), [0]);
    assert.deepEqual(backend.read(at, 3), new Uint8Array(3));
    assert.deepEqual(await backend.readAsync(at, 3), new Uint8Array(3));
    backend.allocator.free(block);
    assert.equal(backend.allocator.stats().live, 0);
  });
});

describe('default backend', () => {
  it('is made once and can be replaced', () => {
    const before = setDefaultBackend(backends.reference);
    assert.equal(before, undefined);
    assert.equal(defaultBackend(), backends.reference);
    assert.equal(setDefaultBackend(backends.cpu), backends.reference);
    assert.equal(defaultBackend(), backends.cpu);
  });
});
