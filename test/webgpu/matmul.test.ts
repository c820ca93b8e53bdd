/** The plain WGSL matrix product on a WebGPU device. */

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { launchWords } from '../../src/codegen/wgsl/kernel.ts';
import { generateWgslMatmul, matmulLaunch } from '../../src/codegen/wgsl/matmul.ts';
import { bytesPerElement, type DType } from '../../src/core/dtype.ts';
import { openTestDevice } from './device.ts';
import { readElement, writeElement } from './evaluate.ts';

const opened = await openTestDevice();
const missing = 'missing' in opened ? opened.missing : false;
const device = 'missing' in opened ? undefined! : opened;
if (missing) console.log(`WebGPU tests are skipped: ${missing}`);
after(() => device?.destroy());

interface Case {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly transA?: boolean;
  readonly transB?: boolean;
  readonly dtype?: DType;
  readonly batches?: readonly { readonly a: number; readonly b: number; readonly c: number }[];
  readonly accumulate?: boolean;
  readonly block?: 1 | 2 | 4;
  readonly padding?: number;
}

async function check(given: Case): Promise<void> {
  const { m, n, k, transA = false, transB = false, dtype = 'float32', accumulate = false } = given;
  const padding = given.padding ?? 0;
  const lda = (transA ? m : k) + padding;
  const ldb = (transB ? k : n) + padding;
  const ldc = n + padding;
  const batches = given.batches ?? [{ a: 0, b: 0, c: 0 }];
  const make = (type: DType, elements: number, seed: number) => {
    const width = bytesPerElement(type);
    const operand = {
      bytes: new Uint8Array(Math.ceil((elements * width) / 4) * 4 + 16),
      byteOffset: 16,
    };
    for (let i = 0; i < elements; i++) {
      writeElement(operand, type, i, (((i * 37 + seed * 11) % 29) - 14) / 16);
    }
    return operand;
  };
  const most = (name: 'a' | 'b' | 'c') => Math.max(...batches.map((entry) => entry[name]));
  const a = make(dtype, most('a') + lda * (transA ? k : m), 1);
  const b = make(dtype, most('b') + ldb * (transB ? n : k), 2);
  const c = make('float32', most('c') + ldc * m, 3);
  const [alpha, beta] = [0.5, accumulate ? -2 : 0];
  const expected = { ...c, bytes: c.bytes.slice() };
  for (const entry of batches) {
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        let sum = 0;
        for (let p = 0; p < k; p++) {
          const x = readElement(a, dtype, entry.a + (transA ? p * lda + i : i * lda + p));
          const y = readElement(b, dtype, entry.b + (transB ? j * ldb + p : p * ldb + j));
          sum += x * y;
        }
        const at = entry.c + i * ldc + j;
        const old = accumulate ? beta * readElement(c, 'float32', at) : 0;
        writeElement(expected, 'float32', at, alpha * sum + old);
      }
    }
  }
  const shader = generateWgslMatmul({
    m,
    n,
    k,
    transA,
    transB,
    lda,
    ldb,
    ldc,
    accumulate,
    batch: batches.length,
    dtypeA: dtype,
    dtypeB: dtype,
    ...(given.block ? { block: given.block } : {}),
  });
  const launch = launchWords(matmulLaunch, [16, 16, 16], [alpha, beta]);
  const table = Uint32Array.from(batches.flatMap((entry) => [entry.a, entry.b, entry.c]));
  const bound = [new Uint8Array(launch.buffer), a.bytes, b.bytes, c.bytes];
  if (batches.length > 1) bound.push(new Uint8Array(table.buffer));
  await device.run(shader, bound);
  // Inputs are multiples of 1/16 and sums stay small, so every product and sum is exact.
  const floats = (bytes: Uint8Array) => new Float32Array(bytes.buffer, 16);
  assert.deepEqual(floats(c.bytes), floats(expected.bytes), JSON.stringify(given));
}

describe('WGSL matrix product on a device', { skip: missing }, () => {
  for (const transA of [false, true]) {
    for (const transB of [false, true]) {
      test(`odd sizes, ${transA ? 'A transposed' : 'A plain'}, ${transB ? 'B transposed' : 'B plain'}`, async () => {
        await check({ m: 37, n: 19, k: 18, transA, transB, block: 1 });
        await check({ m: 67, n: 33, k: 19, transA, transB, block: 4 });
        await check({ m: 1, n: 5, k: 40, transA, transB, block: 2, padding: 3 });
      });
    }
  }

  test('block sizes chosen by the generator, k of zero, accumulation', async () => {
    await check({ m: 130, n: 70, k: 48 });
    await check({ m: 3, n: 4, k: 0 });
    await check({ m: 70, n: 65, k: 17, accumulate: true });
  });

  test('batches by offset, shared operands among them', async () => {
    const batches = [0, 1, 2].map((i) => ({ a: i * 35, b: (i >> 1) * 77, c: i * 100 }));
    await check({ m: 5, n: 11, k: 7, batches });
  });

  for (const dtype of ['float16', 'bfloat16'] as const) {
    test(`${dtype} operands`, async () => {
      await check({ m: 21, n: 18, k: 35, dtype });
      await check({ m: 21, n: 18, k: 35, dtype, transA: true, transB: true });
    });
  }
});
