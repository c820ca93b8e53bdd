/** test/test_autograd.py, class TestSelectiveActivationCheckpoint, and contextFn (number 6). */

import assert from 'node:assert/strict';
import {
  ArgumentError,
  CheckpointError,
  type CheckpointOptions,
  type PolicyContext,
  type PolicyFunction,
  type Tensor,
  add,
  addInPlace,
  backward,
  checkpoint,
  cos,
  createSelectiveCheckpointContexts,
  exp,
  grad,
  item,
  liveBytes,
  matmul,
  mul,
  noGrad,
  reshape,
  saveOps,
  scope,
  sin,
  sort,
  sum,
  tanh,
  tensor,
} from '../../../../src/index.ts';
import type { Mode } from '../../../../src/tensor/mode.ts';
import { PassThroughMode } from '../../../../src/tensor/pass-through-mode.ts';
import type { Execution } from '../../../support/executions.ts';
import { type ConformanceCase, absent, both, holds } from '../case.ts';
import {
  type Measured,
  type Program,
  matrix,
  measure,
  mebibyte,
  valuesOf,
  vector,
} from '../measure.ts';

/** Options of a region that keeps the outputs of `ops`, as PyTorch's contexts do. */
export function contexts(ops: readonly string[], allowCacheEntryMutation = false) {
  return {
    contextFn: () => createSelectiveCheckpointContexts(ops, { allowCacheEntryMutation }),
  } satisfies CheckpointOptions;
}

type Unary = (x: Tensor) => Tensor;

/** Gradient of the sum of `f`, as it is run by `execution`. */
function gradientOf(execution: Execution, f: Unary): number[][] {
  return scope(() => valuesOf(execution, (x: Tensor) => grad(sum(f(x)), x), vector(4, 1)));
}

const region =
  (f: Unary, options: CheckpointOptions): Unary =>
  (x) =>
    checkpoint(f, [x], options);

/** Region and plain run have the same gradients. */
function checkEqual(execution: Execution, f: Unary, options: CheckpointOptions): void {
  assert.deepEqual(gradientOf(execution, region(f, options)), gradientOf(execution, f));
}

function checkFlopsAndMemory(execution: Execution): void {
  const fn = (x: Tensor, y: Tensor): Tensor => sin(matmul(cos(x), y));
  const program = (options?: CheckpointOptions, size = 512): Program => ({
    inputs: () => [matrix(size, size, 1), matrix(size, size, 2)],
    loss: (x, y) => {
      const args: [Tensor, Tensor] = [x as Tensor, y as Tensor];
      return sum(options ? checkpoint(fn, args, options) : fn(...args));
    },
  });
  /** Kept matrices and products in backward: MiB and matmul units, as each is one at that size. */
  const figures = (got: Measured, size = 512): [number, number] => [
    (got.savedBytes / mebibyte) * (512 / size) ** 2,
    Math.floor(got.backward.matmuls * (512 / size) ** 3),
  ];
  const policies: PolicyFunction[] = [
    ({ op }) => (op === 'matmul' ? 'mustSave' : 'preferRecompute'),
    ({ op }) => op === 'matmul',
  ];
  const others: CheckpointOptions[] = [
    ...policies.map((policy) => ({ contextFn: () => createSelectiveCheckpointContexts(policy) })),
    ...policies.map((policy) => ({ policy })),
    { policy: saveOps('matmul') },
  ];
  const none = measure(execution, program());
  const full = measure(execution, program({}));
  const byList = measure(execution, program(contexts(['matmul'])));
  assert.deepEqual(figures(none), [2, 2]);
  assert.deepEqual(figures(full), [0, 3]);
  assert.deepEqual(figures(byList), [1, 2]);
  for (const got of [full, byList]) {
    assert.deepEqual([got.loss, got.gradients], [none.loss, none.gradients]);
  }
  for (const options of others) {
    assert.deepEqual(figures(measure(execution, program(options, 128)), 128), [1, 2]);
  }
}

/** Notes the ops that pass. */
class Seen extends PassThroughMode {
  readonly ops: string[];

  constructor(inner: Mode, ops: string[]) {
    super(inner);
    this.ops = ops;
  }

  override run(...args: Parameters<Mode['run']>): ReturnType<Mode['run']> {
    this.ops.push(args[0].name);
    return super.run(...args);
  }
}

function seenByContexts(execution: Execution): { forward: string[]; again: string[] } {
  const seen = { forward: [] as string[], again: [] as string[] };
  const contextFn: CheckpointOptions['contextFn'] = () => [
    (inner) => new Seen(inner, seen.forward),
    (inner) => new Seen(inner, seen.again),
  ];
  checkEqual(execution, exp, { contextFn });
  return seen;
}

function refusesReentrant(): void {
  const bad = { contextFn: contexts([]).contextFn, useReentrant: true };
  assert.throws(() => scope(() => checkpoint(exp, [vector(2, 1)], bad)), /useReentrant/);
}

/** sin saved, then its value changed in place. */
const changed = (x: Tensor): Tensor => {
  const y = sin(x);
  noGrad(() => addInPlace(y, 1));
  return mul(y, x);
};

/** What a policy with state counts while a region of three ops runs forward and backward. */
function callsOfPolicy(execution: Execution): number[] {
  const calls: number[] = [];
  const contextFn = () => {
    let count = 0;
    return createSelectiveCheckpointContexts((_: PolicyContext) => {
      calls.push(++count);
      return count === 1;
    });
  };
  gradientOf(
    execution,
    region((x) => sin(mul(exp(x), x)), { contextFn }),
  );
  return calls;
}

export const selectiveCases: readonly ConformanceCase[] = [
  {
    number: 6,
    torch: 'test_checkpointing_without_reentrant_with_context_fn',
    claim:
      'The contexts of a region see the ops of forward and of recompute; a trace enters the forward one only.',
    eager: holds((execution) => {
      assert.deepEqual(seenByContexts(execution), { forward: ['exp'], again: ['exp'] });
      refusesReentrant();
    }),
    compiled: holds((execution) => {
      assert.deepEqual(seenByContexts(execution), { forward: ['exp'], again: [] });
      refusesReentrant();
    }),
  },
  both(
    31,
    'test_flops_and_mem',
    'MiB saved and backward mm: none 2 and 2, full 0 and 3; saving mm by list, policy or boolean 1 and 2.',
    checkFlopsAndMemory,
  ),
  both(
    32,
    'test_output_already_has_autograd_meta',
    'Keeping the result of a view of integers breaks nothing.',
    (execution) => {
      const fn = (x: Tensor): Tensor => {
        reshape(tensor([3, 4], { dtype: 'int32' }), [2, 1]);
        return sin(exp(x));
      };
      checkEqual(execution, fn, contexts(['reshape', 'exp']));
    },
  ),
  both(
    34,
    'test_bad_inputs',
    'What is neither a policy nor a list of ops is refused, and so is an op that does not exist.',
    (execution) => {
      const bad: readonly [unknown, RegExp][] = [
        [['matmull'], /expected an op in the list.*matmul/i],
        [[7], /expected an op in the list/],
        [2, /either a function or a list of ops/],
      ];
      for (const [value, message] of bad) {
        const contextFn = () => createSelectiveCheckpointContexts(value as string[]);
        assert.throws(
          () => gradientOf(execution, region(sin, { contextFn })),
          (e) => e instanceof ArgumentError && message.test(e.message),
        );
      }
    },
  ),
  both(
    35,
    'test_policy_with_state',
    'A policy with state is asked about each op of forward, in order, and not again.',
    (execution) => assert.deepEqual(callsOfPolicy(execution), [1, 2, 3]),
  ),
  {
    number: 36,
    torch: 'test_storage_lifetime',
    claim: 'Kept values go with the graph, and after a backward that retains it.',
    eager: holds(() =>
      scope(() => {
        const x = tensor(new Float32Array(4096).fill(0.5), { requiresGrad: true });
        const fn = (v: Tensor): Tensor => tanh(add(exp(v), v));
        const before = liveBytes();
        const dropped = checkpoint(fn, [x], contexts(['exp']));
        assert.equal(liveBytes() - before, 2 * 4096 * 4, 'the output and the stored value');
        dropped.dispose();
        assert.equal(liveBytes(), before, 'without a backward they go with the graph');
        const kept = checkpoint(fn, [x], contexts(['exp']));
        backward(sum(kept), { retainGraph: true });
        x.grad = undefined;
        assert.ok(liveBytes() - before < 2 * 4096 * 4, 'consumed though the graph lives');
        kept.dispose();
      }),
    ),
    compiled: absent('A compiled step has no graph that outlives it: its plan ends each value.'),
  },
  {
    number: 37,
    torch: 'test_version_counter',
    claim:
      'A kept value that is changed in place is an error unless that is allowed; a trace keeps what it was before.',
    eager: holds((execution) => {
      assert.throws(
        () => gradientOf(execution, region(changed, contexts(['sin']))),
        (e) => e instanceof CheckpointError && /has been mutated/.test(e.message),
      );
      gradientOf(execution, region(changed, contexts(['sin'], true)));
    }),
    compiled: holds((execution) => {
      checkEqual(execution, changed, contexts(['sin']));
      checkEqual(execution, changed, contexts(['sin'], true));
    }),
  },
  both(
    38,
    'test_function_with_more_than_one_output',
    'All outputs of an op are kept: a sort runs once, with equal gradients.',
    (execution) => {
      const fn = (x: Tensor): Tensor => {
        const { values, indices } = sort(x);
        assert.equal(indices.dtype, 'int32');
        return sin(mul(values, x));
      };
      checkEqual(execution, fn, contexts(['sort']));
      const counts = measure(execution, {
        inputs: () => [vector(4, 1)],
        loss: (x) => sum(checkpoint(fn, [x as Tensor], contexts(['sort']))),
      });
      assert.deepEqual([counts.forward.count('sort'), counts.backward.count('sort')], [1, 0]);
    },
  ),
  {
    number: 39,
    torch: 'test_function_with_non_tensor_output',
    claim: 'A number that the host reads from a kept value is the same in recompute.',
    eager: holds((execution) => {
      const read: number[] = [];
      const fn = (x: Tensor): Tensor => {
        const y = exp(x);
        const scale = item(sum(y));
        read.push(scale);
        return sin(mul(mul(y, scale), x));
      };
      checkEqual(execution, fn, contexts(['exp', 'sum']));
      assert.equal(read.length, 3, 'forward and recompute of the region, and the plain run');
      assert.ok(read.every((value) => value === read[0]));
    }),
    compiled: absent('A trace has no values that the host could read: it is an error.'),
  },
  {
    number: 40,
    torch: 'test_can_only_trigger_recompute_once',
    claim: 'A second backward over kept values is an error; a compiled step reads them again.',
    eager: holds(() =>
      scope(() => {
        const y = sum(checkpoint((v: Tensor) => sin(exp(v)), [vector(2, 1)], contexts(['exp'])));
        backward(y, { retainGraph: true });
        assert.throws(
          () => backward(y),
          (e) => e instanceof CheckpointError && /Trying to backward an extra time/.test(e.message),
        );
      }),
    ),
    compiled: holds((execution) =>
      scope(() => {
        const twice = (wrap: boolean) => (x: Tensor) => {
          const fn = (v: Tensor): Tensor => sin(exp(v));
          const y = sum(wrap ? checkpoint(fn, [x], contexts(['exp'])) : fn(x));
          return [grad(y, x, { retainGraph: true }), grad(y, x)];
        };
        const x = vector(2, 1);
        assert.deepEqual(valuesOf(execution, twice(true), x), valuesOf(execution, twice(false), x));
      }),
    ),
  },
];
