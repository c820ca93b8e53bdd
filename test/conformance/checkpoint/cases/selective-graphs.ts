/** test/dynamo/test_activation_checkpointing.py: regions with policies in one graph of forward and backward. */

import assert from 'node:assert/strict';
import {
  ArgumentError,
  type CheckpointOptions,
  type CheckpointPolicy,
  Generator,
  type PolicyFunction,
  type Tensor,
  addInPlace,
  checkpoint,
  concat,
  createSelectiveCheckpointContexts,
  dropout,
  grad,
  linear,
  matmul,
  mul,
  noGrad,
  relu,
  saveOps,
  scope,
  sigmoid,
  sin,
  sum,
  transpose,
} from '../../../../src/index.ts';
import { attachBackward } from '../../../../src/tensor/apply.ts';
import type { Execution } from '../../../support/executions.ts';
import { type ConformanceCase, both } from '../case.ts';
import { type Program, counts, matrix, measure, square, valuesOf } from '../measure.ts';
import { contexts } from './selective.ts';

type Binary = (x: Tensor, y: Tensor) => Tensor;

const twoMatmuls: Binary = (x, y) => sigmoid(matmul(matmul(x, y), y));

/** Loss of a region, or of the plain function without options. */
function lossOf(fn: Binary, options?: CheckpointOptions): Program['loss'] {
  return (x, y) => {
    const args: [Tensor, Tensor] = [x as Tensor, y as Tensor];
    return sum(options ? checkpoint(fn, args, options) : fn(...args));
  };
}

/** Counts of `op` in a region, whose values have to equal those of the plain function. */
function check(
  execution: Execution,
  fn: Binary,
  options: CheckpointOptions,
  expected: Readonly<Record<string, readonly [forward: number, backward: number]>>,
): void {
  const plain = measure(execution, { inputs: square, loss: lossOf(fn) });
  const region = measure(execution, { inputs: square, loss: lossOf(fn, options) });
  assert.deepEqual([region.loss, region.gradients], [plain.loss, plain.gradients]);
  for (const [op, pair] of Object.entries(expected)) {
    assert.deepEqual([region.forward.count(op), region.backward.count(op)], pair, op);
  }
}

const byPolicy = (policy: PolicyFunction): CheckpointOptions => ({
  contextFn: () => createSelectiveCheckpointContexts(policy),
});

/** The two ways to keep these ops: PyTorch's contexts and a declared policy. */
const ways = (...ops: readonly string[]): readonly CheckpointOptions[] => [
  contexts(ops),
  { policy: saveOps(...ops) },
];

const matmulIs =
  (answer: CheckpointPolicy): PolicyFunction =>
  ({ op }) =>
    op === 'matmul' ? answer : 'preferRecompute';

/** An mm whose backward is written by hand. */
const customMatmul: Binary = (x, y) => {
  const out = noGrad(() => matmul(x, y));
  const backward = ([g]: readonly (Tensor | undefined)[], [a, b]: readonly Tensor[]) => {
    assert.ok(g && a && b);
    return [matmul(g, transpose(b)), matmul(transpose(a), g)];
  };
  attachBackward({ name: 'customMatmul', backward }, [x, y], [out], [x, y]);
  return out;
};

/** Gradients with dropout between sigmoid and sine; the generator starts anew. */
function dropoutValues(execution: Execution, options?: CheckpointOptions): number[][] {
  return scope(() => {
    const generator = new Generator(5);
    const fn = (x: Tensor): Tensor => sin(dropout(sigmoid(x), 0.5, { generator }));
    const step = (x: Tensor) => grad(sum(options ? checkpoint(fn, [x], options) : fn(x)), x);
    return valuesOf(execution, step, matrix(4, 4, 1));
  });
}

export const selectiveGraphCases: readonly ConformanceCase[] = [
  both(
    64,
    'test_sac_tags_through_custom_autograd_function',
    'An mm in the forward of a custom backward is kept by the policy of its region.',
    (execution) => {
      for (const options of ways('matmul')) {
        check(execution, (x, y) => sigmoid(customMatmul(x, y)), options, { matmul: [1, 2] });
      }
    },
  ),
  both(
    77,
    'test_compile_selective_checkpoint_must_recompute',
    'Two mm: MustRecompute gives 6 in backward, MustSave 4.',
    (execution) => {
      check(execution, twoMatmuls, byPolicy(matmulIs('mustRecompute')), { matmul: [2, 6] });
      check(execution, twoMatmuls, { policy: matmulIs('mustRecompute') }, { matmul: [2, 6] });
      check(execution, twoMatmuls, byPolicy(matmulIs('mustSave')), { matmul: [2, 4] });
      check(execution, twoMatmuls, { policy: matmulIs('mustSave') }, { matmul: [2, 4] });
    },
  ),
  both(
    78,
    'test_sac_with_partial_context_fn',
    'A policy object as contextFn: bitwise the plain values.',
    (execution) => {
      class Policy {
        readonly kept = new Set(['matmul']);
        contexts() {
          return createSelectiveCheckpointContexts(({ op }) => this.kept.has(op));
        }
      }
      const policy = new Policy();
      check(execution, twoMatmuls, { contextFn: policy.contexts.bind(policy) }, { matmul: [2, 4] });
    },
  ),
  both(
    79,
    'test_compile_selective_checkpoint_must_not_recompute_gemm',
    'Saving mm: 2 in forward, 4 in backward; 6 without a policy.',
    (execution) => {
      check(execution, twoMatmuls, {}, { matmul: [2, 6] });
      check(execution, twoMatmuls, contexts(['matmul']), { matmul: [2, 4] });
    },
  ),
  both(
    80,
    'test_compile_selective_checkpoint_must_not_recompute_gemm_no_functionalization',
    'The activation behind a kept mm runs once more in backward.',
    (execution) => {
      for (const options of ways('matmul')) {
        check(execution, twoMatmuls, options, { sigmoid: [1, 1], matmul: [2, 4] });
      }
    },
  ),
  both(
    83,
    'test_compile_selective_checkpoint_custom_rule',
    'A policy with state that lets the second mm go: 4 mm for gradients, and that one again.',
    (execution) => {
      const contextFn = () => {
        let products = 0;
        return createSelectiveCheckpointContexts(({ op }) => op === 'matmul' && ++products !== 2);
      };
      check(execution, twoMatmuls, { contextFn }, { matmul: [2, 5] });
    },
  ),
  both(
    84,
    'test_compile_selective_checkpoint_partial_ctx_fn',
    'A list of ops: 2 mm in forward, 4 in backward.',
    (execution) => {
      const contextFn = createSelectiveCheckpointContexts.bind(undefined, ['matmul'], {});
      check(execution, twoMatmuls, { contextFn }, { matmul: [2, 4] });
    },
  ),
  both(
    85,
    'test_compile_selective_checkpoint_outplace_op',
    'Saving mm and sigmoid: 4 mm and no sigmoid in backward.',
    (execution) => {
      for (const options of ways('matmul', 'sigmoid')) {
        const expected = { matmul: [2, 4], sigmoid: [2, 0] } as const;
        check(execution, (x, y) => sigmoid(twoMatmuls(x, y)), options, expected);
      }
    },
  ),
  both(
    86,
    'test_compile_selective_checkpoint_list_ops',
    'With nothing in the list an op of several inputs runs once more in backward.',
    (execution) => {
      check(execution, (x, y) => sin(concat([x, y])), contexts([]), { concat: [1, 1] });
    },
  ),
  both(
    87,
    'test_compile_selective_checkpoint_inplace_op',
    'An in-place change of what an mm made, in a region that saves mm (PyTorch skips this case).',
    (execution) => {
      const fn: Binary = (x, y) => {
        const product = matmul(matmul(x, y), y);
        addInPlace(product, 1);
        return sigmoid(product);
      };
      // Eagerly what the change overwrites is not kept: that mm runs again.
      const again = execution.name === 'eager' ? 1 : 0;
      check(execution, fn, { policy: saveOps('matmul') }, { matmul: [2, 4 + again] });
      const run = () => check(execution, fn, contexts(['matmul']), { matmul: [2, 4] });
      if (execution.name === 'compiled') run();
      else assert.throws(run, /has been mutated/);
    },
  ),
  both(
    88,
    'test_compile_selective_checkpoint_random_op',
    'sigmoid saved; dropout again with the same draws, and once as its own gradient: bitwise the plain gradients.',
    (execution) => {
      for (const options of ways('sigmoid')) {
        assert.deepEqual(dropoutValues(execution, options), dropoutValues(execution));
        const fn: Binary = (x) => sin(dropout(sigmoid(x), 0.5));
        const inputs = () => [matrix(4, 4, 1)];
        const loss = lossOf(fn, options);
        assert.deepEqual(counts(execution, 'sigmoid', loss, inputs), [1, 0]);
        assert.deepEqual(counts(execution, 'dropout', loss, inputs), [1, 2]);
      }
    },
  ),
  both(
    89,
    'test_compile_selective_checkpoint_invalid_context',
    'Contexts of a wrong kind are refused.',
    (execution) => {
      for (const pair of [[], [() => {}], undefined, [1, 2]]) {
        const contextFn = (() => pair) as unknown as NonNullable<CheckpointOptions['contextFn']>;
        assert.throws(
          () => measure(execution, { inputs: square, loss: lossOf(twoMatmuls, { contextFn }) }),
          (e) => e instanceof ArgumentError && /must generate a tuple of two/.test(e.message),
        );
      }
    },
  ),
  both(
    90,
    'test_compile_selective_checkpoint_parametrization',
    'A weight made in a region that saves all but mul and sigmoid: both run once more in backward.',
    (execution) => {
      const policy: PolicyFunction = ({ op }) =>
        op === 'mul' || op === 'sigmoid' ? 'preferRecompute' : 'mustSave';
      const made = (w: Tensor): Tensor => sigmoid(mul(w, w));
      const loss =
        (options?: CheckpointOptions): Program['loss'] =>
        (x, w) =>
          sum(
            linear(
              x as Tensor,
              options ? checkpoint(made, [w as Tensor], options) : made(w as Tensor),
            ),
          );
      const plain = measure(execution, { inputs: square, loss: loss() });
      const region = measure(execution, { inputs: square, loss: loss(byPolicy(policy)) });
      assert.deepEqual([region.loss, region.gradients], [plain.loss, plain.gradients]);
      assert.deepEqual([region.forward.count('sigmoid'), region.backward.count('sigmoid')], [1, 1]);
      assert.equal(region.forward.count('mul'), plain.forward.count('mul'));
      assert.equal(region.backward.count('mul'), plain.backward.count('mul') + 1);
    },
  ),
  both(
    107,
    'test_ac_rematerialize_with_selective_checkpoint_policy',
    'A policy that must save the linear keeps it from being run twice, and the activation is run twice.',
    (execution) => {
      for (const options of ways('linear')) {
        const fn: Binary = (x, w) => relu(linear(x, w));
        check(execution, fn, options, { linear: [1, 0], relu: [1, 1] });
      }
    },
  ),
];
