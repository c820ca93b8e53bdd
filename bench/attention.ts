/**
 * Times of attention and its backward on the CPU backend, for a few shapes: node bench/attention.ts
 * FLOPs count two matrix multiplies forward and five backward, without what a causal mask hides.
 */

import { attentionBackwardOp, attentionOp } from '../src/ops/attention/attention-op.ts';
import { normal } from '../src/ops/random.ts';
import { createCpuBackend } from '../src/runtime/registry.ts';
import { apply } from '../src/tensor/apply.ts';
import { setBackend } from '../src/tensor/backend.ts';
import { scope } from '../src/tensor/with-scope.ts';

const backend = createCpuBackend();
setBackend(backend);
const params = { causal: true, window: 0, scale: 0 };

/** Least time of some runs, in milliseconds. */
function best(work: () => void): number {
  let least = Number.POSITIVE_INFINITY;
  const until = performance.now() + 1200;
  for (let run = 0; run < 5 || (performance.now() < until && run < 200); run++) {
    const start = performance.now();
    work();
    least = Math.min(least, performance.now() - start);
  }
  return least;
}

console.log(`threads ${backend.info['threads']}, matmul ${backend.info['matmul']}`);
console.log('B   H/K    T     D    forward ms  GFLOP/s   backward ms  GFLOP/s');
for (const [B, H, K, T, D] of [
  [4, 4, 4, 512, 64],
  [4, 9, 3, 256, 64],
  [1, 8, 8, 2048, 64],
  [16, 4, 4, 128, 32],
] as const) {
  scope(() => {
    const query = normal([B, T, H, D]);
    const key = normal([B, T, K, D]);
    const value = normal([B, T, K, D]);
    const dout = normal([B, T, H, D]);
    const forward = best(() => scope(() => void apply(attentionOp, [query, key, value], params)));
    const [out, lse] = apply(attentionOp, [query, key, value], params);
    if (!out || !lse) throw new Error('attention gave no outputs');
    const inputs = [query, key, value, out, lse, dout];
    const backward = best(() => scope(() => void apply(attentionBackwardOp, inputs, params)));
    const gigaflops = (2 * B * H * T * T * D) / 2 / 1e6;
    const cells = [
      B,
      `${H}/${K}`,
      T,
      D,
      forward.toFixed(2),
      ((2 * gigaflops) / forward).toFixed(0),
      backward.toFixed(2),
      ((5 * gigaflops) / backward).toFixed(0),
    ];
    console.log(
      cells.map((cell, i) => String(cell).padEnd([4, 7, 6, 5, 12, 10, 13, 0][i] ?? 0)).join(''),
    );
  });
}
backend.dispose();
