import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { hasMemory64, hasRelaxedSimd } from '../features.ts';
import { narrowBlocking } from './blocking.ts';
import { compileGemm } from './choose.ts';
import { emitGemm } from './gemm.ts';

const relaxed = hasRelaxedSimd();

/** Bits of C = 0.5 * A B + 0.25 * C for a problem with edges in every direction. */
function product(module: WebAssembly.Module): string {
  const memory = new WebAssembly.Memory({ initial: 64, maximum: 64, shared: true });
  const floats = new Float32Array(memory.buffer);
  for (let i = 0; i < floats.length; i++) floats[i] = ((i * 40503) % 997) / 997 - 0.5;
  const { gemm } = new WebAssembly.Instance(module, { env: { memory } }).exports;
  const [a, b, c] = [1 << 20, 5 << 18, 3 << 19];
  const call = gemm as unknown as (...args: number[]) => void;
  for (const [m, n, beta] of [
    [77, 90, 0.25],
    [77, 90, 0],
    [5, 33, 1],
    [1, 64, 0],
  ] as const) {
    call(0, 0, 1, m, n, 300, 0.5, a, 300, b, 300, beta, c, 100);
  }
  return Buffer.from(new Uint8Array(memory.buffer, c, 77 * 400)).toString('base64');
}

test('every form gives the same bits', () => {
  const usual = product(new WebAssembly.Module(emitGemm({ relaxed })));
  const fastest = compileGemm({ relaxed });
  const narrow = compileGemm({ relaxed, wide: false });
  assert.equal(narrow.blocking, narrowBlocking);
  assert.equal(product(narrow.module), usual);
  assert.equal(product(fastest.module), usual);
  assert.equal(compileGemm({ relaxed }), fastest);
});

test('compiles for 64-bit addresses and without relaxed SIMD', () => {
  if (hasMemory64()) {
    assert.equal(compileGemm({ relaxed, address: 'i64' }).blocking, narrowBlocking);
  }
  assert.equal(compileGemm({ relaxed: false }).blocking, narrowBlocking);
});

/** Source of a function that gives the best rate of a module over some time, in GFLOP/s. */
const measure = `(module) => {
  const memory = new WebAssembly.Memory({ initial: 64, maximum: 64, shared: true });
  const { gemm } = new WebAssembly.Instance(module, { env: { memory } }).exports;
  let best = Infinity;
  const end = performance.now() + 40;
  while (performance.now() < end) {
    const start = performance.now();
    for (let i = 0; i < 8; i++) gemm(0, 0, 0, 96, 64, 64, 1, 2 << 20, 64, 9 << 18, 64, 0, 5 << 19, 64);
    best = Math.min(best, (performance.now() - start) / 8);
  }
  return 2e-6 * 96 * 64 * 64 / best;
}`;

test('a worker that compiles the same bytes runs the same code', async () => {
  const { bytes, module } = compileGemm({ relaxed });
  const rates = { main: 0, worker: 0 };
  // A busy machine can slow either side for a while; the wide tile without 256-bit vectors never
  // reaches half the speed.
  for (let attempt = 0; attempt < 5 && !(rates.worker > 0.5 * rates.main); attempt++) {
    const here = new Function('module', `return (${measure})(module)`) as (m: unknown) => number;
    rates.main = here(module);
    rates.worker = await inWorker(bytes);
  }
  assert.ok(rates.worker > 0.5 * rates.main, JSON.stringify(rates));
});

async function inWorker(bytes: Uint8Array): Promise<number> {
  const source = `
    const { parentPort, workerData } = require('node:worker_threads');
    parentPort.postMessage((${measure})(new WebAssembly.Module(workerData)));`;
  const worker = new Worker(source, { eval: true, workerData: bytes });
  const rate = await new Promise<number>((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
  await worker.terminate();
  return rate;
}
