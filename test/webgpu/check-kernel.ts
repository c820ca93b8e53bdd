/** Runs a KernelSpec on a test device and by evaluation, and compares every byte range it may touch. */

import assert from 'node:assert/strict';
import { generateWgslKernel, launchWords } from '../../src/codegen/wgsl/kernel.ts';
import { bytesPerElement, type DType, isFloat } from '../../src/core/dtype.ts';
import type { KernelSpec } from '../../src/ir/kernel.ts';
import type { TestDevice } from './device.ts';
import { evaluateKernel, readElement, writeElement } from './evaluate.ts';

export interface OperandFill {
  readonly dtype: DType;
  readonly elements: number;
  /** Value of element i before the launch; outputs are filled too, so that stray writes show. */
  readonly value?: (i: number) => number;
}

export interface CheckOptions {
  readonly scalars?: readonly number[];
  /** Operands with equal numbers are placed in one GPU buffer. */
  readonly buffers?: readonly number[];
  /** Allowed |difference| / (1 + |value|) of float outputs; 0 compares exactly. */
  readonly tolerance?: number;
}

export async function checkKernel(
  device: TestDevice,
  spec: KernelSpec,
  fills: readonly OperandFill[],
  options: CheckOptions = {},
): Promise<void> {
  const scalars = options.scalars ?? [];
  const buffers = options.buffers ?? fills.map((_, i) => i);
  const sizes = new Map<number, number>();
  const byteOffsets = fills.map(({ dtype, elements }, i) => {
    // Not at the start of the buffer, so that the place of an operand matters.
    const start = sizes.get(buffers[i]!) ?? 8;
    sizes.set(buffers[i]!, start + Math.ceil((elements * bytesPerElement(dtype)) / 4) * 4 + 4);
    return start;
  });
  const filled = new Map<number, Uint8Array>();
  for (const [buffer, size] of sizes) filled.set(buffer, new Uint8Array(size).fill(0x5a));
  const placed = (memory: ReadonlyMap<number, Uint8Array>) =>
    fills.map((_, i) => ({ bytes: memory.get(buffers[i]!)!, byteOffset: byteOffsets[i]! }));
  fills.forEach((fill, k) => {
    for (let i = 0; i < fill.elements; i++) {
      const value = fill.value?.(i);
      if (value !== undefined) writeElement(placed(filled)[k]!, fill.dtype, i, value);
    }
  });
  const expected = copy(filled);
  const got = copy(filled);
  evaluateKernel(spec, placed(expected), scalars);

  const kernel = generateWgslKernel(spec, { buffers });
  const launch = launchWords(spec, byteOffsets, scalars);
  const bound = kernel.bindings.map(({ type, operands }) =>
    type === 'uniform' ? new Uint8Array(launch.buffer) : got.get(buffers[operands[0]!]!)!,
  );
  await device.run(kernel, bound);

  const outputs = new Map(spec.outputs.map((out) => [out.operand, out.dtype]));
  for (const [k, dtype] of outputs) {
    for (let i = 0; i < fills[k]!.elements; i++) {
      const want = readElement(placed(expected)[k]!, dtype, i);
      const have = readElement(placed(got)[k]!, dtype, i);
      const slack = isFloat(dtype) ? (options.tolerance ?? 0) * (1 + Math.abs(want)) : 0;
      const same = Object.is(want, have) || want === have || Math.abs(want - have) <= slack;
      assert.ok(same, `operand ${k} element ${i}: got ${have}, want ${want}\n${kernel.code}`);
    }
  }
  // Nothing outside the outputs' elements may change: wipe those, then compare what is left.
  for (const [k, dtype] of outputs) {
    for (const memory of [expected, got]) {
      const { bytes, byteOffset } = placed(memory)[k]!;
      bytes.fill(0, byteOffset, byteOffset + fills[k]!.elements * bytesPerElement(dtype));
    }
  }
  for (const [buffer, bytes] of expected) {
    assert.deepEqual(
      got.get(buffer),
      bytes,
      `bytes around the outputs of buffer ${buffer} changed`,
    );
  }
}

function copy(memory: ReadonlyMap<number, Uint8Array>): Map<number, Uint8Array> {
  return new Map([...memory].map(([buffer, bytes]) => [buffer, bytes.slice()]));
}
