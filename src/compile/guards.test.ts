/** A compiled step follows the host state that shapes it: flags, gradients, wrappers, gradient mode. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backward, grad } from '../autograd/backward.ts';
import { registerHook } from '../autograd/leaf.ts';
import { applyActivationCheckpointing } from '../checkpoint/apply.ts';
import type { CheckpointingSpec } from '../checkpoint/apply-spec.ts';
import { Dropout } from '../nn/dropout.ts';
import { LayerStack } from '../nn/layer-stack.ts';
import { Linear } from '../nn/linear.ts';
import { Module } from '../nn/module.ts';
import { parameter } from '../nn/parameter.ts';
import { add, mul } from '../ops/arithmetic.ts';
import { sum } from '../ops/broadcast.ts';
import '../ops/methods.ts';
import { checkLiveBytes } from '../../test/support/backend.ts';
import { values, withCompiled } from '../../test/support/compiled.ts';
import { CompileError } from '../core/errors.ts';
import { AdamW } from '../optim/adamw.ts';
import { Sgd } from '../optim/sgd.ts';
import { noGrad } from '../tensor/context.ts';
import { item, tensor } from '../tensor/factory.ts';
import { manualSeed } from '../tensor/generator.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { type CompiledStep, compile } from './compile.ts';

checkLiveBytes();

class Layer extends Module<[x: Tensor], Tensor> {
  readonly linear = new Linear(4, 4);
  readonly dropout = new Dropout(0.5);

  forward(x: Tensor): Tensor {
    return add(x, this.dropout.call(this.linear.call(x)));
  }
}

class Net extends Module<[x: Tensor], Tensor> {
  readonly layers = new LayerStack([new Layer(), new Layer(), new Layer()]);

  forward(x: Tensor): Tensor {
    return sum(mul(this.layers.call(x), this.layers.call(x)));
  }
}

function withNet(body: (net: Net) => void): void {
  manualSeed(1);
  const net = new Net();
  try {
    scope(() => body(net));
  } finally {
    net.dispose();
  }
}

const input = (): Tensor => tensor([1, 2, 3, 4, 5, 6, 7, 8], { shape: [2, 4] });

/** The same program run eagerly and compiled, from the same seed: equal results each time. */
function agrees<A extends readonly unknown[]>(
  step: (...args: A) => Tensor,
  compiled: CompiledStep<A, Tensor>,
  ...args: A
): void {
  manualSeed(7);
  const expected = values(scope(() => step(...args).detach()));
  manualSeed(7);
  assert.deepEqual(values(compiled(...args)), expected);
}

test('train and eval of a module have plans of their own, and each is used again', () => {
  withNet((net) => {
    const step = (x: Tensor): Tensor => net.call(x);
    withCompiled(step, (compiled) => {
      const x = input();
      for (const training of [true, false, true, false, true]) {
        net.train(training);
        agrees(step, compiled, x);
      }
      assert.equal(compiled.plans.length, 2);
      assert.equal(compiled.plans[0]?.reason, 'first call with these arguments');
      assert.match(
        compiled.plans[1]?.reason ?? '',
        /^training of layers\.0\.dropout was true, is false$/,
      );
    });
  });
});

test('a flag that the step does not look at does not count', () => {
  withNet((net) => {
    withCompiled(
      (x: Tensor) => net.layers.layers[0]?.call(x) as Tensor,
      (compiled) => {
        compiled(input());
        const last = net.layers.layers[2] as Layer;
        last.dropout.training = false;
        net.layers.layers[0]?.train(true);
        compiled(input());
        assert.equal(compiled.plans.length, 1);
      },
    );
  });
});

test('gradient mode around the call counts', () => {
  withNet((net) => {
    const step = (x: Tensor): Tensor => {
      const y = net.eval().call(x);
      return y.requiresGrad ? mul(y, 2) : y;
    };
    withCompiled(step, (compiled) => {
      const x = input();
      agrees(step, compiled, x);
      noGrad(() => agrees(step, compiled, x));
      agrees(step, compiled, x);
      assert.equal(compiled.plans.length, 2);
      assert.match(compiled.plans[1]?.reason ?? '', /gradient mode was on, is off/);
    });
  });
});

test('the first micro-step makes gradients, later ones add to them, and they outlive the call', () => {
  const w = tensor([1, 2, 3], { requiresGrad: true });
  const step = (x: Tensor): Tensor => {
    const loss = sum(mul(mul(w, w), x));
    backward(loss);
    return loss.detach();
  };
  withCompiled(step, (compiled) => {
    for (let round = 0; round < 3; round++) {
      compiled(tensor([1, 1, 1]));
      assert.deepEqual(values(w.grad), [2, 4, 6]);
      compiled(tensor([1, 2, 3]));
      assert.deepEqual(values(w.grad), [4, 12, 24]);
      const held = w.grad;
      compiled(tensor([0, 0, 1]));
      assert.deepEqual(values(w.grad), [4, 12, 30]);
      assert.equal(w.grad, held);
      w.grad = undefined;
    }
    assert.equal(compiled.plans.length, 2);
    assert.match(
      compiled.plans[1]?.reason ?? '',
      /^grad of float32\[3\] was absent, is float32\[3\]$/,
    );
  });
  w.dispose();
});

test('tracing alone changes no state of the host', () => {
  withNet((net) => {
    const w = (net.layers.layers[0] as Layer).linear.weight;
    w.grad = tensor(new Float32Array(16).fill(3), { shape: [4, 4] });
    const before = w.grad;
    withCompiled(
      (x: Tensor) => {
        net.zeroGrad();
        net.eval();
        backward(net.call(x));
      },
      (compiled) => {
        compiled.prepare(input());
        assert.equal(w.grad, before);
        assert.deepEqual(values(before), new Array(16).fill(3));
        assert.equal(net.training, true);
        compiled(input());
        assert.equal(net.training, false);
        assert.notEqual(w.grad, before);
        assert.equal(before.disposed, true);
      },
    );
    net.zeroGrad();
  });
});

test('gradients that are cleared before they are read cost no second plan', () => {
  withNet((net) => {
    net.eval();
    const optimizer = new Sgd(net.namedParameters(), { lr: 1e-4 });
    const step = (x: Tensor): Tensor => {
      optimizer.zeroGrad();
      const loss = net.call(x);
      backward(loss);
      optimizer.step();
      return loss.detach();
    };
    withCompiled(step, (compiled) => {
      const losses = [0, 1, 2].map(() => item(compiled(input())));
      assert.ok((losses[2] as number) < (losses[0] as number));
      assert.equal(compiled.plans.length, 1);
      assert.ok([...net.parameters()].every(({ grad: g }) => g !== undefined));
    });
    optimizer.dispose();
    net.zeroGrad();
  });
});

test('a gradient read by the step and then dropped is gone after the run', () => {
  const w = tensor([1, 2], { requiresGrad: true });
  withCompiled(
    () => {
      const seen = mul(w.grad ?? 0, tensor([10, 10]));
      w.grad = undefined;
      return seen;
    },
    (compiled) => {
      for (const value of [3, 4]) {
        w.grad = tensor([value, value]);
        assert.deepEqual(values(compiled()), [10 * value, 10 * value]);
        assert.equal(w.grad, undefined);
      }
      assert.deepEqual(values(compiled()), [0, 0]);
      assert.equal(compiled.plans.length, 2);
    },
  );
  w.dispose();
});

test('two leaves with one gradient get memory of their own', () => {
  const a = tensor([1, 2], { requiresGrad: true });
  const b = tensor([3, 4], { requiresGrad: true });
  withCompiled(
    () => backward(sum(add(a, b))),
    (compiled) => {
      compiled();
      noGrad(() => a.grad?.addInPlace(1));
      assert.deepEqual(values(b.grad), [1, 1]);
      assert.deepEqual(values(a.grad), [2, 2]);
    },
  );
  a.dispose();
  b.dispose();
});

test('gradients of arguments are left on the arguments', () => {
  withCompiled(
    (x: Tensor) => backward(sum(mul(x, x))),
    (compiled) => {
      const x = tensor([1, 2], { requiresGrad: true });
      compiled(x);
      assert.deepEqual(values(x.grad), [2, 4]);
      compiled(x);
      assert.deepEqual(values(x.grad), [4, 8]);
      compiled(tensor([5, 5], { requiresGrad: true }));
      assert.equal(compiled.plans.length, 2);
    },
  );
});

test('checkpointing applied again is followed; the same setting again is the same plan', () => {
  withNet((net) => {
    net.eval();
    const quiet = { logger: () => {} };
    const step = (x: Tensor): Tensor[] =>
      grad(net.call(x), [...net.parameters()]).map((g) => g as Tensor);
    const compiled = compile(step, { verify: true, disable: ['planRegions'] });
    const recomputed = (): number =>
      compiled.plans.at(-1)?.plan.graph.nodes.filter((node) => node.meta.regions.length > 0)
        .length ?? 0;
    const x = input();
    const expected = step(x).map(values);
    const seen: number[] = [];
    for (const mode of [
      'none',
      'full',
      'none',
      'full',
      { mode: 'segments', segments: 2 },
    ] as const) {
      applyActivationCheckpointing(net, mode, quiet);
      assert.deepEqual(compiled(x).map(values), expected);
      seen.push(recomputed());
    }
    assert.equal(seen[0], 0);
    assert.ok((seen[1] as number) > 0);
    assert.equal(compiled.plans.length, 3);
    assert.match(compiled.plans[1]?.reason ?? '', /^call wrapper of layers\.0 /);
    compiled.dispose();
  });
});

test('a selective setting applied again is the same plan; another one, and a policy in code, are not', () => {
  withNet((net) => {
    net.eval();
    const step = (x: Tensor): Tensor[] =>
      grad(net.call(x), [...net.parameters()]).map((g) => g as Tensor);
    const compiled = compile(step, { verify: true });
    const x = input();
    const expected = step(x).map(values);
    const plansAfter = (...settings: NonNullable<CheckpointingSpec['selective']>[]): number => {
      for (const selective of settings) {
        applyActivationCheckpointing(net, { mode: 'selective', selective }, { logger: () => {} });
        assert.deepEqual(compiled(x).map(values), expected);
      }
      return compiled.plans.length;
    };
    const save = ['matmul'];
    assert.equal(plansAfter('op', 'op', 'op'), 1);
    assert.equal(plansAfter({ save }, { save: ['matmul'] }, 'op', { save }), 2);
    const policy = (): 'mustSave' => 'mustSave';
    assert.equal(plansAfter(policy), 3);
    assert.equal(
      plansAfter(() => 'mustSave'),
      4,
    );
    compiled.dispose();
  });
});

test('requiresGrad of a captured tensor, and hooks on it, are followed', () => {
  const w = tensor([1, 2], { requiresGrad: true });
  const v = tensor([3, 4], { requiresGrad: true });
  withCompiled(
    () => grad(sum(mul(w, v)), [w, v], { allowUnused: true }).map((g) => g ?? tensor([-1, -1])),
    (compiled) => {
      const run = (): number[][] => compiled().map(values);
      assert.deepEqual(run(), [[3, 4], [1, 2]]); // biome-ignore format: one line
      const remove = registerHook(w, (g) => mul(g, 10));
      assert.deepEqual(run(), [[30, 40], [1, 2]]); // biome-ignore format: one line
      remove();
      assert.deepEqual(run(), [[3, 4], [1, 2]]); // biome-ignore format: one line
      assert.equal(compiled.plans.length, 2);
      v.requiresGrad = false;
      assert.throws(run, /does not require a gradient/);
    },
  );
  w.dispose();
  v.dispose();
});

test('a parameter that was replaced is captured anew, and the dead plan goes', () => {
  class One extends Module<[x: Tensor], Tensor> {
    weight = parameter(tensor([2, 3]));
    forward(x: Tensor): Tensor {
      return mul(this.weight, x);
    }
  }
  const one = new One();
  withCompiled(
    (x: Tensor) => one.call(x),
    (compiled) => {
      const x = tensor([1, 1]);
      assert.deepEqual(values(compiled(x)), [2, 3]);
      one.weight.dispose();
      one.weight = parameter(tensor([5, 6]));
      assert.deepEqual(values(compiled(x)), [5, 6]);
      assert.equal(compiled.plans.length, 1);
    },
  );
  one.dispose();
});

test('an optimizer whose parameters fall out of step, or change their momentum, is traced again', () => {
  const a = tensor([1, 1], { requiresGrad: true });
  const b = tensor([1, 1], { requiresGrad: true });
  const make = (): AdamW => new AdamW([['a', a], ['b', b]], { lr: 0.1 }); // biome-ignore format: one line
  const optimizer = make();
  const step = (): void => {
    backward(sum(mul(mul(a, a), mul(b, b))));
    optimizer.step();
    optimizer.zeroGrad();
  };
  withCompiled(step, (compiled) => {
    compiled();
    compiled();
    assert.equal(compiled.plans.length, 1);
    const { tensors, steps, groups } = optimizer.stateDict();
    optimizer.loadStateDict({ tensors, groups, steps: { ...steps, a: 9 } });
    compiled();
    assert.equal(compiled.plans.length, 2);
    assert.deepEqual(optimizer.stateDict().steps, { a: 10, b: 3 });
  });
  optimizer.dispose();
  const sgd = new Sgd([['a', a]], { lr: 0.5 }); // biome-ignore format: one line
  withCompiled(
    () => {
      backward(sum(a));
      sgd.step();
      sgd.zeroGrad();
    },
    (compiled) => {
      compiled();
      compiled();
      assert.equal(compiled.plans.length, 1);
      (sgd.groups[0] as { settings: { momentum: number } }).settings.momentum = 0.9;
      compiled();
      assert.match(
        compiled.plans[1]?.reason ?? '',
        /^what the optimizer does was plain 0, is momentum 0/,
      );
      assert.ok(sgd.stateDict().tensors.has('momentum_buffer.a'));
    },
  );
  sgd.dispose();
  a.dispose();
  b.dispose();
});

test('past the recompile limit the step runs uncompiled, with one warning that names the guard', async () => {
  const flags = [0, 1, 2].map(() => new Dropout(0));
  const step = (x: Tensor): Tensor => flags.reduce((y, flag) => add(flag.call(y), 1), x);
  const compiled = compile(step, { recompileLimit: 2 });
  const warnings: string[] = [];
  const listen = (warning: Error): unknown => warnings.push(warning.message);
  process.on('warning', listen);
  try {
    scope(() => {
      for (let i = 0; i < 8; i++) {
        flags.forEach((flag, k) => flag.train((i & (1 << k)) !== 0));
        const x = tensor([i], { requiresGrad: true });
        const y = compiled(x);
        assert.equal(item(y), i + 3);
        assert.equal(y.requiresGrad, false);
      }
      assert.throws(() => compiled.prepare(tensor([1], { requiresGrad: true })), CompileError);
    });
    await new Promise((done) => setImmediate(done));
  } finally {
    process.off('warning', listen);
    compiled.dispose();
  }
  assert.equal(warnings.length, 1);
  assert.match(
    warnings[0] ?? '',
    /recompile limit is reached: 2 plans .* because training of Dropout was \w+, is \w+\. /,
  );
  assert.throws(() => compile(step, { recompileLimit: 0 }), /recompileLimit must be/);
});
