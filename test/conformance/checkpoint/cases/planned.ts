/**
 * Cases that wait for a part of the library: selective checkpointing (test/test_autograd.py, class
 * TestSelectiveActivationCheckpoint, and its compiled tests) and budgets (test/functorch/test_ac.py,
 * test_ac_knapsack.py). What can be said without that part is tested already.
 */

import assert from 'node:assert/strict';
import { type Tensor, checkpoint, cos, matmul, sigmoid, sin, sum } from '../../../../src/index.ts';
import type { Execution } from '../../../support/executions.ts';
import { type ConformanceCase, planned } from '../case.ts';
import { type Measured, type Program, matrix, measure, mebibyte } from '../measure.ts';

const selective = 'selective policies';
const contexts = 'createSelectiveCheckpointContexts';
const contextFn = 'contextFn (C10)';
const budget = 'the byte budget of compiled steps';

/** A case of both executions that needs `what`. */
function waits(
  number: number,
  torch: string,
  what: string,
  claim: string,
  check?: (execution: Execution) => void,
): ConformanceCase {
  return { number, torch, claim, eager: planned(what, check), compiled: planned(what, check) };
}

/** A case of the planner, which compiled steps have only. */
function waitsCompiled(number: number, torch: string, claim: string): ConformanceCase {
  const eager = {
    kind: 'absent',
    why: 'Budgets are met by the planner of compiled steps.',
  } as const;
  return { number, torch, claim, eager, compiled: planned(budget) };
}

const mebibytes = ({ savedBytes }: Measured): number => savedBytes / mebibyte;

function checkFlopsAndMemory(execution: Execution): void {
  const fn = (x: Tensor, y: Tensor): Tensor => sin(matmul(cos(x), y));
  const program = (wrap: boolean): Program => ({
    inputs: () => [matrix(512, 512, 1), matrix(512, 512, 2)],
    loss: (x, y) => {
      const args: [Tensor, Tensor] = [x as Tensor, y as Tensor];
      return sum(wrap ? checkpoint(fn, args) : fn(...args));
    },
  });
  const whole = ({ backward }: Measured): number => Math.floor(backward.matmuls);
  const [none, full] = [measure(execution, program(false)), measure(execution, program(true))];
  assert.deepEqual([mebibytes(none), whole(none)], [2, 2]);
  assert.deepEqual([mebibytes(full), whole(full)], [0, 3]);
  assert.deepEqual([full.loss, full.gradients], [none.loss, none.gradients]);
}

/** The mm of two regions without a policy: what the selective counts are compared with. */
function checkTwoMatmuls(execution: Execution): void {
  const counts = measure(execution, {
    inputs: () => [matrix(4, 4, 1), matrix(4, 4, 2)],
    loss: (x, y) => {
      const gn = (a: Tensor, b: Tensor): Tensor => sigmoid(matmul(matmul(a, b), b));
      return sum(checkpoint(gn, [x as Tensor, y as Tensor]));
    },
  });
  assert.deepEqual([counts.forward.count('matmul'), counts.backward.count('matmul')], [2, 6]);
}

export const plannedCases: readonly ConformanceCase[] = [
  waits(
    6,
    'test_checkpointing_without_reentrant_with_context_fn',
    contextFn,
    'The two contexts of a region see the ops of forward and of recompute.',
  ),
  waits(
    31,
    'test_flops_and_mem',
    selective,
    'MiB saved and backward mm: none 2 and 2, full 0 and 3 (tested); saving mm 1 and 2.',
    checkFlopsAndMemory,
  ),
  waits(
    32,
    'test_output_already_has_autograd_meta',
    contexts,
    'Keeping the result of a view of integers breaks nothing.',
  ),
  waits(34, 'test_bad_inputs', contexts, 'Bad arguments are refused with three different errors.'),
  waits(
    35,
    'test_policy_with_state',
    contexts,
    'A policy with state is asked in forward only, in order.',
  ),
  waits(
    36,
    'test_storage_lifetime',
    contexts,
    'Kept values go with the graph, and after a backward that retains it.',
  ),
  waits(
    37,
    'test_version_counter',
    contexts,
    'A kept value that is changed in place is an error unless that is allowed.',
  ),
  waits(38, 'test_function_with_more_than_one_output', contexts, 'All outputs of an op are kept.'),
  waits(39, 'test_function_with_non_tensor_output', contexts, 'An op that is kept runs once.'),
  waits(
    40,
    'test_can_only_trigger_recompute_once',
    contexts,
    'A second backward over kept values is an error.',
  ),
  waits(
    77,
    'test_compile_selective_checkpoint_must_recompute',
    selective,
    'Two mm: MustRecompute 6 in backward (tested without a policy), MustSave 4.',
    checkTwoMatmuls,
  ),
  waits(
    78,
    'test_sac_with_partial_context_fn',
    contexts,
    'A policy object works compiled as it does eagerly.',
  ),
  waits(
    79,
    'test_compile_selective_checkpoint_must_not_recompute_gemm',
    selective,
    'Saving mm: 2 in forward, 4 in backward.',
  ),
  waits(
    80,
    'test_compile_selective_checkpoint_must_not_recompute_gemm_no_functionalization',
    selective,
    'The activation runs once more in backward.',
  ),
  waits(
    83,
    'test_compile_selective_checkpoint_custom_rule',
    selective,
    'A policy that lets the second mm go.',
  ),
  waits(
    84,
    'test_compile_selective_checkpoint_partial_ctx_fn',
    selective,
    'A list of ops: 2 mm in forward, 4 in backward.',
  ),
  waits(
    85,
    'test_compile_selective_checkpoint_outplace_op',
    selective,
    'Saving mm and sigmoid: 4 mm and no sigmoid in backward.',
  ),
  waits(
    86,
    'test_compile_selective_checkpoint_list_ops',
    selective,
    'An op with a list of inputs runs once more in backward.',
  ),
  waits(
    87,
    'test_compile_selective_checkpoint_inplace_op',
    selective,
    'In-place ops in a region with a policy (PyTorch skips this one).',
  ),
  waits(
    88,
    'test_compile_selective_checkpoint_random_op',
    selective,
    'sigmoid saved, dropout run again with the same draws.',
  ),
  waits(
    89,
    'test_compile_selective_checkpoint_invalid_context',
    contextFn,
    'Contexts of a wrong kind are refused.',
  ),
  waits(
    90,
    'test_compile_selective_checkpoint_parametrization',
    selective,
    'A policy that saves all but two ops.',
  ),
  waitsCompiled(110, 'test_rematerializes_cheap', 'mm(cos x): half the bytes cost one cosine.'),
  waitsCompiled(
    111,
    'test_matmul_even_chain',
    'Five mm and cosines: extra work grows in proportion below half.',
  ),
  waitsCompiled(112, 'test_matmul_uneven_chain', 'Budgets that can be met exactly are.'),
  waitsCompiled(
    114,
    'test_prioritize_cheaper_matmul',
    'Of two mm of equal size the cheaper one runs again.',
  ),
  waitsCompiled(115, 'test_profile', 'Measured costs in place of FLOPs.'),
  waitsCompiled(
    116,
    'test_prioritize_cheaper_matmul2',
    'Sizes and costs that pull in different directions.',
  ),
  waitsCompiled(
    117,
    'test_attention_vs_linear',
    'Attention or linear runs again, whichever is cheaper.',
  ),
  waitsCompiled(118, 'test_manual_ac', 'Regions of the user bound what a budget may do.'),
  waitsCompiled(134, 'test_dp_knapsack', 'The choice among independent values is the best one.'),
  waitsCompiled(
    135,
    'test_dp_knapsack_sliding_hirschberg',
    'The same by the solver with little memory, which never exceeds the budget.',
  ),
];
