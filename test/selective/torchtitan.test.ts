/**
 * torchtitan's toy block (its test_activation_checkpoint.py): three projections in a row, 512 -> 512 -> 512
 * -> 1024. Units: a product of two 512 x 512 matrices is 1, a 512 x 512 float32 tensor 1 MiB. With PyTorch's
 * semantics the figures are torchtitan's; declared policies keep no output that nobody needs, and do not
 * compute one again either.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type CheckpointOptions,
  type PolicyFunction,
  type Tensor,
  backward,
  checkpoint,
  compile,
  createSelectiveCheckpointContexts,
  liveBytes,
  scope,
  sum,
  tensor,
  toArray,
} from '../../src/index.ts';
import { matmulFlops } from '../../src/ops/matmul/matmul.ts';
import { Linear } from '../../src/nn/linear.ts';
import { Module } from '../../src/nn/module.ts';
import { checkLiveBytes } from '../support/backend.ts';
import { countOps } from '../support/op-counter.ts';

test.after(() => block.dispose());
checkLiveBytes();

const MiB = 2 ** 20;
const unit = matmulFlops([512, 512], 512);

class Block extends Module<[x: Tensor], Tensor> {
  readonly gate = new Linear(512, 512, { bias: false });
  readonly wq = new Linear(512, 512, { bias: false });
  readonly output = new Linear(512, 1024, { bias: false });

  forward(x: Tensor): Tensor {
    return sum(this.output.call(this.wq.call(this.gate.call(x))));
  }
}

const block = new Block();
block.assignPaths();

/** Saves products but for every second; those of the `forced` modules are recomputed and not counted. */
function alternating(...forced: readonly string[]): PolicyFunction {
  let count = 0;
  return ({ traits, module }) => {
    if (traits.class !== 'matmul' || forced.includes(module)) return false;
    return ++count % 2 === 1;
  };
}

/** As torchtitan wraps: PyTorch's contexts, and no early stop. */
function contexts(...forced: readonly string[]): CheckpointOptions {
  return {
    earlyStop: false,
    contextFn: () => createSelectiveCheckpointContexts(alternating(...forced)),
  };
}

function input(): Tensor {
  const values = Float32Array.from({ length: 512 * 512 }, (_, i) => Math.sin(i * 0.3));
  return tensor(values, { shape: [512, 512], requiresGrad: true });
}

function forward(x: Tensor, options: CheckpointOptions | undefined): Tensor {
  return options ? checkpoint((v: Tensor) => block.call(v), [x], options) : block.call(x);
}

interface Figures {
  readonly flops: number;
  readonly mem: number;
}

function eager(options: CheckpointOptions | undefined): Figures {
  return scope(() => {
    const x = input();
    const start = liveBytes();
    const loss = forward(x, options);
    const mem = Math.floor((liveBytes() - start) / MiB);
    const counter = countOps(() => backward(loss));
    block.zeroGrad();
    return { flops: Math.floor(counter.flops / unit), mem };
  });
}

const settings: readonly [string, CheckpointOptions | undefined, Figures][] = [
  ['none', undefined, { flops: 8, mem: 2 }],
  ['selective', contexts(), { flops: 9, mem: 3 }],
  ['one forced by shape', contexts('gate', 'wq'), { flops: 10, mem: 2 }],
  ['two forced', contexts('output'), { flops: 11, mem: 1 }],
  ['full', { earlyStop: false }, { flops: 12, mem: 0 }],
];

test('backward FLOPs 8 9 10 11 12 and saved MiB 2 3 2 1 0 [test_flops, test_mem]', () => {
  for (const [name, options, figures] of settings) assert.deepEqual(eager(options), figures, name);
});

/** `policy` as an option: made anew for each region call, like contexts. */
function declared(...forced: readonly string[]): CheckpointOptions {
  const policy = {
    label: 'alternating',
    start: () => {
      const ask = alternating(...forced);
      return {
        ask: (context: Parameters<PolicyFunction>[0]) =>
          ask(context) ? ('mustSave' as const) : ('preferRecompute' as const),
        askName: () => undefined,
      };
    },
  };
  return { policy };
}

const frugal: readonly [string, CheckpointOptions | undefined, Figures][] = [
  ['none', undefined, { flops: 8, mem: 2 }],
  ['selective', declared(), { flops: 9, mem: 1 }],
  ['one forced by shape', declared('gate', 'wq'), { flops: 10, mem: 0 }],
  ['two forced', declared('output'), { flops: 9, mem: 1 }],
  ['full', {}, { flops: 10, mem: 0 }],
];

test('declared policies keep and recompute only what backward needs', () => {
  for (const [name, options, figures] of frugal) assert.deepEqual(eager(options), figures, name);
});

/** FLOPs of a compiled step beyond its forward, from its planned graph. */
function compiledFlops(options: CheckpointOptions | undefined): number {
  const step = compile(
    (x: Tensor) => {
      const loss = forward(x, options);
      backward(loss);
      return [loss, x.grad, block.gate.weight.grad, block.wq.weight.grad, block.output.weight.grad];
    },
    { verify: true, disable: ['planRegions'] },
  );
  const { graph } = scope(() => step.prepare(input())).plan;
  step.dispose();
  let flops = 0;
  for (const { op, inputs, outputs, params } of graph.nodes) {
    const avals = inputs.map(({ aval }) => aval);
    if (op?.traits.class !== 'matmul') continue;
    flops += op.cost(
      avals,
      outputs.map(({ aval }) => aval),
      params,
    ).flops;
  }
  return flops / unit - 4;
}

test('compiled: the same products are computed again as by declared policies', () => {
  for (const [name, options, { flops }] of frugal)
    assert.equal(compiledFlops(options), flops, name);
  for (const [i, [name, options]] of settings.entries()) {
    assert.equal(compiledFlops(options), frugal[i]?.[2].flops, `${name}, by contexts`);
  }
});

test('loss and gradients have the same bits under all of them, eager and compiled [test_correctness]', () => {
  const run = (options: CheckpointOptions | undefined, compiled: boolean): Float64Array[] => {
    const body = (x: Tensor): (Tensor | undefined)[] => {
      const loss = forward(x, options);
      backward(loss);
      return [loss, x.grad, block.gate.weight.grad, block.wq.weight.grad, block.output.weight.grad];
    };
    const compiledStep = compiled ? compile(body) : undefined;
    const step = compiledStep ?? body;
    const values = scope(() =>
      step(input()).map((result) => {
        assert.ok(result);
        return toArray(result);
      }),
    );
    block.zeroGrad();
    compiledStep?.dispose();
    return values;
  };
  const want = run(undefined, false);
  for (const [name, options] of [...settings, ...frugal]) {
    assert.deepEqual(run(options, false), want, name);
    assert.deepEqual(run(options, true), want, `${name}, compiled`);
  }
});
