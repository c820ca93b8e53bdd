/** Runs one KernelSpec twice: generated WebAssembly on a real memory, and the float64 interpreter. */

import assert from 'node:assert/strict';
import { bytesPerElement, type DType } from '../../src/core/dtype.ts';
import { generateKernel } from '../../src/codegen/wasm/kernel/generate.ts';
import { hasRelaxedSimd } from '../../src/codegen/wasm/features.ts';
import type { KernelSpec } from '../../src/ir/kernel.ts';
import { runKernel } from '../../src/runtime/reference/kernel-interpreter.ts';

export interface OperandData {
  readonly dtype: DType;
  /** Values to round to the dtype; the operand's whole storage. */
  readonly values: readonly number[];
}

export interface RunOptions {
  readonly threads?: number;
  readonly relaxedSimd?: boolean;
  readonly memory64?: boolean;
  /** Bytes between the operands, so that their alignment varies. */
  readonly gap?: number;
  /** Operand k lies where operand `alias[k]` lies. */
  readonly alias?: Readonly<Record<number, number>>;
}

const argsAt = 1024;
const dataAt = 4096;

/** The operands' raw bytes after the kernel ran, threads in turn. */
export function runWasm(
  spec: KernelSpec,
  operands: readonly OperandData[],
  scalars: readonly number[] = [],
  options: RunOptions = {},
): Uint8Array[] {
  const memory64 = options.memory64 ?? false;
  const bytes = operands.map(encode);
  const total = bytes.reduce((sum, block) => sum + block.length + 64 + (options.gap ?? 0), dataAt);
  const pages = Math.ceil(total / 65536) + 1;
  const memory = memoryOf(memory64, pages);
  const view = new DataView(memory.buffer);
  const all = new Uint8Array(memory.buffer);
  let next = dataAt;
  const starts: number[] = [];
  bytes.forEach((block, k) => {
    const same = options.alias?.[k];
    const start = same === undefined ? next : starts[same]!;
    starts.push(start);
    if (same === undefined) {
      all.set(block, start);
      next = Math.ceil((start + block.length) / 4) * 4 + 16 + (options.gap ?? 0);
    }
    view.setBigUint64(argsAt + 8 * k, BigInt(start), true);
  });
  scalars.forEach((value, i) => {
    const at = argsAt + 8 * (operands.length + i);
    if (spec.scalars[i] === 'f32') view.setFloat32(at, value, true);
    else view.setUint32(at, value >>> 0, true);
  });
  const { bytes: code } = generateKernel(spec, {
    relaxedSimd: options.relaxedSimd ?? hasRelaxedSimd(),
    memory64,
  });
  const instance = new WebAssembly.Instance(new WebAssembly.Module(code), { env: { memory } });
  const main = instance.exports.main as (args: number | bigint, t: number, n: number) => void;
  const threads = options.threads ?? 1;
  // Last thread first: no thread may need another to have run.
  for (let thread = threads - 1; thread >= 0; thread--) {
    main(memory64 ? BigInt(argsAt) : argsAt, thread, threads);
  }
  return bytes.map((block, k) => all.slice(starts[k]!, starts[k]! + block.length));
}

/**
 * One memory for each addressing serves all runs: shared memories are only freed by garbage
 * collections, which do not see their size, so one per run would fill the machine.
 */
const memories = new Map<boolean, { memory: WebAssembly.Memory; pages: number }>();

function memoryOf(memory64: boolean, pages: number): WebAssembly.Memory {
  let known = memories.get(memory64);
  if (!known || known.pages < pages) {
    const size = Math.max(pages, 256);
    const memory = new WebAssembly.Memory(
      memory64
        ? { initial: BigInt(size), maximum: BigInt(size), shared: true, address: 'i64' }
        : { initial: size, maximum: size, shared: true },
    );
    known = { memory, pages: size };
    memories.set(memory64, known);
  }
  new Uint8Array(known.memory.buffer, 0, pages * 65536).fill(0);
  return known.memory;
}

/** Fails at the first element that differs, telling it; a full difference of long lists takes minutes. */
export function assertSameNumbers(
  actual: readonly (number | undefined)[],
  expected: readonly number[],
  what = 'element',
): void {
  assert.equal(actual.length, expected.length, 'lengths');
  const wrong = expected.findIndex((value, i) => !Object.is(value, actual[i]));
  if (wrong < 0) return;
  assert.fail(`${what} ${wrong}: got ${actual[wrong]}, want ${expected[wrong]}`);
}

/** Values of the operands after the interpreter ran. */
export function runReference(
  spec: KernelSpec,
  operands: readonly OperandData[],
  scalars: readonly number[] = [],
  alias: Readonly<Record<number, number>> = {},
): number[][] {
  const blocks: { data: Float64Array; start: number }[] = [];
  operands.forEach((operand, k) => {
    const same = alias[k];
    if (same !== undefined) {
      blocks.push(blocks[same]!);
      return;
    }
    const width = bytesPerElement(operand.dtype);
    const data = new Float64Array(operand.values.length * width + 3);
    decode(operand.dtype, encode(operand)).forEach((value, i) => {
      data[3 + i * width] = value;
    });
    blocks.push({ data, start: 3 });
  });
  runKernel(spec, blocks, scalars);
  return operands.map(({ dtype, values }, k) =>
    values.map((_, i) => blocks[k]!.data[3 + i * bytesPerElement(dtype)]!),
  );
}

/** Bytes of values rounded to their dtype. */
export function encode({ dtype, values }: OperandData): Uint8Array {
  switch (dtype) {
    case 'float32':
      return new Uint8Array(Float32Array.from(values).buffer);
    case 'float16':
      return new Uint8Array(Float16Array.from(values).buffer);
    case 'bfloat16': {
      const bits = new Uint32Array(Float32Array.from(values).buffer);
      const round = (b: number): number =>
        (b & 0x7fffffff) > 0x7f800000 ? (b >>> 16) | 64 : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16;
      return new Uint8Array(Uint16Array.from(bits, round).buffer);
    }
    case 'int32':
      return new Uint8Array(Int32Array.from(values).buffer);
    case 'uint32':
      return new Uint8Array(Uint32Array.from(values).buffer);
    case 'int8':
      return new Uint8Array(Int8Array.from(values).buffer);
    case 'bool':
      return Uint8Array.from(values, (value) => (value ? 1 : 0));
  }
}

export function decode(dtype: DType, bytes: Uint8Array): number[] {
  const buffer = bytes.slice().buffer;
  switch (dtype) {
    case 'float32':
      return [...new Float32Array(buffer)];
    case 'float16':
      return [...new Float16Array(buffer)];
    case 'bfloat16':
      return [
        ...new Float32Array(Uint32Array.from(new Uint16Array(buffer), (b) => b << 16).buffer),
      ];
    case 'int32':
      return [...new Int32Array(buffer)];
    case 'uint32':
      return [...new Uint32Array(buffer)];
    case 'int8':
      return [...new Int8Array(buffer)];
    case 'bool':
      return [...bytes];
  }
}
