import assert from 'node:assert/strict';
import { describe } from 'node:test';
import { alsoCompiled } from '../../../test/support/also-compiled.ts';
import { checkLiveBytes } from '../../../test/support/backend.ts';
import { tensor, toArray } from '../../tensor/factory.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { scope } from '../../tensor/with-scope.ts';
import '../methods.ts';
import { adamwUpdate } from './adamw-update.ts';
import { sgdUpdate } from './sgd-update.ts';

const test = alsoCompiled(import.meta.url);

checkLiveBytes();

const start = [0.5, -1.25, 2, 0.125];
const gradients = [
  [0.1, -0.2, 0.3, 0],
  [-0.4, 0.5, 0.6, 1],
  [0.7, -0.8, 0, -1],
];

function near(got: Tensor, want: readonly number[]): void {
  toArray(got).forEach((x, i) => {
    const bound = 2e-6 * Math.max(1, Math.abs(want[i]!));
    assert.ok(Math.abs(x - want[i]!) <= bound, `element ${i} is ${x}, not ${want[i]}`);
  });
}

describe('adamwUpdate', () => {
  test('follows the paper for three steps, in place', () => {
    const [lr, beta1, beta2, eps, decay, scale] = [0.01, 0.9, 0.999, 1e-8, 0.1, 0.5];
    scope(() => {
      const param = tensor(start);
      const [m, v] = [tensor([0, 0, 0, 0]), tensor([0, 0, 0, 0])];
      const want = [...start];
      const wantM = [0, 0, 0, 0];
      const wantV = [0, 0, 0, 0];
      gradients.forEach((gradient, i) => {
        const [c1, c2] = [1 - beta1 ** (i + 1), 1 - beta2 ** (i + 1)];
        const scalars = tensor([lr, beta1, beta2, eps, decay, c1, c2, scale]);
        adamwUpdate(param, tensor(gradient), m, v, scalars);
        gradient.forEach((raw, k) => {
          const g = raw * scale;
          wantM[k] = beta1 * wantM[k]! + (1 - beta1) * g;
          wantV[k] = beta2 * wantV[k]! + (1 - beta2) * g * g;
          const step = wantM[k]! / c1 / (Math.sqrt(wantV[k]! / c2) + eps);
          want[k] = want[k]! * (1 - lr * decay) - lr * step;
        });
      });
      near(param, want);
      near(m, wantM);
      near(v, wantV);
    });
  });

  test('refuses tensors that do not fit, and records nothing', () => {
    scope(() => {
      const [param, m, v] = [tensor(start), tensor(start), tensor(start)];
      const scalars = tensor(new Array(8).fill(0.5));
      assert.throws(() => adamwUpdate(param, tensor([1]), m, v, scalars), /shape of the parameter/);
      assert.throws(() => adamwUpdate(param, m, m, v, tensor([1])), /float32\[8\]/);
      assert.throws(() => adamwUpdate(param, m.cast('int32'), m, v, scalars), /floating point/);
      param.requiresGrad = true;
      adamwUpdate(param, tensor(start), m, v, scalars);
      assert.ok(param.isLeaf && param.requiresGrad);
    });
  });
});

describe('sgdUpdate', () => {
  for (const nesterov of [false, true]) {
    test(`momentum${nesterov ? ' after Nesterov' : ''} as in PyTorch`, () => {
      const [lr, momentum, decay] = [0.1, 0.9, 0.01];
      scope(() => {
        const param = tensor(start);
        const buffer = tensor([0, 0, 0, 0]);
        const want = [...start];
        const wantBuffer = [0, 0, 0, 0];
        for (const gradient of gradients) {
          const scalars = tensor([lr, momentum, 0, decay, 1]);
          sgdUpdate(param, tensor(gradient), buffer, scalars, { nesterov });
          gradient.forEach((raw, k) => {
            const g = raw + decay * want[k]!;
            wantBuffer[k] = momentum * wantBuffer[k]! + g;
            want[k] = want[k]! - lr * (nesterov ? g + momentum * wantBuffer[k]! : wantBuffer[k]!);
          });
        }
        near(param, want);
        near(buffer, wantBuffer);
      });
    });
  }

  test('without momentum', () => {
    scope(() => {
      const param = tensor(start);
      sgdUpdate(param, tensor(gradients[0]!), undefined, tensor([0.1, 0, 0, 0.5, 2]));
      near(
        param,
        start.map((x, k) => x - 0.1 * (2 * gradients[0]![k]! + 0.5 * x)),
      );
    });
  });
});
