/** Selective checkpointing: a policy says which values a region keeps; only the rest is computed again. */

import {
  type AnyPolicy,
  type Tensor,
  backward,
  checkpoint,
  checkpointName,
  liveBytes,
  matmul,
  saveNames,
  saveNothing,
  saveOps,
  scope,
  sin,
  sum,
  tanh,
  tensor,
} from 'retune';

const size = 256;
const x = tensor(new Float32Array(size * size).fill(0.01), {
  shape: [size, size],
  requiresGrad: true,
});
const w = tensor(new Float32Array(size * size).fill(0.02), {
  shape: [size, size],
  requiresGrad: true,
});

function layer(v: Tensor): Tensor {
  const mixed = checkpointName(tanh(matmul(v, w)), 'mixed');
  return sin(matmul(sin(mixed), w));
}

const policies: Record<string, AnyPolicy> = {
  'save nothing': saveNothing(),
  'save matmuls': saveOps('matmul'),
  "save the value named 'mixed'": saveNames('mixed'),
};

for (const [name, policy] of Object.entries(policies)) {
  scope(() => {
    const start = liveBytes();
    const loss = scope(() => sum(checkpoint(layer, [x], { policy })));
    const kept = Math.round((liveBytes() - start) / 1024);
    backward(loss);
    console.log(`${name}: ${kept} KiB kept for backward`);
    x.grad = undefined;
    w.grad = undefined;
  });
}

x.dispose();
w.dispose();
