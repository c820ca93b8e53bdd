/** test/test_autograd.py, class TestNestedCheckpoint: regions in regions, gradients inside and of them. */

import assert from 'node:assert/strict';
import {
  type CheckpointOptions,
  type Tensor,
  checkpoint,
  clone,
  exp,
  grad,
  liveBytes,
  mul,
  registerHook,
  scope,
  setCheckpointEarlyStop,
  sin,
  sum,
} from '../../../../src/index.ts';
import type { Execution } from '../../../support/executions.ts';
import { countOps } from '../../../support/op-counter.ts';
import { type ConformanceCase, both, holds } from '../case.ts';
import { measure, valuesOf, vector } from '../measure.ts';

type Unary = (x: Tensor) => Tensor;

/** f with its gradient in place of its value, differentiable again. */
const gradientOf =
  (f: Unary): Unary =>
  (x) => {
    const [g] = grad(sum(f(x)), x, { createGraph: true });
    assert.ok(g);
    return g;
  };

/** Both settings of early stop: PyTorch runs each of these tests with both. */
const bothStops: readonly boolean[] = [true, false];

const region =
  (earlyStop: boolean) =>
  (f: Unary): Unary =>
  (x) =>
    checkpoint(f, [x], { earlyStop });

const f: Unary = (x) => sin(exp(sin(x)));
/** A function that takes a gradient inside. */
const g: Unary = (x) => {
  const y = mul(sin(x), 2);
  const [inner] = grad(sum(sin(mul(y, y))), y, { createGraph: true });
  assert.ok(inner);
  return mul(exp(mul(inner, 0.1)), y);
};

/** Every one of `variants` has the values of the first, and leaves no byte behind when it is dropped. */
function allEqual(execution: Execution, variants: readonly Unary[]): void {
  const before = liveBytes();
  scope(() => {
    const x = vector(3, 1);
    const [want, ...others] = variants.map((variant) =>
      valuesOf(execution, (v: Tensor) => variant(v), x),
    );
    others.forEach((got, i) => assert.deepEqual(got, want, `variant ${i + 1}`));
  });
  assert.equal(liveBytes(), before, 'a dropped graph gives everything back');
  if (execution.name === 'compiled') return;
  // A graph nobody walked goes with its last handle as well, at once.
  for (const variant of variants) {
    scope(() => {
      const x = vector(3, 1);
      const own = liveBytes();
      const out = scope(() => variant(x));
      out.dispose();
      assert.equal(liveBytes(), own, 'without a backward too');
    });
  }
}

/** Times that the region's function and the op `sin` ran in a step whose region is `body`. */
function runs(body: Unary, options: CheckpointOptions = {}): { calls: number; sins: number } {
  return scope(() => {
    let calls = 0;
    const x = vector(3, 1);
    const sins = countOps(() => {
      const out = checkpoint(
        (v: Tensor) => {
          calls++;
          return body(v);
        },
        [x],
        options,
      );
      grad(sum(out), x);
    }).count('sin');
    return { calls, sins };
  });
}

export const nestedCases: readonly ConformanceCase[] = [
  both(
    23,
    'test_nested_checkpoint',
    'First to third gradients of a function, of its region, of regions in regions and of regions around gradients are equal.',
    (execution) => {
      for (const earlyStop of bothStops) {
        const c = region(earlyStop);
        const d = gradientOf;
        for (const h of [f, g]) {
          allEqual(execution, [h, c(h), c(c(h))]);
          allEqual(execution, [d(h), d(c(h)), d(c(c(h)))]);
          allEqual(execution, [d(d(h)), d(c(d(h))), c(d(d(c(h)))), d(c(d(c(h))))]);
          allEqual(execution, [d(d(d(h))), d(c(d(d(c(h))))), d(c(d(c(d(c(h))))))]);
        }
      }
    },
  ),
  both(
    24,
    'test_nested_checkpoint_two_children',
    'Two regions in a region, differentiated twice, also with the inner gradient in a region.',
    (execution) => {
      const first: Unary = (x) => exp(sin(exp(mul(x, 0.1))));
      const second: Unary = (x) => sin(exp(sin(x)));
      for (const earlyStop of bothStops) {
        const c = region(earlyStop);
        const plain: Unary = (x) => second(first(x));
        const parts: Unary = (x) => c(second)(c(first)(x));
        const d = gradientOf;
        allEqual(execution, [d(d(plain)), d(d(c(parts))), d(c(d(c(parts))))]);
      }
    },
  ),
  both(
    25,
    'test_nested_checkpoint_non_tensor_inputs_and_outputs',
    'Numbers, functions and text pass in and out of nested regions untouched.',
    (execution) =>
      scope(() => {
        for (const earlyStop of bothStops) {
          const inner = (x: Tensor, power: number, fn: Unary): [Tensor, number, string] => {
            let out = x;
            for (let i = 1; i < power; i++) out = mul(out, fn(x));
            return [exp(mul(out, 0.1)), power + 1, 'inner'];
          };
          const outer = (wrap: boolean) => (x: Tensor, power: number, fn: Unary) => {
            const [a, more, text] = wrap
              ? checkpoint(inner, [x, power, fn], { earlyStop })
              : inner(x, power, fn);
            assert.equal(more, power + 1);
            return { out: sin(mul(a, more)), text };
          };
          const step = (wrap: boolean) => (x: Tensor) => {
            const args: [Tensor, number, Unary] = [x, 3, sin];
            const { out, text } = wrap
              ? checkpoint(outer(true), args, { earlyStop })
              : outer(false)(...args);
            assert.equal(text, 'inner');
            return grad(sum(out), x);
          };
          const x = vector(3, 1);
          assert.deepEqual(valuesOf(execution, step(true), x), valuesOf(execution, step(false), x));
        }
      }),
  ),
  both(
    26,
    'test_nested_checkpoint_kwargs',
    'A tensor in an options object gets its gradient through nested regions.',
    (execution) =>
      scope(() => {
        for (const earlyStop of bothStops) {
          const inner = (x: Tensor, { blah }: { readonly blah: Tensor }): Tensor =>
            exp(mul(x, exp(mul(blah, 0.1))));
          const step = (wrap: boolean) => (x: Tensor, blah: Tensor) => {
            const once = (v: Tensor, options: { readonly blah: Tensor }): Tensor =>
              wrap ? checkpoint(inner, [v, options], { earlyStop }) : inner(v, options);
            const out = wrap ? checkpoint(once, [x, { blah }], { earlyStop }) : once(x, { blah });
            return grad(sum(sin(out)), [x, blah]);
          };
          const args: [Tensor, Tensor] = [vector(3, 1), vector(3, 2)];
          const got = valuesOf(execution, step(true), ...args);
          assert.deepEqual(got, valuesOf(execution, step(false), ...args));
        }
      }),
  ),
  both(
    27,
    'test_nested_checkpoint_same_graph',
    'Backward walks the graph of the forward: a hook put on it there runs once, however often regions recompute.',
    (execution) =>
      scope(() => {
        for (const earlyStop of bothStops) {
          const c = region(earlyStop);
          let calls = 0;
          let first = true;
          const hooked: Unary = (x) => {
            const y = exp(x);
            if (first) {
              registerHook(y, () => {
                calls++;
                return undefined;
              });
            }
            first = false;
            return sin(y);
          };
          const step = (x: Tensor) => grad(sum(c(c((v) => sin(hooked(v))))(x)), x);
          valuesOf(execution, step, vector(3, 1));
          assert.equal(calls, 1);
        }
      }),
  ),
  both(
    28,
    'test_nested_checkpoint_reentrant_backwards',
    'A hook may run another backward over the same regions in the middle of a backward.',
    (execution) =>
      scope(() => {
        for (const earlyStop of bothStops) {
          const c = region(earlyStop);
          const inner: Unary = (x) => exp(mul(x, 0.5));
          const body: Unary = (x) => sin(c(inner)(sin(x)));
          const plain = (x: Tensor) => grad(sum(c(body)(sin(x))), x);
          // The hook's own backward runs the hook again: only the outermost one takes a gradient.
          const guarded = (x: Tensor) => {
            let depth = 0;
            let extra: Tensor | undefined;
            const a = sin(x);
            const b = sum(c(body)(a));
            registerHook(a, () => {
              if (depth++ === 0) extra = grad(b, x, { retainGraph: true })[0]?.keep();
              return undefined;
            });
            const gradient = grad(b, x, { retainGraph: true });
            const own = extra && clone(extra);
            extra?.dispose();
            return [...gradient, own];
          };
          const x = vector(3, 1);
          const [want] = valuesOf(execution, plain, x);
          assert.deepEqual(valuesOf(execution, guarded, x), [want, want]);
        }
      }),
  ),
  {
    number: 29,
    torch: 'test_nested_checkpoint_set_early_stop',
    claim:
      'Early stop leaves out what follows the last saved tensor; the scoped setting beats the option, the inner scope the outer.',
    eager: holds(() => {
      const body: Unary = (x) => clone(sin(sin(x)));
      const count = (options: CheckpointOptions = {}): number => runs(body, options).sins - 2;
      const stopped = 1;
      const whole = 2;
      assert.equal(count(), stopped);
      assert.equal(count({ earlyStop: true }), stopped);
      assert.equal(count({ earlyStop: false }), whole);
      assert.equal(
        setCheckpointEarlyStop(true, () => count({ earlyStop: false })),
        stopped,
      );
      assert.equal(
        setCheckpointEarlyStop(false, () => count({ earlyStop: true })),
        whole,
      );
      setCheckpointEarlyStop(false, () => {
        assert.equal(
          setCheckpointEarlyStop(true, () => count()),
          stopped,
        );
        assert.equal(count(), whole);
      });
      scope(() => {
        const x = vector(3, 1);
        const out = setCheckpointEarlyStop(false, () => checkpoint(body, [x]));
        const after = countOps(() => grad(sum(out), x)).count('sin');
        assert.equal(
          after,
          whole,
          'the setting counts where the region is called, not in backward',
        );
      });
    }),
    compiled: holds((execution) => {
      const counts = measure(execution, {
        inputs: () => [vector(3, 1)],
        loss: (x) =>
          sum(checkpoint((v: Tensor) => clone(sin(sin(v))), [x as Tensor], { earlyStop: false })),
      });
      assert.equal(
        counts.backward.count('sin'),
        1,
        'a compiled recompute has nothing that nobody needs',
      );
    }),
  },
  {
    number: 30,
    torch: 'test_nested_checkpoint_set_early_stop_no_recompution_needed',
    claim:
      'A region whose one op saves its input runs no kernel again; a region that saves nothing is not run again.',
    eager: holds(() => {
      assert.deepEqual(runs(sin), { calls: 2, sins: 1 });
      assert.deepEqual(runs(sin, { earlyStop: false }), { calls: 2, sins: 2 });
      assert.equal(runs(clone).calls, 1);
      assert.equal(runs(clone, { earlyStop: false }).calls, 1);
    }),
    compiled: holds((execution) => {
      for (const [body, op] of [
        [sin, 'sin'],
        [clone, 'clone'],
      ] as const) {
        const counts = measure(execution, {
          inputs: () => [vector(3, 1)],
          loss: (x) => sum(checkpoint(body, [x as Tensor])),
        });
        assert.equal(counts.backward.count(op), 0);
      }
    }),
  },
];
