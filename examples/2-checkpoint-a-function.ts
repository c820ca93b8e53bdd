/** What activation checkpointing does: the same gradient from less memory, for some time. */

import {
  backward,
  checkpoint,
  currentBackend,
  formatBytes,
  gelu,
  matmul,
  normal,
  scope,
  type Tensor,
  toArray,
} from 'retune';

const size = 512;
const weights = Array.from({ length: 8 }, () => normal([size, size]).mul(0.05));
for (const weight of weights) weight.requiresGrad = true;
const input = normal([size, size]);

/** One block: two results that backward needs, of 1 MiB each. */
const block = (x: Tensor, weight: Tensor): Tensor => gelu(matmul(x, weight));

function measure(checkpointed: boolean): { peak: number; gradient: Float64Array } {
  return scope(() => {
    const { allocator } = currentBackend();
    const before = allocator.stats().live;
    allocator.resetPeak();
    let x = input;
    for (const weight of weights) {
      x = checkpointed ? checkpoint(block, [x, weight]) : block(x, weight);
    }
    backward(x.square().mean());
    const peak = allocator.stats().peak - before;
    const [first] = weights;
    const gradient = first?.grad ? toArray(first.grad) : new Float64Array();
    for (const weight of weights) weight.grad = undefined;
    return { peak, gradient };
  });
}

const plain = measure(false);
const saving = measure(true);
console.log(`plain:        ${formatBytes(plain.peak)} at the peak`);
console.log(`checkpointed: ${formatBytes(saving.peak)} at the peak`);
const equal = plain.gradient.every((value, i) => Object.is(value, saving.gradient[i]));
console.log(`gradients are ${equal ? 'bitwise equal' : 'different'}`);
if (!equal || saving.peak >= plain.peak) throw new Error('checkpointing did not do its job');
