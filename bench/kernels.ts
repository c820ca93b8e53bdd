/**
 * Generated WebAssembly kernels on one thread: nanoseconds per element and bytes moved per second.
 * Run: node bench/kernels.ts [name]. Best of several runs, in a few seconds.
 */

import { hasRelaxedSimd } from '../src/codegen/wasm/features.ts';
import { generateKernel } from '../src/codegen/wasm/kernel/generate.ts';
import { bytesPerElement } from '../src/core/dtype.ts';
import { contiguousStrides, numElements } from '../src/core/shape.ts';
import { type Expr, e } from '../src/ir/expr.ts';
import type { KernelInput, KernelSpec } from '../src/ir/kernel.ts';

interface Case {
  readonly name: string;
  readonly spec: KernelSpec;
}

const mebi = 2 ** 20;
const x = e.input(0);
const y = e.input(1);
const exp = (a: Expr): Expr => e.unary('exp', a);

function dense(operand: number, space: readonly number[]): KernelInput {
  return { operand, dtype: 'float32', offset: 0, strides: contiguousStrides(space) };
}

function pointwise(
  name: string,
  space: readonly number[],
  inputs: number,
  expr: Expr,
  dtype: KernelInput['dtype'] = 'float32',
): Case {
  return {
    name,
    spec: {
      space,
      reduced: [],
      inputs: Array.from({ length: inputs }, (_, i) => ({ ...dense(i, space), dtype })),
      outputs: [{ ...dense(inputs, space), dtype, expr }],
      operands: inputs + 1,
      scalars: [],
    },
  };
}

function rowKernel(
  name: string,
  space: readonly number[],
  inputs: KernelInput[],
  expr: Expr,
): Case {
  return {
    name,
    spec: {
      space,
      reduced: [1],
      inputs,
      outputs: [{ ...dense(inputs.length, space), expr }],
      operands: inputs.length + 1,
      scalars: [],
    },
  };
}

function reduction(name: string, space: readonly number[], axis: number, expr: Expr): Case {
  const strides = [0, 0];
  strides[1 - axis] = 1;
  return {
    name,
    spec: {
      space,
      reduced: [axis],
      inputs: [dense(0, space)],
      outputs: [{ operand: 1, dtype: 'float32', offset: 0, strides, expr }],
      operands: 2,
      scalars: [],
    },
  };
}

function cases(): Case[] {
  const big = [4 * mebi];
  const small = [16384];
  const rows = [512, 512];
  const shifted = exp(e.sub(x, e.reduce('max', x)));
  const softmax = e.div(shifted, e.reduce('sum', shifted));
  const mean = e.mul(e.reduce('sum', e.mul(x, x)), e.f32(1 / 512));
  const norm = e.mul(e.mul(x, e.unary('rsqrt', e.add(mean, e.f32(1e-6)))), y);
  const state = [e.u32(1), e.u32(2), e.u32(3), e.u32(4)] as const;
  const uniform = e.mul(
    e.cast(e.binary('shr', e.random(state, 0, e.linear()), e.u32(8)), 'f32'),
    e.f32(2 ** -24),
  );
  const gelu = e.mul(
    e.mul(x, e.f32(0.5)),
    e.add(
      e.f32(1),
      e.unary(
        'tanh',
        e.mul(e.f32(0.7978845608), e.add(x, e.mul(e.f32(0.044715), e.mul(x, e.mul(x, x))))),
      ),
    ),
  );
  return [
    pointwise('copy 16 MiB', big, 1, x),
    pointwise('add 16 MiB', big, 2, e.add(x, y)),
    pointwise('add 64 KiB', small, 2, e.add(x, y)),
    pointwise('silu * mul 16 MiB', big, 2, e.mul(e.mul(x, e.unary('sigmoid', x)), y)),
    pointwise('silu * mul 64 KiB', small, 2, e.mul(e.mul(x, e.unary('sigmoid', x)), y)),
    pointwise('exp 64 KiB', small, 1, exp(x)),
    pointwise('log 64 KiB', small, 1, e.unary('log', x)),
    pointwise('tanh 64 KiB', small, 1, e.unary('tanh', x)),
    pointwise('gelu (tanh) 64 KiB', small, 1, gelu),
    pointwise('erf 64 KiB', small, 1, e.unary('erf', x)),
    pointwise('sin 64 KiB', small, 1, e.unary('sin', x)),
    pointwise('pow 64 KiB', small, 2, e.binary('pow', x, y)),
    pointwise(
      'dropout 64 KiB',
      small,
      1,
      e.select(e.binary('lt', uniform, e.f32(0.9)), x, e.f32(0)),
    ),
    pointwise('add bfloat16', small, 2, e.add(x, y), 'bfloat16'),
    pointwise('add float16', small, 2, e.add(x, y), 'float16'),
    rowKernel('softmax 512 x 512', rows, [dense(0, rows)], softmax),
    rowKernel(
      'rmsNorm 512 x 512',
      rows,
      [dense(0, rows), { ...dense(1, [512]), strides: [0, 1] }],
      norm,
    ),
    reduction('sum of rows 512 x 512', rows, 1, e.reduce('sum', x)),
    reduction('max of rows 512 x 512', rows, 1, e.reduce('max', x)),
    reduction('sum of columns 512 x 512', rows, 0, e.reduce('sum', x)),
    reduction('sum of columns 8192 x 768', [8192, 768], 0, e.reduce('sum', x)),
    rowKernel(
      'rmsNorm 16384 x 64',
      [16384, 64],
      [dense(0, [16384, 64]), { ...dense(1, [64]), strides: [0, 1] }],
      norm,
    ),
    causalSoftmax(512),
    adamW(mebi),
    {
      name: 'swap heads 8 x 512 x 8 x 64',
      spec: {
        space: [8, 8, 512, 64],
        reduced: [],
        inputs: [{ ...dense(0, []), strides: [512 * 512, 64, 512, 1] }],
        outputs: [{ ...dense(1, [8, 8, 512, 64]), expr: x }],
        operands: 2,
        scalars: [],
      },
    },
    {
      name: 'transpose 512 x 512',
      spec: {
        space: rows,
        reduced: [],
        inputs: [{ ...dense(0, rows), strides: [1, 512] }],
        outputs: [{ ...dense(1, rows), expr: x }],
        operands: 2,
        scalars: [],
      },
    },
  ];
}

/** softmax(scale * x) with the upper triangle left out. */
function causalSoftmax(length: number): Case {
  const space = [length, length];
  const seen = e.binary('le', e.coord(1), e.coord(0));
  const scores = e.select(seen, e.mul(x, e.f32(0.125)), e.f32(Number.NEGATIVE_INFINITY));
  const weights = exp(e.sub(scores, e.reduce('max', scores)));
  const expr = e.div(weights, e.reduce('sum', weights));
  return rowKernel(`causal softmax ${length} x ${length}`, space, [dense(0, space)], expr);
}

/** One step of AdamW: parameter and both moments updated in place. */
function adamW(count: number): Case {
  const [parameter, gradient, first, second] = [0, 1, 2, 3].map((i) => e.input(i)) as [
    Expr,
    Expr,
    Expr,
    Expr,
  ];
  const rate = e.scalar(0);
  const m = e.fma(e.sub(gradient, first), e.f32(0.1), first);
  const v = e.add(e.mul(second, e.f32(0.95)), e.mul(e.mul(gradient, gradient), e.f32(0.05)));
  const step = e.div(e.mul(rate, m), e.add(e.unary('sqrt', v), e.f32(1e-8)));
  const next = e.sub(e.mul(parameter, e.sub(e.f32(1), e.mul(rate, e.f32(0.1)))), step);
  const place = (operand: number): KernelInput => dense(operand, [count]);
  return {
    name: 'AdamW 4 MiB',
    spec: {
      space: [count],
      reduced: [],
      inputs: [0, 1, 2, 3].map(place),
      outputs: [
        { ...place(0), expr: next },
        { ...place(2), expr: m },
        { ...place(3), expr: v },
      ],
      operands: 4,
      scalars: ['f32'],
    },
  };
}

const wanted = process.argv[2];
const memory = new WebAssembly.Memory({ initial: 2048, maximum: 2048, shared: true });
const view = new DataView(memory.buffer);
const floats = new Float32Array(memory.buffer);
for (let i = 4096; i < floats.length; i++) floats[i] = ((i * 7919) % 1000) / 500 - 0.99;

for (const { name, spec } of cases()) {
  if (wanted && !name.includes(wanted)) continue;
  const before = performance.now();
  const { bytes } = generateKernel(spec, { relaxedSimd: hasRelaxedSimd(), memory64: false });
  const made = performance.now() - before;
  const instance = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory } });
  const main = instance.exports.main as (args: number, thread: number, threads: number) => void;
  for (let k = 0; k < spec.operands; k++) {
    view.setBigUint64(1024 + 8 * k, BigInt(16384 + k * 26 * mebi), true);
  }
  spec.scalars.forEach((_, i) => {
    view.setFloat32(1024 + 8 * (spec.operands + i), 1e-3, true);
  });
  const points = numElements(spec.space);
  // Long enough for the engine to replace its first, plain code.
  const warm = performance.now() + 250;
  while (performance.now() < warm) main(1024, 0, 1);
  let best = Number.POSITIVE_INFINITY;
  for (let run = 0; run < 25; run++) {
    const repeats = Math.max(1, Math.round(2e6 / points));
    const start = performance.now();
    for (let i = 0; i < repeats; i++) main(1024, 0, 1);
    best = Math.min(best, (performance.now() - start) / repeats);
  }
  const moved = [...spec.inputs, ...spec.outputs].reduce(
    (sum, { dtype, strides }) =>
      sum +
      bytesPerElement(dtype) *
        spec.space.reduce((n, size, axis) => n * (strides[axis] === 0 ? 1 : size), 1),
    0,
  );
  const perElement = ((best * 1e6) / points).toFixed(3);
  const rate = (moved / best / 1e6).toFixed(1);
  console.log(
    `${name.padEnd(28)} ${perElement.padStart(7)} ns/element ${rate.padStart(7)} GB/s` +
      `   ${bytes.length} bytes of code, made in ${made.toFixed(1)} ms`,
  );
}
