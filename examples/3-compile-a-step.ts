/** A whole training step - forward, backward, clipping, update - as one plan whose memory is known. */

import {
  backward,
  compile,
  currentBackend,
  formatBytes,
  item,
  scope,
  type Tensor,
  tensor,
} from 'retune';
import { byteLlama } from 'retune/models';
import { AdamW, clipGradNorm } from 'retune/optim';

const model = byteLlama({ hidden: 64, layers: 3 });
const optimizer = new AdamW(model.namedParameters(), { lr: 3e-3 });

const step = compile((tokens: Tensor, targets: Tensor) => {
  const loss = model.call(tokens, { targets });
  backward(loss);
  clipGradNorm(model.parameters(), 1);
  optimizer.step();
  optimizer.zeroGrad();
  return loss.detach();
});

const text = Buffer.from('to be, or not to be, that is the question. '.repeat(4));
const tokens = tensor(Int32Array.from(text.subarray(0, 128)), { shape: [2, 64] });
const targets = tensor(Int32Array.from(text.subarray(1, 129)), { shape: [2, 64] });

const plan = step.prepare(tokens, targets);
console.log(`planned: ${formatBytes(plan.peakBytes)}, ${plan.launches} launches`);

const { allocator } = currentBackend();
let first = 0;
let last = 0;
for (let i = 0; i < 30; i++) {
  scope(() => {
    const before = allocator.stats().live;
    allocator.resetPeak();
    const loss = step(tokens, targets);
    const measured = allocator.stats().peak - before;
    if (measured !== plan.peakBytes) throw new Error(`measured ${measured}, not as planned`);
    last = item(loss);
    if (i === 0) first = last;
  });
}
console.log(`measured the same; loss ${first.toFixed(3)} -> ${last.toFixed(3)}`);
if (last > first / 2) throw new Error('the model did not learn');
