/** test/test_utils.py, class TestCheckpoint: sequential regions, random state, what goes in and out. */

import assert from 'node:assert/strict';
import {
  ArgumentError,
  Generator,
  type Tensor,
  add,
  backward,
  checkpoint,
  checkpointSequential,
  dropout,
  exp,
  grad,
  liveBytes,
  mul,
  registerHook,
  scope,
  sigmoid,
  sin,
  sum,
  tanh,
  tensor,
} from '../../../../src/index.ts';
import { Linear, Module, ModuleList } from '../../../../src/nn/index.ts';
import type { Execution } from '../../../support/executions.ts';
import { type ConformanceCase, absent, both, holds, neither } from '../case.ts';
import { matrix, measure, valuesOf, vector } from '../measure.ts';

class Block extends Module<[x: Tensor], Tensor> {
  readonly first = new Linear(6, 5);
  readonly second = new Linear(5, 6);

  forward(x: Tensor): Tensor {
    return tanh(this.second.call(tanh(this.first.call(x))));
  }
}

/** Output, input gradient and parameter gradients of a model that runs as `run`. */
function modelValues(
  execution: Execution,
  model: { parameters(): Iterable<Tensor> },
  run: (x: Tensor) => Tensor,
): number[][] {
  return scope(() =>
    valuesOf(
      execution,
      (x: Tensor) => {
        const out = run(x);
        return [out, ...grad(sum(out), [x, ...model.parameters()])];
      },
      matrix(3, 6, 1),
    ),
  );
}

function sequentialEqualsPlain(execution: Execution, blocks: readonly Block[]): void {
  const model = new ModuleList(blocks);
  try {
    const calls = blocks.map((block) => (x: Tensor) => block.call(x));
    const plain = modelValues(execution, model, (x) => calls.reduce((value, fn) => fn(value), x));
    for (const segments of [1, 2, 3]) {
      const run = (x: Tensor): Tensor => checkpointSequential(calls, segments, x);
      assert.deepEqual(modelValues(execution, model, run), plain, `${segments} segments`);
    }
  } finally {
    model.dispose();
  }
}

const counted = (x: Tensor): Tensor => sigmoid(x);

export const functionCases: readonly ConformanceCase[] = [
  both(
    41,
    'test_checkpoint_trigger',
    'Ten functions in two segments: the first five run again in backward, the last five do not.',
    (execution) => {
      const functions = Array.from({ length: 10 }, (_, i) => (i < 5 ? sin : counted));
      const counts = measure(execution, {
        inputs: () => [vector(4, 1)],
        // The output of the last sine is the input of the second segment: it is kept, not made again.
        loss: (x) => sum(checkpointSequential(functions, 2, x as Tensor)),
      });
      assert.deepEqual([counts.forward.count('sin'), counts.forward.count('sigmoid')], [5, 5]);
      assert.deepEqual([counts.backward.count('sin'), counts.backward.count('sigmoid')], [4, 0]);
      if (execution.name === 'compiled') return;
      scope(() => {
        const calls = functions.map(() => 0);
        const counting = functions.map((fn, i) => (x: Tensor): Tensor => {
          calls[i] = (calls[i] ?? 0) + 1;
          return fn(x);
        });
        backward(sum(checkpointSequential(counting, 2, vector(4, 1))));
        assert.deepEqual(calls, [2, 2, 2, 2, 2, 1, 1, 1, 1, 1]);
      });
    },
  ),
  both(
    42,
    'test_checkpoint_valid',
    'grad() with createGraph works through sequential regions and gives the plain values.',
    (execution) =>
      scope(() => {
        const functions = [sin, exp, tanh, sin];
        const step = (wrap: boolean) => (x: Tensor) => {
          const out = wrap
            ? checkpointSequential(functions, 2, x)
            : functions.reduce((value, fn) => fn(value), x);
          const [first] = grad(sum(out), x, { createGraph: true });
          assert.ok(first);
          return [out, first, ...grad(sum(first), x)];
        };
        const x = vector(4, 1);
        assert.deepEqual(valuesOf(execution, step(true), x), valuesOf(execution, step(false), x));
      }),
  ),
  both(
    43,
    'test_checkpoint',
    'A sequence of modules in 1 to 3 segments has the outputs and gradients of the plain one.',
    (execution) => sequentialEqualsPlain(execution, [new Block(), new Block(), new Block()]),
  ),
  both(
    44,
    'test_checkpoint_module_list',
    'The same with the items of a ModuleList.',
    (execution) => {
      const list = new ModuleList([
        new Block(),
        new Block(),
        new Block(),
        new Block(),
        new Block(),
      ]);
      sequentialEqualsPlain(execution, [...list]);
    },
  ),
  both(
    45,
    'test_checkpoint_sequential_deprecated_multiple_args',
    'A second positional input of checkpointSequential is an error.',
    (execution) =>
      scope(() => {
        const call = checkpointSequential as (...args: unknown[]) => Tensor;
        const x = vector(4, 1);
        const step = (a: Tensor): Tensor => call([sin, sin], 2, a, a);
        assert.throws(() => valuesOf(execution, step, x), ArgumentError);
      }),
  ),
  both(
    46,
    'test_checkpoint_sequential_deprecated_no_args',
    'checkpointSequential without an input is an error.',
    (execution) =>
      scope(() => {
        const call = checkpointSequential as (...args: unknown[]) => Tensor;
        assert.throws(() => valuesOf(execution, () => call([sin, sin], 2)), ArgumentError);
      }),
  ),
  both(
    47,
    'test_checkpoint_rng_cpu',
    'Dropout before and inside a region: gradients equal those of the plain run from the same random state.',
    (execution) =>
      scope(() => {
        const run = (wrap: boolean, seed: number): number[][] => {
          const generator = new Generator(seed);
          const drop = (x: Tensor): Tensor => dropout(x, 0.5, { generator });
          const step = (x: Tensor) => {
            const first = drop(x);
            return grad(sum(wrap ? checkpoint(drop, [first]) : drop(first)), x);
          };
          return valuesOf(execution, step, vector(16, 1));
        };
        for (let seed = 0; seed < 5; seed++) assert.deepEqual(run(true, seed), run(false, seed));
      }),
  ),
  neither(
    48,
    'test_checkpoint_rng_gpu',
    'There is no generator per device: draws are a function of seed and count on every backend, see 47.',
  ),
  both(
    49,
    'test_checkpoint_not_preserve_rng_state_and_without_reentrant',
    'preserveRngState: false runs; a compiled step replays the draws all the same.',
    (execution) =>
      scope(() => {
        const generator = new Generator(3);
        const options = { preserveRngState: false };
        const drop = (x: Tensor): Tensor => dropout(exp(x), 0.5, { generator });
        const step = (x: Tensor) => grad(sum(sin(checkpoint(drop, [x], options))), x);
        assert.equal(valuesOf(execution, step, vector(16, 1)).length, 1);
      }),
  ),
  both(
    50,
    'test_checkpoint_non_tensor',
    'undefined and null are arguments like any other.',
    (execution) =>
      scope(() => {
        const region = (x: Tensor | undefined, y: Tensor, z: null): Tensor => {
          assert.equal(z, null);
          return x ? mul(x, y) : sin(mul(y, y));
        };
        const step = (wrap: boolean) => (y: Tensor) => {
          const args: [undefined, Tensor, null] = [undefined, y, null];
          return grad(sum(wrap ? checkpoint(region, args) : region(...args)), y);
        };
        const y = vector(4, 1);
        assert.deepEqual(valuesOf(execution, step(true), y), valuesOf(execution, step(false), y));
      }),
  ),
  both(
    51,
    'test_checkpoint_non_tensor_inputs_outputs',
    'Mixed outputs pass through; three backwards that retain the graph and a last one work, a further one is an error.',
    (execution) =>
      scope(() => {
        const region = (x: Tensor, scale: number, flag: boolean, text: string) => {
          const out = sin(mul(x, scale));
          return { scale, out, none: undefined, flag, other: exp(out), text, x };
        };
        const step = (wrap: boolean) => (x: Tensor) => {
          const args: [Tensor, number, boolean, string] = [x, 2, true, 'text'];
          const got = wrap ? checkpoint(region, args) : region(...args);
          const { out, other, ...rest } = got;
          assert.deepEqual(rest, { scale: 2, none: undefined, flag: true, text: 'text', x });
          const loss = sum(add(out, other));
          const gradients = Array.from(
            { length: 3 },
            () => grad(loss, x, { retainGraph: true })[0],
          );
          gradients.push(grad(loss, x)[0]);
          assert.throws(() => grad(loss, x), /have already been freed/);
          return gradients;
        };
        const x = vector(4, 1);
        assert.deepEqual(valuesOf(execution, step(true), x), valuesOf(execution, step(false), x));
      }),
  ),
  both(
    52,
    'test_checkpoint_no_tensors',
    'A region without any tensor returns what its function returns.',
    (execution) =>
      scope(() => {
        const step = (x: Tensor): Tensor => {
          const got = checkpoint(
            (a: number, b: string) => ({ sum: a + 1, text: `${b}!` }),
            [1, 'a'],
          );
          assert.deepEqual(got, { sum: 2, text: 'a!' });
          return mul(x, got.sum);
        };
        assert.equal(valuesOf(execution, step, vector(2, 1)).length, 1);
      }),
  ),
  both(
    53,
    'test_checkpoint_partial_grad',
    'Outputs that want no gradient beside ones that do are fine, and so is a region with none that does.',
    (execution) =>
      scope(() => {
        const region = (x: Tensor, y: Tensor): Tensor[] => [mul(sin(x), 2), exp(y)];
        const step = (x: Tensor, y: Tensor) => {
          const [a, b] = checkpoint(region, [x, y]);
          assert.ok(a && b);
          assert.deepEqual([a.requiresGrad, b.requiresGrad], [true, false]);
          const [c, d] = checkpoint(region, [y, y]);
          assert.deepEqual([c?.requiresGrad, d?.requiresGrad], [false, false]);
          return grad(sum(mul(a, b)), x);
        };
        const plain = (x: Tensor, y: Tensor) => {
          const [a, b] = region(x, y);
          assert.ok(a && b);
          return grad(sum(mul(a, b)), x);
        };
        const args: [Tensor, Tensor] = [vector(4, 1), vector(4, 2, false)];
        assert.deepEqual(valuesOf(execution, step, ...args), valuesOf(execution, plain, ...args));
      }),
  ),
  {
    number: 54,
    torch: 'test_checkpointing_without_reentrant_early_free',
    claim:
      'Recomputed tensors go as they are read: live bytes fall through a backward in the same way with and without retainGraph, as in a plain backward.',
    eager: holds(() => {
      const length = 1024;
      /** Live bytes whenever a gradient passes between two of the squares. */
      const series = (wrap: boolean, retainGraph: boolean): number[] =>
        scope(() => {
          const bytes: number[] = [];
          const x = tensor(new Float32Array(length).fill(1), { requiresGrad: true });
          const start = liveBytes();
          let first = true;
          const squares = (v: Tensor): Tensor => {
            let out = v;
            for (let i = 0; i < 5; i++) {
              out = mul(out, out);
              if (first) {
                registerHook(out, () => {
                  bytes.push(liveBytes() - start);
                  return undefined;
                });
              }
            }
            first = false;
            return out;
          };
          const loss = scope(() => sum(wrap ? checkpoint(squares, [x]) : squares(x)));
          backward(loss, { retainGraph });
          return bytes;
        });
      // Between the first two gradients a dense one takes the place of the broadcast one of the sum.
      const falls = (bytes: readonly number[]): number[] =>
        bytes.slice(2).map((live, i) => (bytes[i + 1] ?? 0) - live);
      assert.deepEqual(falls(series(false, false)), [4096, 4096, 4096]);
      assert.deepEqual(falls(series(false, true)), [0, 0, 0]);
      assert.deepEqual(falls(series(true, false)), [4096, 4096, 4096]);
      assert.deepEqual(falls(series(true, true)), [4096, 4096, 4096]);
    }),
    compiled: absent(
      'Lifetimes of a compiled step are its plan: each value goes after its last reader, and the peak is asserted to the byte (P5).',
    ),
  },
];
