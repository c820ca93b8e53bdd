import assert from 'node:assert/strict';
import { after } from 'node:test';
import { alsoCompiled } from '../../test/support/also-compiled.ts';
import { backward } from '../autograd/backward.ts';
import { ConfigError, DisposedError, ShapeError } from '../core/errors.ts';
import { hostTensor } from '../core/host-tensor.ts';
import { add } from '../ops/arithmetic.ts';
import { sum } from '../ops/broadcast.ts';
import { ones, zeros } from '../ops/creation.ts';
import { liveBytes } from '../tensor/backend.ts';
import { currentModule } from '../tensor/context.ts';
import { fromHost, tensor, toArray } from '../tensor/factory.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { onesInit, zerosInit } from './init.ts';
import { Linear } from './linear.ts';
import { Module, ModuleList, pathSegment } from './module.ts';
import { RMSNorm } from './norm.ts';
import { buffer, parameter } from './parameter.ts';

const test = alsoCompiled(import.meta.url);

const before = liveBytes();

after(() => assert.equal(liveBytes(), before));

class Block extends Module<[x: Tensor], Tensor> {
  readonly upProj = new Linear(2, 3, { init: onesInit, biasInit: zerosInit });
  readonly innerNorm = new RMSNorm(3);
  readonly seenPaths: string[] = [];
  leftOver: Tensor | undefined;

  forward(x: Tensor): Tensor {
    this.seenPaths.push(currentModule());
    this.leftOver = add(x, 1);
    return this.innerNorm.call(this.upProj.call(x));
  }
}

class Net extends Module<[x: Tensor], Tensor> {
  readonly scale = parameter(ones([2]));
  readonly stepCount = buffer(zeros([1]));
  readonly lookup = buffer(ones([4]), { persistent: false });
  readonly plainTensor = ones([7]).keep();
  readonly blocks = new ModuleList([new Block(), new Block()]);

  forward(x: Tensor): Tensor {
    let sumOfBlocks = zeros([1, 3]);
    for (const block of this.blocks) sumOfBlocks = add(sumOfBlocks, block.call(x));
    return sumOfBlocks;
  }

  protected override onDispose(): void {
    this.plainTensor.dispose();
  }
}

const names = [
  'scale',
  'blocks.0.up_proj.weight',
  'blocks.0.up_proj.bias',
  'blocks.0.inner_norm.weight',
  'blocks.1.up_proj.weight',
  'blocks.1.up_proj.bias',
  'blocks.1.inner_norm.weight',
];

test('names are dotted paths of fields in snake case, parents first', () => {
  using net = new Net();
  assert.deepEqual(
    [...net.namedParameters()].map(([name]) => name),
    names,
  );
  assert.deepEqual(
    [...net.namedBuffers()].map(([name]) => name),
    ['step_count', 'lookup'],
  );
  assert.deepEqual([...net.stateDict().keys()], ['scale', 'step_count', ...names.slice(1)]);
  assert.equal(pathSegment('postAttentionLayernorm'), 'post_attention_layernorm');
  assert.equal(pathSegment('w1'), 'w1');
});

test('a call runs under the path of the module and releases what it did not return', () => {
  using net = new Net();
  scope(() => {
    const out = net.call(tensor([[1, 2]]));
    assert.equal(out.disposed, false);
    assert.deepEqual(out.shape, [1, 3]);
    const [first, second] = net.blocks.items;
    assert.deepEqual(first?.seenPaths, ['blocks.0']);
    assert.deepEqual(second?.seenPaths, ['blocks.1']);
    assert.throws(() => first?.leftOver?.data, DisposedError);
    assert.equal(first?.upProj.weight.label, 'blocks.0.up_proj.weight');
  });
});

test('paths follow when a module becomes part of a larger one', () => {
  using block = new Block();
  scope(() => {
    block.call(tensor([[1, 2]]));
  });
  assert.deepEqual(block.seenPaths, ['']);
  class Outer extends Module<[x: Tensor], Tensor> {
    readonly inner = block;
    forward(x: Tensor): Tensor {
      return this.inner.call(x);
    }
  }
  const outer = new Outer();
  scope(() => {
    outer.call(tensor([[1, 2]]));
  });
  assert.deepEqual(block.seenPaths, ['', 'inner']);
});

test('a tied parameter is listed once and may be loaded under either name', () => {
  class Tied extends Module<[x: Tensor], Tensor> {
    readonly first = new Linear(2, 2, { bias: false });
    readonly second = new Linear(2, 2, { bias: false, weight: this.first.weight });
    forward(x: Tensor): Tensor {
      return this.second.call(this.first.call(x));
    }
  }
  using tied = new Tied();
  assert.deepEqual([...tied.stateDict().keys()], ['first.weight']);
  const values = hostTensor([1, 2, 3, 4], [2, 2], 'float32');
  tied.loadStateDict([['second.weight', values]]);
  assert.deepEqual([...toArray(tied.first.weight)], [1, 2, 3, 4]);
  scope(() => backward(sum(tied.call(tensor([[1, 1]])))));
  assert.ok(tied.first.weight.grad);
});

test('loadStateDict converts dtypes and takes host tensors and tensors', () => {
  using source = new Net();
  using target = new Net();
  scope(() => {
    const half = fromHost(hostTensor([0.5, -2], [2], 'bfloat16'));
    const entries = [...source.stateDict()].map(
      ([name, value]) => [name, name === 'scale' ? half : value] as const,
    );
    target.loadStateDict(entries);
  });
  assert.deepEqual([...toArray(target.scale)], [0.5, -2]);
});

test('loadStateDict names what is missing and unexpected, and writes nothing', () => {
  using net = new Net();
  const wrong = [
    ['scale', hostTensor([5, 5], [2], 'float32')],
    ['blocks.0.up_proj.wieght', hostTensor([1], [1], 'float32')],
  ] as const;
  assert.throws(
    () => net.loadStateDict(wrong),
    (error: unknown) => {
      assert.ok(error instanceof ConfigError);
      assert.match(error.message, /7 missing: step_count, blocks\.0\.up_proj\.weight/);
      assert.match(
        error.message,
        /1 unexpected: blocks\.0\.up_proj\.wieght \(nearest: blocks\.0\.up_proj\.weight\)/,
      );
      return true;
    },
  );
  assert.deepEqual([...toArray(net.scale)], [1, 1]);
  const report = net.loadStateDict(wrong, { strict: false });
  assert.deepEqual(report.unexpected, ['blocks.0.up_proj.wieght']);
  assert.equal(report.missing.length, 7);
  assert.deepEqual([...toArray(net.scale)], [5, 5]);
});

test('loadStateDict says both shapes', () => {
  using net = new Net();
  assert.throws(
    () => net.loadStateDict([['scale', hostTensor([1], [1], 'float32')]], { strict: false }),
    (error: unknown) =>
      error instanceof ShapeError && /'scale'.*expected \[2\], got \[1\]/.test(error.message),
  );
});

test('train and eval reach every module; requiresGrad_ every parameter', () => {
  using net = new Net();
  net.eval();
  assert.equal(net.blocks.items[1]?.upProj.training, false);
  net.train();
  assert.equal(net.blocks.items[1]?.upProj.training, true);
  net.requiresGrad_(false);
  assert.ok([...net.parameters()].every((tensor_) => !tensor_.requiresGrad));
});

test('to converts in place of the fields, keeps ties and frees the old tensors', () => {
  class Pair extends Module<[x: Tensor], Tensor> {
    readonly first = new Linear(2, 2, { bias: false });
    readonly second = new Linear(2, 2, { bias: false, weight: this.first.weight });
    forward(x: Tensor): Tensor {
      return this.second.call(x);
    }
  }
  using pair = new Pair();
  const old = pair.first.weight;
  pair.to('bfloat16');
  assert.equal(pair.first.weight.dtype, 'bfloat16');
  assert.equal(pair.first.weight, pair.second.weight);
  assert.equal(pair.first.weight.requiresGrad, true);
  assert.equal(old.disposed, true);
});

test('a parameter outlives the scope it is made in', () => {
  const made = scope(() => {
    const inner = parameter(ones([3]));
    ones([5]);
    void inner;
    return { later: () => inner };
  });
  assert.equal(made.later().disposed, false);
  made.later().dispose();
});
