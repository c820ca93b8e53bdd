/** Tensors, a function of them, and its gradient: fits a line to points by hand-written descent. */

import {
  backward,
  item,
  linear,
  manualSeed,
  mean,
  noGrad,
  normal,
  scope,
  sub,
  tensor,
} from 'retune';

manualSeed(0);
const x = normal([64, 1]);
const y = x.mul(3).add(0.5);

const weight = tensor([[0]], { requiresGrad: true });
const bias = tensor([0], { requiresGrad: true });

for (let step = 0; step <= 100; step++) {
  // Everything made inside a scope is freed at its end; memory never waits for the garbage collector.
  scope(() => {
    const loss = mean(sub(linear(x, weight, bias), y).square());
    backward(loss);
    noGrad(() => {
      for (const parameter of [weight, bias]) {
        if (parameter.grad) parameter.subInPlace(parameter.grad.mul(0.1));
        parameter.grad = undefined;
      }
    });
    if (step % 50 === 0) console.log(`step ${step}: loss ${item(loss).toFixed(6)}`);
  });
}

const found = [item(weight), item(bias)].map((value) => value.toFixed(3));
console.log(`y = ${found[0]} x + ${found[1]}`);
if (found.join() !== '3.000,0.500') throw new Error('the line is not y = 3 x + 0.5');
