/**
 * Which tile is fastest on this engine, found by running both: 6 x 16 where V8 joins pairs of vectors
 * into 256-bit ones, else 6 x 8. The difference is a factor of 1.3 to 3 either way, so a few
 * milliseconds tell. Both give the same bits, so the choice shows in nothing but time.
 */

import type { ModuleOptions } from '../module.ts';
import { type Blocking, gemmScratchBytes, narrowBlocking, wideBlocking } from './blocking.ts';
import { emitGemm } from './gemm.ts';

const [m, n, k] = [96, 64, 64];
const pageBytes = 65536;

/** Runs for about 2 x `milliseconds`, most of which V8 needs to optimize the code. */
export function fastestBlocking(options: ModuleOptions = {}, milliseconds = 8): Blocking {
  const narrow = trial(options, narrowBlocking);
  const wide = trial(options, wideBlocking);
  let [narrowTime, wideTime] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  const end = performance.now() + 2 * milliseconds;
  // Interleaved, so that a busy machine slows both.
  for (let round = 0; round < 4 || performance.now() < end; round++) {
    narrowTime = Math.min(narrowTime, seconds(narrow));
    wideTime = Math.min(wideTime, seconds(wide));
  }
  return wideTime < 0.9 * narrowTime ? wideBlocking : narrowBlocking;
}

function seconds(run: () => void): number {
  const start = performance.now();
  for (let i = 0; i < 4; i++) run();
  return (performance.now() - start) / 4e3;
}

/** One product on a memory of its own. */
function trial(options: ModuleOptions, blocking: Blocking): () => void {
  const wide = options.address === 'i64';
  const scratch = gemmScratchBytes(blocking);
  const pages = Math.ceil((scratch + 4 * (m * k + k * n + m * n)) / pageBytes);
  const memory = new WebAssembly.Memory(
    wide
      ? { initial: BigInt(pages), maximum: BigInt(pages), shared: true, address: 'i64' }
      : { initial: pages, maximum: pages, shared: true },
  );
  const module = new WebAssembly.Module(emitGemm({ ...options, blocking }));
  const { gemm } = new WebAssembly.Instance(module, { env: { memory } }).exports;
  const call = gemm as unknown as (...args: (number | bigint)[]) => void;
  const at = (bytes: number): number | bigint => (wide ? BigInt(bytes) : bytes);
  const a = scratch;
  const b = a + 4 * m * k;
  const c = b + 4 * k * n;
  return () => call(at(0), 0, 0, m, n, k, 1, at(a), k, at(b), n, 0, at(c), n);
}
