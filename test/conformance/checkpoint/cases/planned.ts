/**
 * Cases that wait for budgets of compiled steps (test/functorch/test_ac.py, test_ac_knapsack.py).
 */

import { type ConformanceCase, planned } from '../case.ts';

const budget = 'the byte budget of compiled steps';

/** A case of the planner, which compiled steps have only. */
function waitsCompiled(number: number, torch: string, claim: string): ConformanceCase {
  const eager = {
    kind: 'absent',
    why: 'Budgets are met by the planner of compiled steps.',
  } as const;
  return { number, torch, claim, eager, compiled: planned(budget) };
}

export const plannedCases: readonly ConformanceCase[] = [
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
