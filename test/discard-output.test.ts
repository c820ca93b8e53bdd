/** S7: regions whose outputs their consumers do not keep. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  ArgumentError,
  CheckpointError,
  type CheckpointOptions,
  Generator,
  type Tensor,
  add,
  addInPlace,
  backward,
  checkpoint,
  dropout,
  exp,
  fromHost,
  gelu,
  grad,
  layerNorm,
  linear,
  liveBytes,
  matmul,
  mul,
  noGrad,
  recomputeGroup,
  relu,
  reshape,
  saveEverything,
  saveOps,
  savedTensors,
  scope,
  setActivationCheckpointing,
  sigmoid,
  sin,
  split,
  sum,
  tensor,
  toArray,
  transpose,
} from '../src/index.ts';
import { checkLiveBytes } from './support/backend.ts';
import { hostTensor } from '../src/core/host-tensor.ts';
import { byteLlama } from '../src/models/byte-llama.ts';
import { RMSNorm } from '../src/nn/index.ts';
import { executions } from './support/executions.ts';
import { countOps } from './support/op-counter.ts';
import { type Program, matrix, measure, valuesOf } from './conformance/checkpoint/measure.ts';

checkLiveBytes();

const discard: CheckpointOptions = { discardOutput: true };
const bytes = 32 * 32 * 4;

type Unary = (x: Tensor) => Tensor;
type Wrap = (f: Unary) => Unary;

const plain: Wrap = (f) => f;
const kept: Wrap = (f) => (x) => checkpoint(f, [x]);
const discarded: Wrap = (f) => (x) => checkpoint(f, [x], discard);

/** Two layers whose activation is in a region of its own. */
function mlp(wrap: Wrap): Program {
  return {
    inputs: () => [1, 2, 3].map((seed) => matrix(32, 32, seed)),
    loss: (x, up, down) => {
      const hidden = wrap(gelu)(linear(x as Tensor, up as Tensor));
      return sum(sin(linear(hidden, down as Tensor)));
    },
  };
}

for (const execution of executions) {
  test(`S7 ${execution.name}: neither the region nor its consumer keeps the output, and it is made once more`, () => {
    const [none, region, all] = [plain, kept, discarded].map((wrap) =>
      measure(execution, mlp(wrap)),
    );
    assert.ok(none && region && all);
    assert.deepEqual([all.loss, all.gradients], [none.loss, none.gradients]);
    // up's output, the activation's output, down's output; the weights are arguments.
    assert.deepEqual(
      [none.savedBytes, region.savedBytes, all.savedBytes],
      [3, 3, 2].map((n) => n * bytes),
    );
    assert.equal(all.backward.count('gelu'), 1);
    assert.equal(none.backward.count('gelu') + region.backward.count('gelu'), 0);
  });

  test(`S7 ${execution.name}: several consumers, through views too, share one recompute`, () => {
    const program = (wrap: Wrap): Program => ({
      inputs: () => [1, 2, 3].map((seed) => matrix(32, 32, seed)),
      loss: (x, w, v) => {
        const y = wrap((a) => exp(sin(a)))(x as Tensor);
        const [left, right] = split(y, 16, 1);
        const products = [
          matmul(y, w as Tensor),
          matmul(transpose(y), v as Tensor),
          matmul(left as Tensor, (w as Tensor).narrow(0, 0, 16)),
          mul(reshape(right as Tensor, [32, 16]), reshape(left as Tensor, [32, 16])),
        ];
        return products.map((p) => sum(p)).reduce((a, b) => add(a, b));
      },
    });
    const [none, all] = [
      measure(execution, program(plain)),
      measure(execution, program(discarded)),
    ];
    assert.deepEqual([all.loss, all.gradients], [none.loss, none.gradients]);
    assert.equal(all.savedBytes, 0);
    assert.equal(all.backward.count('exp'), 1);
  });

  test(`S7 ${execution.name}: regions in a row recompute a producer before its consumer`, () => {
    const program = (wrap: Wrap): Program => ({
      inputs: () => [matrix(32, 32, 1), matrix(32, 32, 2)],
      loss: (x, w) => {
        let y = matmul(x as Tensor, w as Tensor);
        for (const f of [sigmoid, sin, exp]) y = wrap(f)(y);
        return sum(matmul(y, w as Tensor));
      },
    });
    const [none, all] = [
      measure(execution, program(plain)),
      measure(execution, program(discarded)),
    ];
    assert.deepEqual([all.loss, all.gradients], [none.loss, none.gradients]);
    assert.equal(all.savedBytes, bytes, 'the product that the first one reads');
    for (const op of ['sigmoid', 'sin', 'exp']) assert.equal(all.backward.count(op), 1, op);
  });

  test(`S7 ${execution.name}: inside and around other regions, with draws, norms and policies: the same bits`, () => {
    const values = (outer: Wrap, inner: Wrap, options?: CheckpointOptions): number[][] =>
      scope(() => {
        const generator = new Generator(3);
        const [weight, bias] = [
          tensor(new Float32Array(32).fill(1.5)),
          tensor(new Float32Array(32)),
        ];
        const norm = (x: Tensor): Tensor => dropout(layerNorm(x, weight, bias), 0.3, { generator });
        const layer = (w: Tensor) => (x: Tensor) => {
          const y = matmul(options ? checkpoint(norm, [x], options) : inner(norm)(x), w);
          return matmul(inner((v: Tensor) => relu(mul(v, 2)))(y), w);
        };
        const step = (x: Tensor, w: Tensor) => {
          const y = outer(layer(w))(outer(layer(w))(x));
          return [y, ...grad(sum(sin(y)), [x, w])];
        };
        return valuesOf(execution, step, matrix(32, 32, 1), matrix(32, 32, 2));
      });
    const want = values(plain, plain);
    assert.deepEqual(values(plain, discarded), want);
    assert.deepEqual(values(kept, discarded), want);
    assert.deepEqual(values(discarded, discarded), want);
    assert.deepEqual(values(discarded, kept), want);
    for (const policy of [
      saveOps('layerNorm'),
      saveOps('dropout'),
      () => 'mustRecompute' as const,
    ]) {
      assert.deepEqual(values(kept, discarded, { ...discard, policy }), want);
      assert.deepEqual(values(plain, discarded, { ...discard, policy }), want);
    }
  });
}

test('S7 a region whose ops save nothing is held by its outputs, and goes with the last of them', () => {
  scope(() => {
    const [x, w] = [matrix(32, 32, 1), matrix(32, 32, 2)];
    const before = liveBytes();
    const y = checkpoint((a: Tensor) => mul(add(a, 1), 2), [sin(x)], discard);
    assert.equal(liveBytes() - before, 2 * bytes, 'what it read and what it made');
    const z = matmul(y, w);
    y.dispose();
    assert.equal(liveBytes() - before, 2 * bytes, 'what it read and the product');
    scope(() => backward(sum(z), { retainGraph: true }));
    const gradients = [x, w].map((leaf) => [...toArray(leaf.grad as Tensor)]);
    scope(() => backward(sum(z)));
    assert.ok(
      gradients.every(
        (values, i) => toArray([x, w][i]?.grad as Tensor)[5] === 2 * (values[5] as number),
      ),
    );
    z.dispose();
    for (const leaf of [x, w]) leaf.grad = undefined;
    assert.equal(liveBytes(), before + bytes, "sin's result is the scope's");
  });
});

test('S7 an output that nobody saves holds the region until it is disposed', () => {
  scope(() => {
    const x = matrix(32, 32, 1);
    const before = liveBytes();
    const y = scope(() => checkpoint((a: Tensor) => mul(a, 2), [sin(x)], discard));
    assert.equal(liveBytes() - before, 2 * bytes);
    y.dispose();
    assert.equal(liveBytes(), before);
  });
});

test('S7 the report lists what stands for the output', () => {
  scope(() => {
    const [x, w] = [matrix(32, 32, 1), matrix(32, 32, 2)];
    const y = scope(() => matmul(checkpoint(gelu, [sin(x)], discard), w));
    const report = savedTensors(y);
    assert.equal(report.byCategory.activation, bytes);
    assert.deepEqual(
      report.entries.filter((entry) => entry.category === 'activation').map(({ op }) => op),
      ['checkpoint'],
    );
  });
});

test('S7 without gradients, and where nothing upstream has one, consumers read the same values', () => {
  scope(() => {
    const [x, w] = [matrix(32, 32, 1, false), matrix(32, 32, 2)];
    const gradientOf = (wrap: Wrap): number[] => [
      ...toArray(grad(sum(matmul(wrap(gelu)(x), w)), w)[0] as Tensor),
    ];
    assert.deepEqual(gradientOf(discarded), gradientOf(plain));
    const before = liveBytes();
    const y = scope(() => matmul(discarded(gelu)(x), w));
    assert.equal(liveBytes() - before, bytes, 'the product; x is there anyway');
    y.dispose();
    assert.deepEqual(
      [...toArray(noGrad(() => discarded(gelu)(x)))],
      [...toArray(noGrad(() => gelu(x)))],
    );
  });
});

test('S7 one recompute serves a group of backwards', () => {
  scope(() => {
    const [x, w] = [matrix(8, 8, 1), matrix(8, 8, 2)];
    const y = discarded((a) => exp(sin(a)))(x);
    const [first, second] = [sum(matmul(y, w)), sum(matmul(w, y))];
    const counter = countOps(() =>
      recomputeGroup(() => {
        grad(first, w, { retainGraph: true });
        grad(second, w, { retainGraph: true });
      }),
    );
    assert.equal(counter.count('exp'), 1);
  });
});

test('S7 an argument that is handed through is saved as any other', () => {
  scope(() => {
    const [x, w] = [matrix(8, 8, 1), matrix(8, 8, 2)];
    const pass = (a: Tensor): [Tensor, Tensor] => [a, exp(a)];
    const [same] = checkpoint(pass, [sin(x)], discard);
    const counter = countOps(() => grad(sum(matmul(same, w)), [x, w]));
    assert.equal(counter.count('exp'), 0);
  });
});

for (const execution of executions) {
  test(`S7 ${execution.name}: an output that is changed in place is another value, which is kept`, () => {
    const program = (wrap: Wrap): Program => ({
      inputs: () => [matrix(32, 32, 1), matrix(32, 32, 2)],
      loss: (x, w) => {
        const y = wrap((a) => mul(sin(a), 2))(x as Tensor);
        return sum(matmul(addInPlace(y, sin(x as Tensor)), w as Tensor));
      },
    });
    const [none, all] = [
      measure(execution, program(plain)),
      measure(execution, program(discarded)),
    ];
    assert.deepEqual([all.loss, all.gradients], [none.loss, none.gradients]);
  });
}

test('S7 a change in place after the output was saved is no harm: the value that was saved is made again', () => {
  scope(() => {
    const [x, w] = [matrix(8, 8, 1), matrix(8, 8, 2)];
    const gradientOf = (change: boolean): number[] => {
      const y = checkpoint((a: Tensor) => mul(a, 2), [sin(x)], discard);
      const z = matmul(y, w);
      if (change) noGrad(() => addInPlace(y, 1));
      return [...toArray(grad(sum(z), w)[0] as Tensor)];
    };
    assert.deepEqual(gradientOf(true), gradientOf(false));
  });
});

test('S7 a recompute that returns something else is an error that names the region', () => {
  scope(() => {
    const [x, w] = [matrix(8, 8, 1), matrix(8, 8, 2)];
    let calls = 0;
    const fickle = (a: Tensor): Tensor[] => (calls++ === 0 ? [exp(a)] : []);
    const [y] = checkpoint(fickle, [sin(x)], { ...discard, name: 'fickle' });
    assert.throws(
      () => backward(sum(matmul(y as Tensor, w))),
      (e) => e instanceof CheckpointError && /'fickle' returned another output 0/.test(e.message),
    );
    let size = 8;
    const other = (a: Tensor): Tensor => exp(a.narrow(0, 0, size--));
    const z = checkpoint(other, [sin(x)], discard);
    assert.throws(() => backward(sum(matmul(z, w))), CheckpointError);
    assert.throws(
      () => checkpoint(exp, [x], { ...discard, policy: saveEverything() }),
      (e) => e instanceof ArgumentError && /needs a region that recomputes/.test(e.message),
    );
  });
});

test('S7 the norms of a model, by class: two activations less per layer, the same bits', () => {
  const layers = 2;
  const run = (discards: boolean, execution = executions[0]): { held: number; values: unknown } => {
    using lm = byteLlama({ hidden: 32, layers, heads: 2, generator: new Generator(5) });
    const ids = Array.from({ length: 64 }, (_, i) => (i * 37 + 11) % 256);
    return scope(() => {
      const tokens = fromHost(hostTensor(ids, [2, 32], 'int32'));
      const loss = (): Tensor => lm.call(tokens, { targets: tokens }) as Tensor;
      // The first call builds the rotary tables.
      scope(() => noGrad(loss));
      const logger = (): void => {};
      if (discards) setActivationCheckpointing(lm, [RMSNorm], { ...discard, logger });
      const parameters = [...lm.parameters()];
      const before = liveBytes();
      const held = scope(loss);
      const bytesHeld = liveBytes() - before;
      held.dispose();
      const step = (): Tensor[] => {
        const value = loss();
        return [value, ...(grad(value, parameters) as Tensor[])];
      };
      return { held: bytesHeld, values: execution && valuesOf(execution, step) };
    });
  };
  const [none, all] = [run(false), run(true)];
  const activation = 64 * 32 * 4;
  // Two per layer and the one before the head; their statistics go too.
  assert.equal(none.held - all.held, (2 * layers + 1) * (activation + 64 * 4));
  assert.deepEqual(all.values, none.values);
  assert.deepEqual(run(true, executions[1]).values, run(false, executions[1]).values);
});
