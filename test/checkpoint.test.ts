/**
 * Activation checkpointing in eager mode. Titles start with the rule of docs/internals/checkpointing.md;
 * a PyTorch test name in brackets says which case of its suite the test stands for.
 */

import assert from 'node:assert/strict';
import { alsoCompiled } from './support/also-compiled.ts';
import {
  AutogradError,
  Generator,
  type Tensor,
  add,
  backward,
  checkpoint,
  checkpointSequential,
  dropout,
  exp,
  grad,
  matmul,
  mul,
  noGrad,
  recomputeGroup,
  scope,
  setCheckpointDebug,
  setCheckpointEarlyStop,
  sin,
  sum,
  tanh,
  tensor,
  toArray,
} from '../src/index.ts';
import { liveBytes } from '../src/tensor/backend.ts';
import { ArgumentError, CheckpointError } from '../src/core/errors.ts';
import { checkLiveBytes } from './support/backend.ts';
import { countOps } from './support/op-counter.ts';

const test = alsoCompiled(import.meta.url);

checkLiveBytes();

function leaf(values: readonly number[]): Tensor {
  return tensor(values, { requiresGrad: true });
}

function gradientOf(f: (x: Tensor) => Tensor, values: readonly number[]): number[] {
  return scope(() => {
    const x = leaf(values);
    backward(sum(f(x)));
    assert.ok(x.grad);
    return [...toArray(x.grad)];
  });
}

const values = [0.3, -1.2, 2, 0.7];
const body = (x: Tensor): Tensor => sin(exp(mul(sin(x), x)));

test('C1 gradients equal those without checkpointing, bit for bit', () => {
  const plain = gradientOf(body, values);
  const checkpointed = gradientOf((x) => checkpoint(body, [x]), values);
  assert.deepEqual(checkpointed, plain);
});

test('C1 nothing but the inputs of a region stays alive', () => {
  scope(() => {
    const size = 256 * 256;
    const x = tensor(new Float32Array(size).fill(0.5), { requiresGrad: true });
    const before = liveBytes();
    const y = checkpoint(body, [x]);
    assert.equal(liveBytes() - before, size * 4, 'only the output is new');
    const z = scope(() => body(x));
    assert.ok(liveBytes() - before > 3 * size * 4, 'without a region intermediates stay');
    y.dispose();
    z.dispose();
    assert.equal(liveBytes(), before, 'a dropped graph frees what it held');
  });
});

test('C1 grad() on a subset, tensors nested in structures, detached parts', () => {
  scope(() => {
    const a = leaf([1, 2]);
    const b = leaf([3, 4]);
    const region = ({ pair }: { pair: Tensor[] }, scale: number): Tensor => {
      const [p, q] = pair;
      assert.ok(p && q);
      return mul(mul(exp(p), q.detach()), scale);
    };
    const y = checkpoint(region, [{ pair: [a, b] }, 2]);
    const [ga] = grad(sum(y), [a]);
    assert.ok(ga);
    const expected = [1, 2].map((v, i) => 2 * Math.exp(v) * [3, 4][i]!);
    toArray(ga).forEach((got, i) => {
      assert.ok(Math.abs(got - expected[i]!) < 1e-4 * Math.abs(expected[i]!));
    });
  });
});

test('C2 a region is recomputed once per backward, and again for a second one', () => {
  scope(() => {
    let calls = 0;
    const x = leaf(values);
    const y = checkpoint(
      (v: Tensor) => {
        calls++;
        return exp(sin(exp(v)));
      },
      [x],
    );
    assert.equal(calls, 1);
    backward(sum(y), { retainGraph: true });
    assert.equal(calls, 2);
    backward(sum(y));
    assert.equal(calls, 3);
  });
});

test('C2 recomputed tensors go when they are used, under retainGraph too [test_checkpointing_without_reentrant_memory_savings]', () => {
  scope(() => {
    const x = leaf(values);
    const y = scope(() => sum(checkpoint(body, [x])));
    const before = liveBytes();
    backward(y, { retainGraph: true });
    const gradientBytes = 64;
    assert.equal(liveBytes() - before, gradientBytes);
  });
});

test('C2 disjoint backwards in a group share one recompute [test_checkpoint_graph_execution_group]', () => {
  scope(() => {
    let calls = 0;
    const region = (a: Tensor, b: Tensor): Tensor[] => {
      calls++;
      return [exp(sin(a)), exp(sin(b))];
    };
    const run = (grouped: boolean): number => {
      calls = 0;
      const a = leaf([1]);
      const b = leaf([2]);
      const [p, q] = checkpoint(region, [a, b], { earlyStop: false });
      assert.ok(p && q);
      const both = (): void => {
        grad(p, a, { retainGraph: true });
        grad(q, b, { retainGraph: true });
      };
      if (grouped) recomputeGroup(both);
      else both();
      return calls;
    };
    assert.equal(run(false), 3);
    assert.equal(run(true), 2);
    assert.throws(
      () => recomputeGroup(() => recomputeGroup(() => undefined)),
      (error) => error instanceof AutogradError && /cannot be nested/.test(error.message),
    );
    const x = leaf([1]);
    const y = checkpoint((v: Tensor) => exp(sin(v)), [x]);
    assert.throws(
      () =>
        recomputeGroup(() => {
          grad(y, x, { retainGraph: true });
          grad(y, x, { retainGraph: true });
        }),
      /Performing two backward calls that overlap/,
    );
  });
});

test('C3 nested regions give the same gradients and free what they held', () => {
  const nested = (depth: number): ((x: Tensor) => Tensor) =>
    depth === 0
      ? body
      : (x) => sin(checkpoint(nested(depth - 1), [mul(exp(checkpoint(body, [x])), 0.1)]));
  for (const depth of [1, 2, 3]) {
    const flat = (d: number): ((x: Tensor) => Tensor) =>
      d === 0 ? body : (x) => sin(flat(d - 1)(mul(exp(body(x)), 0.1)));
    assert.deepEqual(gradientOf(nested(depth), values), gradientOf(flat(depth), values));
  }
});

test('C4 early stop leaves out ops after the last saved tensor', () => {
  const run = (earlyStop: boolean): number =>
    scope(() => {
      const x = leaf(values);
      const y = checkpoint((v: Tensor) => sin(sin(sin(v))), [x], { earlyStop });
      return countOps(() => backward(sum(y))).count('sin');
    });
  assert.equal(run(true), 2);
  assert.equal(run(false), 3);
});

test('C4 the stop cannot be swallowed, and finally blocks run', () => {
  scope(() => {
    let finals = 0;
    const x = leaf(values);
    const y = checkpoint(
      (v: Tensor) => {
        let out = v;
        for (let i = 0; i < 3; i++) {
          try {
            out = sin(out);
          } catch {
            out = exp(out);
          } finally {
            finals++;
          }
        }
        return out;
      },
      [x],
    );
    const z = sin(sin(sin(x)));
    const [got] = grad(sum(y), x);
    const [want] = grad(sum(z), x);
    assert.ok(got && want);
    assert.deepEqual(toArray(got), toArray(want));
    assert.ok(finals >= 5);
  });
});

test('C5 mismatches name the region, the op and both sides [test_checkpoint_detects_non_determinism]', () => {
  const mismatch = (
    first: (x: Tensor) => Tensor,
    again: (x: Tensor) => Tensor,
    options = {},
  ): unknown =>
    scope(() => {
      let calls = 0;
      const x = leaf(values);
      const y = checkpoint((v: Tensor) => (calls++ === 0 ? first(v) : again(v)), [x], {
        name: 'block',
        ...options,
      });
      try {
        backward(sum(y));
      } catch (error) {
        return error;
      }
      return undefined;
    });
  const isError = (error: unknown, text: RegExp): void => {
    assert.ok(error instanceof CheckpointError, String(error));
    assert.match(error.message, text);
    assert.match(error.message, /block/);
  };
  const two = (x: Tensor): Tensor => sin(sin(x));
  const three = (x: Tensor): Tensor => sin(sin(sin(x)));
  isError(mismatch(three, two), /A different number of tensors was saved/);
  isError(
    mismatch(two, three, { earlyStop: false }),
    /trying to save more tensors during recomput/,
  );
  assert.equal(mismatch(two, three), undefined, 'early stop makes more tensors harmless');
  const other = (x: Tensor): Tensor => sin(sum(sin(x)));
  isError(mismatch(two, other), /have different metadata/);
  assert.equal(
    mismatch(two, (x) => sin(exp(x)), { determinismCheck: 'default' }),
    undefined,
  );
  isError(
    mismatch(two, (x) => sin(exp(x)), { determinismCheck: 'values' }),
    /values differ/,
  );
  const logged = mismatch(three, two, { debug: true });
  isError(logged, /forward .*recompute/s);
  isError(logged, /checkpoint\.test\.ts:\d+/);
  isError(
    setCheckpointDebug(true, () => mismatch(three, two)),
    /debug: true/,
  );
});

test('C7 without gradients a region is inert', () => {
  scope(() => {
    let calls = 0;
    const x = leaf(values);
    const frozen = tensor(values);
    const region = (v: Tensor): Tensor => {
      calls++;
      return exp(v);
    };
    const before = liveBytes();
    scope(() => {
      noGrad(() => checkpoint(region, [x]));
      checkpoint(region, [frozen]);
    });
    assert.equal(calls, 2);
    assert.equal(liveBytes(), before);
  });
});

test('C9 random draws are replayed, from user generators too', () => {
  scope(() => {
    const generator = new Generator(7);
    const region = (v: Tensor): Tensor =>
      tanh(dropout(exp(dropout(v, 0.5, { generator })), 0.5, { generator }));
    const plainStart = generator.getState();
    const plain = gradientOf(region, values);
    generator.setState(plainStart);
    const checkpointed = gradientOf((x) => checkpoint(region, [x]), values);
    assert.deepEqual(checkpointed, plain);
    assert.equal(
      generator.offset,
      plainStart.offset + 2,
      'the recompute leaves the generator where it was',
    );
  });
});

test('C11 the reentrant kind is refused, unknown options name the nearest', () => {
  scope(() => {
    const x = leaf(values);
    assert.throws(() => checkpoint(body, [x], { useReentrant: true }), /useReentrant/);
    assert.throws(
      () => checkpoint(body, [x], { earlyStpo: true } as object),
      (error) => error instanceof ArgumentError && /earlyStop/.test(error.message),
    );
  });
});

test('C12 sequential: equal segments, the last one is not checkpointed', () => {
  scope(() => {
    const calls = [0, 0, 0, 0];
    const functions = calls.map((_, i) => (x: Tensor): Tensor => {
      calls[i] = (calls[i] ?? 0) + 1;
      return exp(sin(x));
    });
    const x = leaf(values);
    backward(sum(checkpointSequential(functions, 2, x)));
    assert.deepEqual(calls, [2, 2, 1, 1]);
    assert.throws(() => checkpointSequential(functions, 5, x), ArgumentError);
    assert.throws(() => checkpointSequential(functions, 0, x), ArgumentError);
  });
});

test('C13 the process-wide early-stop setting overrides the option and nests', () => {
  scope(() => {
    const count = (option: boolean): number => {
      const x = leaf(values);
      const y = checkpoint((v: Tensor) => sin(sin(v)), [x], { earlyStop: option });
      return countOps(() => backward(sum(y))).count('sin');
    };
    const forced = setCheckpointEarlyStop(false, () => [
      count(true),
      setCheckpointEarlyStop(true, () => count(false)),
      count(true),
    ]);
    assert.deepEqual(forced, [2, 1, 2]);
  });
});

test('a weight used in and outside a region collects both gradients', () => {
  scope(() => {
    const w = tensor(
      [
        [0.5, -0.2],
        [0.1, 0.9],
      ],
      { requiresGrad: true },
    );
    const x = tensor([
      [1, 2],
      [3, 4],
    ]);
    const loss = (wrap: boolean): Tensor => {
      const inner = (v: Tensor): Tensor => tanh(matmul(v, w));
      const h = wrap ? checkpoint(inner, [x]) : inner(x);
      return sum(add(matmul(h, w), w));
    };
    const [a] = grad(loss(false), w);
    const [b] = grad(loss(true), w);
    assert.ok(a && b);
    assert.deepEqual(toArray(b), toArray(a));
  });
});
