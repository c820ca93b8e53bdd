import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { checkLiveBytes, onReference } from '../../../test/support/backend.ts';
import { executions } from '../../../test/support/executions.ts';
import { difference } from '../../../test/support/fixtures.ts';
import { grad } from '../../autograd/backward.ts';
import { currentBackend } from '../../tensor/backend.ts';
import { tensor, toArray } from '../../tensor/factory.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { scope } from '../../tensor/with-scope.ts';
import '../methods.ts';
import { linear } from '../matmul/linear.ts';
import { type CrossEntropyOptions, crossEntropy } from './cross-entropy.ts';
import { linearCrossEntropy } from './linear-cross-entropy.ts';

checkLiveBytes();

function random(shape: readonly number[], seed: number): Tensor {
  let state = seed | 1;
  const values = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return (state >> 8) / 2 ** 22;
  });
  return tensor(values, { shape });
}

interface Problem {
  readonly x: Tensor;
  readonly weight: Tensor;
  readonly bias: Tensor;
  readonly targets: Tensor;
}

function problem(rows: number, classes: number, width: number): Problem {
  const x = random([rows, width], 5);
  const weight = random([classes, width], 7);
  const bias = random([classes], 9);
  for (const leaf of [x, weight, bias]) leaf.requiresGrad = true;
  const numbers = Int32Array.from({ length: rows }, (_, i) =>
    i % 4 === 2 ? -100 : (3 * i + 1) % classes,
  );
  return { x, weight, bias, targets: tensor(numbers) };
}

const variants: readonly (readonly [name: string, options: CrossEntropyOptions])[] = [
  ['mean', {}],
  ['sum', { reduction: 'sum' }],
  ['none', { reduction: 'none' }],
  ['smoothed', { labelSmoothing: 0.2 }],
  ['with another ignored target', { ignoreIndex: 0 }],
];

function close(got: Tensor, want: Tensor, what: string): void {
  const text = difference(toArray(got), toArray(want), { rtol: 2e-5, atolScale: 2e-6 });
  assert.equal(text, null, what);
}

describe('linearCrossEntropy', () => {
  for (const [name, options] of variants) {
    const legal = (targets: Tensor): Tensor =>
      options.ignoreIndex === undefined ? targets : targets.maximum(0);
    test(`${name}: equals crossEntropy of linear`, () => {
      scope(() => {
        const { x, weight, bias, targets } = problem(13, 11, 6);
        const wanted = legal(targets);
        const leaves = [x, weight, bias];
        const plain = crossEntropy(linear(x, weight, bias), wanted, options);
        const cotangent = options.reduction === 'none' ? random([13], 3) : random([], 3);
        const want = grad(plain, leaves, { gradOutputs: cotangent });
        for (const chunkRows of [1, 4, 13, undefined]) {
          const limit = chunkRows === undefined ? {} : { chunkRows };
          const loss = linearCrossEntropy(x, weight, wanted, { ...options, ...limit, bias });
          close(loss, plain, 'loss');
          const got = grad(loss, leaves, { gradOutputs: cotangent });
          got.forEach((gradient, i) => {
            close(gradient!, want[i]!, `gradient ${i} in chunks of ${chunkRows}`);
          });
        }
      });
    });

    test(`${name}: may be differentiated twice`, () => {
      onReference(() =>
        scope(() => {
          const { x, weight, bias, targets } = problem(5, 7, 3);
          const leaves = [x, weight, bias];
          const second = (loss: Tensor): (Tensor | undefined)[] => {
            const first = grad(loss.mul(loss).sum(), leaves, { createGraph: true });
            const total = first.reduce<Tensor>((all, g) => all.add(g!.mul(g!).sum()), tensor(0));
            return grad(total, leaves);
          };
          const wanted = legal(targets);
          const want = second(crossEntropy(linear(x, weight, bias), wanted, options));
          const got = second(
            linearCrossEntropy(x, weight, wanted, { ...options, bias, chunkRows: 2 }),
          );
          got.forEach((gradient, i) => {
            close(gradient!, want[i]!, `second gradient ${i}`);
          });
        }),
      );
    });
  }

  for (const { name, prepare } of executions) {
    test(`${name}: the same loss and gradients in a step`, () => {
      scope(() => {
        const { x, weight, targets } = problem(10, 9, 4);
        const step = prepare((rows: Tensor, wanted: Tensor) => {
          const loss = linearCrossEntropy(rows, weight, wanted, { chunkRows: 4 });
          return [loss, ...grad(loss, [rows, weight])] as Tensor[];
        });
        const got = step.run(x, targets);
        const plain = crossEntropy(linear(x, weight), targets);
        const want = [plain, ...grad(plain, [x, weight])];
        got.forEach((value, i) => {
          close(value, want[i]!, `result ${i}`);
        });
        step.dispose();
      });
    });
  }

  test('logits take one chunk of memory', () => {
    const { allocator } = currentBackend();
    const [rows, classes, width] = [256, 2048, 8];
    scope(() => {
      const { x, weight, targets } = problem(rows, classes, width);
      allocator.resetPeak();
      const start = allocator.stats().live;
      scope(() => {
        const loss = linearCrossEntropy(x, weight, targets, { chunkRows: 16 });
        return void grad(loss, [x, weight]);
      });
      const used = allocator.stats().peak - start;
      const chunk = 4 * 16 * classes;
      const gradients = 2 * 4 * (2 * rows + classes) * width;
      assert.ok(used < chunk + gradients + 32768, `${used} bytes for a chunk of ${chunk}`);
    });
  });

  test('gradients only where they are wanted', () => {
    scope(() => {
      const { x, weight, targets } = problem(6, 5, 3);
      const frozen = weight.detach();
      const [dx] = grad(linearCrossEntropy(x, frozen, targets, { chunkRows: 2 }), x);
      const [want] = grad(crossEntropy(linear(x, frozen), targets), x);
      close(dx!, want!, 'gradient of x');
      const loss = linearCrossEntropy(x.detach(), frozen, targets);
      assert.equal(loss.requiresGrad, false);
    });
  });

  test('nothing but ignored targets: NaN for the mean, 0 for the sum', () => {
    scope(() => {
      const { x, weight } = problem(3, 5, 3);
      const targets = tensor(Int32Array.of(-100, -100, -100));
      assert.ok(Number.isNaN(toArray(linearCrossEntropy(x, weight, targets))[0]));
      const total = linearCrossEntropy(x, weight, targets, { reduction: 'sum' });
      assert.equal(toArray(total)[0], 0);
      assert.ok(toArray(grad(total, weight)[0]!).every((value) => value === 0));
    });
  });

  test('a target outside the classes gives NaN', () => {
    scope(() => {
      const logits = random([2, 5], 1);
      for (const wrong of [5, -1]) {
        const losses = crossEntropy(logits, tensor(Int32Array.of(1, wrong)), { reduction: 'none' });
        const [first, second] = toArray(losses);
        assert.ok(Number.isFinite(first) && Number.isNaN(second));
      }
    });
  });

  test('says what does not fit', () => {
    scope(() => {
      const { x, weight, targets } = problem(4, 5, 3);
      assert.throws(() => linearCrossEntropy(x, weight.transpose(), targets), /H equal to axis -1/);
      assert.throws(() => linearCrossEntropy(x, weight, tensor([1])), /one target per row/);
      assert.throws(() => crossEntropy(x, targets, { labelSmoothing: 2 }), /0 to 1/);
      assert.throws(() => linearCrossEntropy(x, weight, targets, { chunkRows: 0 }), /from 1 up/);
      assert.throws(() => crossEntropy(x, x.sum(1)), /must be an integer tensor/);
    });
  });
});
