/** Cases that say nothing about this library, and why. */

import assert from 'node:assert/strict';
import {
  type Tensor,
  checkpoint,
  currentBackend,
  grad,
  matmul,
  relu,
  scope,
  sum,
} from '../../../../src/index.ts';
import { type ConformanceCase, holds, neither } from '../case.ts';
import { matrix, measure } from '../measure.ts';

type Listed = readonly [number: number, torch: string];

function all(why: string, cases: readonly Listed[]): ConformanceCase[] {
  return cases.map(([number, torch]) => neither(number, torch, why));
}

/** Peak bytes of a forward and backward through eight blocks of three layers. */
function peakOfBlocks(wrap: boolean): number {
  return scope(() => {
    const weights = Array.from({ length: 24 }, (_, i) => matrix(32, 32, i));
    const block = (i: number) => (x: Tensor) =>
      weights.slice(3 * i, 3 * i + 3).reduce((v, w) => relu(matmul(v, w)), x);
    const x = matrix(256, 32, 1);
    const { allocator } = currentBackend();
    const live = allocator.stats().live;
    allocator.resetPeak();
    let out = x;
    for (let i = 0; i < 8; i++) {
      const input = out;
      out = wrap ? checkpoint(block(i), [input]) : scope(() => block(i)(input));
      if (input !== x) input.dispose();
    }
    grad(sum(out), x);
    return allocator.stats().peak - live;
  });
}

export const otherCases: readonly ConformanceCase[] = [
  {
    number: 4,
    torch: 'test_checkpointing_without_reentrant_memory_savings',
    claim: 'Eight blocks of three layers: the peak with a region each is well below the plain one.',
    eager: holds(() => assert.ok(peakOfBlocks(true) < 0.6 * peakOfBlocks(false))),
    compiled: holds((execution) => {
      const bytes = (wrap: boolean): number =>
        measure(execution, {
          inputs: () => [matrix(64, 16, 1), matrix(16, 16, 2)],
          loss: (x, w) => {
            const block = (v: Tensor): Tensor => {
              let out = v;
              for (let i = 0; i < 3; i++) out = relu(matmul(out, w as Tensor));
              return out;
            };
            let out = x as Tensor;
            for (let i = 0; i < 8; i++) out = wrap ? checkpoint(block, [out]) : block(out);
            return sum(out);
          },
        }).savedBytes;
      assert.ok(bytes(true) < 0.6 * bytes(false));
    }),
  },
  ...all('About the reentrant kind, which is refused (C11).', [
    [1, 'test_checkpointing'],
    [7, 'test_checkpoint_warns_if_use_reentrant_not_passed_explcitly'],
    [8, 'test_checkpoint_sequential_warns_if_use_reentrant_not_passed_explcitly'],
    [13, 'test_checkpoint_valid_reset_on_error'],
    [21, 'test_cross_device_reentrant_autograd'],
  ]),
  ...all('There is no autocast: dtypes are those that the model states.', [
    [2, 'test_checkpointing_non_reentrant_autocast_cpu'],
    [3, 'test_checkpointing_non_reentrant_autocast_gpu'],
    [91, 'test_autocast_flash_attention'],
  ]),
  neither(
    5,
    'test_checkpointing_without_reentrant_custom_function_works',
    'A custom backward is handed its saved values once; it has no way to read them twice. See 15 and 63.',
  ),
  neither(17, 'test_checkpointing_without_reentrant_dataparallel', 'A process has one device.'),
  neither(
    22,
    'test_deep_reentrant and its family',
    'About the threads and queues of the autograd engine; a backward inside a backward is 28.',
  ),
  ...all(
    'Dispatch below autograd, tensor subclasses and kernels written in Triton do not exist here.',
    [
      [33, 'test_subclass_dispatching_sizes'],
      [81, 'test_compile_selective_checkpoint_triton_kernel'],
      [82, 'test_compile_selective_checkpoint_tensor_subclass'],
      [113, 'test_custom_triton_kernel'],
    ],
  ),
  ...all('Random state and memory belong to one backend, not to a list of devices.', [
    [55, 'test_get_device_states_recursive'],
    [56, 'test_infer_device_state_recursive_meta'],
    [57, 'test_infer_device_state_recursive_multi_gpu'],
    [58, 'test_checkpoint_preserves_device_context'],
  ]),
  ...all('About the tracer of Python bytecode and its caches; a step is traced by running it.', [
    [92, 'test_error_msg'],
    [96, 'test_dynamo_does_not_trace_getattr_as_top_frame'],
    [102, 'test_checkpoint_with_record_function'],
  ]),
  neither(
    94,
    'test_pattern_matcher',
    'There is no pattern matcher over graphs: attention is one op.',
  ),
  neither(
    95,
    'test_distributed_utils_checkpoint_wrapper',
    'Modules are not wrapped in modules: see 146 for calls, and 143 to 148 compiled.',
  ),
  ...all('A trace cannot carry tensors out other than by its result; a counter is 98.', [
    [99, 'test_nonlocal_list_mutation'],
    [100, 'test_nonlocal_list_mutation_hidden'],
  ]),
  neither(
    103,
    'test_region_activation_memory_budget',
    'A budget is of a whole step (P1); regions take policies.',
  ),
  ...all('Views cost nothing in a plan, so there is no pass that removes them.', [
    [108, 'test_joint_graph_passes_view_optimization'],
    [109, 'test_joint_graph_passes_permute_optimization'],
  ]),
  ...all("About the classes inside PyTorch's knapsack; the planner has tests of its own.", [
    [119, 'TestGraphInfoProvider.test_inialize_from_graph'],
    [120, 'TestGraphInfoProvider.test_get_non_ac_peak_memory'],
    [121, 'TestGraphInfoProvider.test_get_theoretical_max_runtime'],
    [122, 'TestGraphInfoProvider.test_get_knapsack_memory_input'],
    [123, 'TestGraphInfoProvider.test_get_knapsack_runtime_input'],
    [124, 'TestGraphInfoProvider.test_recomputable_node_only_graph'],
    [125, 'TestGraphInfoProvider.test_recomputable_node_only_graph_with_larger_graph_context'],
    [126, 'TestGraphInfoProvider.test_full_joint_nx_graph'],
    [127, 'TestGraphInfoProvider.test_simplified_fx_joint_graph'],
    [128, 'TestKnapsackEvaluator.test_evaluate_knapsack_output_not_accounting_for_backward_pass'],
    [129, 'TestKnapsackEvaluator.test_evaluate_knapsack_output_accounting_for_backward_pass'],
    [130, 'TestKnapsackEvaluator.test_evaluate_knapsack_output_with_wrong_sized_values'],
    [131, 'TestKnapsackEvaluator.test_evaluate_distribution_of_results_for_knapsack_algo'],
    [132, 'TestKnapsackEvaluator.test_get_knee_point_memory_budget'],
    [133, 'TestKnapsackEvaluator.test_get_backward_memory_from_topologically_sorted_graph'],
  ]),
  ...all(
    'About how a fraction is attached to a graph in PyTorch; here a budget is an option in bytes.',
    [
      [136, 'test_memory_budget.py: TestSetMemoryBudget'],
      [137, 'test_memory_budget.py: TestMemoryBudgetMode'],
      [138, 'test_memory_budget.py: TestMemoryBudgetCopyMetaFields'],
      [139, 'test_memory_budget.py: TestMemoryBudgetCompile'],
      [140, 'test_ac_logging.py'],
      [141, 'test_partitioners.py'],
      [142, 'test_aotdispatch.py: TestPartitioning'],
    ],
  ),
  ...all(
    "About PyTorch's estimators, which run beside training; the planner's figures are the measured ones (P5).",
    [
      [156, '_tools/test_sac_estimator.py'],
      [157, '_tools/test_sac_ilp.py'],
      [158, '_tools/test_mem_tracker.py'],
    ],
  ),
];
