/**
 * test/functorch/test_ac.py and test_ac_knapsack.py: budgets of compiled steps. PyTorch's budget is a share of
 * the bytes between forward and backward; here it is bytes of the step's real peak, so cases ask for the peak
 * without a budget less some bytes.
 */

import assert from 'node:assert/strict';
import {
  type CompileOptions,
  type Tensor,
  add,
  checkpoint,
  cos,
  linear,
  matmul,
  mul,
  scaledDotProductAttention,
  sum,
  tensor,
} from '../../../../src/index.ts';
import { executions } from '../../../support/executions.ts';
import { planGraph } from '../../../../src/plan/index.ts';
import type { PlanGraph } from '../../../../src/plan/graph.ts';
import { baseSchedule, simulate } from '../../../../src/plan/simulate.ts';
import { constant, op } from '../../../support/plan-graphs.ts';
import { type ConformanceCase, type Outcome, absent, holds } from '../case.ts';
import { type Measured, type Program, matrix, measure } from '../measure.ts';

const compiled = executions.find(({ name }) => name === 'compiled');
assert.ok(compiled);
const execution = compiled;

/** Side of the square matrices of a chain, and bytes of one. */
const side = 128;
const unit = side * side * 4;

function budgetCase(
  number: number,
  torch: string,
  claim: string,
  compiled: Outcome,
): ConformanceCase {
  const eager = absent('Budgets are met by the planner of compiled steps.');
  return { number, torch, claim, eager, compiled };
}

/** The program without a budget, and under one that is `less` bytes below its peak. */
function underBudgets(
  program: Program,
  less: readonly number[],
  options: CompileOptions = {},
): { base: Measured; under: Measured[] } {
  const base = measure(execution, program);
  const under = less.map((bytes) => {
    const budget = base.peakBytes - bytes;
    const got = measure(execution, program, { ...options, budget });
    assert.ok(got.peakBytes <= budget, `${got.peakBytes} of ${budget}`);
    assert.deepEqual([got.loss, got.gradients], [base.loss, base.gradients]);
    return got;
  });
  return { base, under };
}

/** Executions of `op` beyond those of `base`. */
function more(op: string, got: Measured, base: Measured): number {
  const count = ({ forward, backward }: Measured): number => forward.count(op) + backward.count(op);
  return count(got) - count(base);
}

/** `length` times an mm and a cosine. */
function chain(length: number): Program {
  return {
    inputs: () => Array.from({ length: length + 1 }, (_, i) => matrix(side, side, i + 1)),
    loss: (first, ...weights) =>
      sum(weights.reduce((x, weight) => cos(matmul(x, weight)), first as Tensor)),
  };
}

function checkChain(less: readonly number[], options?: CompileOptions): [number, number][] {
  const { base, under } = underBudgets(
    chain(5),
    less.map((units) => (units - 0.5) * unit),
    options,
  );
  return under.map((got) => [more('cos', got, base), more('matmul', got, base)]);
}

interface Lane {
  /** Bytes of the product, in units of 64 rows of 64 numbers. */
  readonly size: number;
  /** FLOPs per byte: the inner length of the product, in units of 64. */
  readonly work: number;
}

/**
 * Independent products whose results all wait for a larger one that needs every one of them: at the peak
 * what is kept counts, and nothing else.
 */
function lanes(list: readonly Lane[]): Program {
  const factor = (rows: number, columns: number, seed: number): Tensor =>
    matrix(rows, columns, seed, false);
  const large = 128 * Math.max(...list.map(({ size }) => size));
  return {
    inputs: () => [
      factor(large, 4, 40),
      matrix(4, 64, 41),
      ...list.flatMap(({ size, work }, i) => [
        factor(64 * size, 64 * work, 2 * i),
        matrix(64 * work, 64, 2 * i + 1),
      ]),
    ],
    loss: (left, right, ...factors) => {
      let total: Tensor = tensor(0);
      list.forEach((_, i) => {
        const [a, b] = [factors[2 * i] as Tensor, factors[2 * i + 1] as Tensor];
        total = add(total, sum(cos(matmul(a, b))));
      });
      return sum(cos(matmul(left as Tensor, mul(right as Tensor, total))));
    },
  };
}

/** FLOPs of further products, in units of a lane of size and work 1. */
function moreWork(got: Measured, base: Measured): number {
  const flops = ({ forward, backward }: Measured): number => forward.matmuls + backward.matmuls;
  return Math.round((flops(got) - flops(base)) * (512 / 64) ** 3);
}

function checkLanes(list: readonly Lane[], units: readonly number[]): number[] {
  const { base, under } = underBudgets(
    lanes(list),
    units.map((count) => count * 64 * 64 * 4),
  );
  return under.map((got) => moreWork(got, base));
}

/** Budgets from one unit less to all of the lanes less cost what the best choice of lanes costs. */
function checkBestChoice(list: readonly Lane[]): void {
  const total = list.reduce((sizes, { size }) => sizes + size, 0);
  const units = Array.from({ length: total - 1 }, (_, i) => i + 1).filter(
    (i) => i % 2 === 1 || i < 6,
  );
  const items = list.map(({ size, work }) => ({ bytes: size, cost: size * work }));
  assert.deepEqual(
    checkLanes(list, units),
    units.map((less) => leastCost(items, total - less)),
  );
}

interface Item {
  readonly bytes: number;
  /** Of making it again. */
  readonly cost: number;
}

/** Cost of the items that are left out of the best choice that fits into `capacity`, by trying all. */
function leastCost(items: readonly Item[], capacity: number): number {
  let least = Number.POSITIVE_INFINITY;
  for (let choice = 0; choice < 2 ** items.length; choice++) {
    let [bytes, cost] = [0, 0];
    items.forEach((item, i) => {
      if (choice & (2 ** i)) bytes += item.bytes;
      else cost += item.cost;
    });
    if (bytes <= capacity) least = Math.min(least, cost);
  }
  return least;
}

const bytesOfUnit = 1e6;

/** The items as values of a graph, made in forward and read at the end of backward, after something large. */
function knapsackGraph(items: readonly Item[]): PlanGraph {
  // Every item and the large value: never less than reading all items takes.
  const large = bytesOfUnit * items.reduce((sum, { bytes }) => sum + bytes, 1);
  const backward = { phase: 'backward', costNs: 1 } as const;
  const made = items.map((_, i) => i + 1);
  const middle = items.length + 1;
  const nodes = [
    constant,
    ...items.map(({ bytes, cost }, i) =>
      op(`item ${i}`, [0], bytes * bytesOfUnit, { costNs: cost }),
    ),
    op('all', [0, ...made], 0),
    op('large', [middle], large, { costNs: 1000 }),
    op('large backward', [middle + 1], 0, backward),
    ...made.map((item) => op(`backward of ${item}`, [item, middle + 2], 0, backward)),
  ];
  return { nodes, outputs: [[nodes.length - 1, 0]] };
}

/** Extra cost and bytes kept at the peak, when `capacity` units of the items may stay. */
function planItems(items: readonly Item[], capacity: number): { extra: number; kept: number } {
  const graph = knapsackGraph(items);
  const base = simulate(graph, baseSchedule(graph)).peakBytes;
  const total = items.reduce((sum, { bytes }) => sum + bytes, 0);
  // The planner rounds budgets down by up to 1/200 of the peak.
  const budgetBytes = base - (total - Math.min(total, capacity)) * bytesOfUnit + base / 150;
  const plan = planGraph(graph, { budgetBytes });
  assert.ok(plan.peakBytes <= budgetBytes);
  return { extra: plan.extraNs, kept: total - (base - plan.peakBytes) / bytesOfUnit };
}

const item = ([bytes = 0, cost = 0]: readonly number[]): Item => ({ bytes, cost });

/** PyTorch's shared cases: items of bytes and cost, and a capacity. */
const knapsacks: readonly (readonly [items: readonly Item[], capacity: number])[] = [
  [
    [
      [4, 10],
      [3, 40],
      [2, 30],
      [5, 50],
    ].map(item),
    9,
  ],
  [
    [
      [1, 10],
      [2, 20],
      [3, 30],
    ].map(item),
    6,
  ],
  [
    [
      [2, 10],
      [3, 20],
      [4, 30],
    ].map(item),
    1,
  ],
  [
    [
      [0, 10],
      [3, 20],
      [0, 30],
      [4, 5],
    ].map(item),
    3,
  ],
  [
    [
      [2, 0],
      [3, 20],
      [1, 0],
      [3, 25],
    ].map(item),
    6,
  ],
  [[], 0],
  [
    [
      [1, 10],
      [2, 20],
    ].map(item),
    0,
  ],
  [
    [
      [1, 15],
      [2, 27],
      [3, 25],
      [4, 44],
      [6, 71],
    ].map(item),
    8,
  ],
  [
    [
      [5, 50],
      [7, 61],
      [9, 100],
      [3, 20],
      [4, 45],
      [6, 70],
      [2, 14],
      [8, 66],
    ].map(item),
    21,
  ],
];

/** Attention and a linear layer beside each other, with results of one size. */
function checkAttentionOrLinear(length: number, width: number): readonly [string, number][] {
  const shape = [1, 1, length, width] as const;
  const program: Program = {
    inputs: () => [
      matrix(2 * length, 4, 1, false),
      matrix(4, width, 2),
      matrix(length, width, 3, false),
      matrix(width, width, 4),
      ...[5, 6, 7].map((seed) => matrix(length, width, seed)),
    ],
    loss: (left, right, x, weight, ...heads) => {
      const [q, k, v] = heads.map((head) => head.reshape(shape)) as [Tensor, Tensor, Tensor];
      const both = add(
        sum(cos(linear(x as Tensor, weight as Tensor))),
        sum(cos(scaledDotProductAttention(q, k, v))),
      );
      return sum(cos(matmul(left as Tensor, mul(right as Tensor, both))));
    },
  };
  const { base, under } = underBudgets(program, [length * width * 2]);
  return ['attention', 'linear'].map((op) => [op, more(op, under[0] as Measured, base)]);
}

export const budgetCases: readonly ConformanceCase[] = [
  budgetCase(
    110,
    'test_rematerializes_cheap',
    'mm(cos x): the first matrices less cost one more cosine each and no mm.',
    holds(() =>
      assert.deepEqual(checkChain([1, 2, 3]), [
        [1, 0],
        [2, 0],
        [3, 0],
      ]),
    ),
  ),
  budgetCase(
    111,
    'test_matmul_even_chain',
    'Five mm and cosines: cosines are run again first, then mm, and the more the smaller the budget.',
    holds(() => {
      const products = checkChain([1, 2, 3, 5, 6]).map(([, matmuls]) => matmuls);
      assert.deepEqual(products.slice(0, 3), [0, 0, 0]);
      const [, , , some = 0, more = 0] = products;
      assert.ok(some > 0 && more > some && more <= 5, String(products));
    }),
  ),
  budgetCase(
    112,
    'test_matmul_uneven_chain',
    'Products of unequal size: each budget costs what the best choice of products costs.',
    holds(() => {
      checkBestChoice([11, 3, 4, 2].map((size) => ({ size, work: 1 })));
    }),
  ),
  budgetCase(
    114,
    'test_prioritize_cheaper_matmul',
    'Of two mm of equal size the cheaper one runs again.',
    holds(() => {
      const cheap = { size: 4, work: 1 };
      const dear = { size: 4, work: 4 };
      assert.deepEqual(checkLanes([cheap, dear], [4, 8]), [4, 20]);
      assert.deepEqual(checkLanes([dear, cheap], [4, 8]), [4, 20]);
    }),
  ),
  budgetCase(
    115,
    'test_profile',
    'Measured costs in place of FLOPs: budgets are kept, with the same bits.',
    holds(() => {
      for (const [cosines] of checkChain([1, 3], { cost: 'measured' })) assert.ok(cosines > 0);
    }),
  ),
  budgetCase(
    116,
    'test_prioritize_cheaper_matmul2',
    'Sizes and costs that pull in different directions: each budget costs what the best choice costs.',
    holds(() =>
      checkBestChoice([
        { size: 4, work: 4 },
        { size: 6, work: 2 },
        { size: 2, work: 6 },
      ]),
    ),
  ),
  budgetCase(
    117,
    'test_attention_vs_linear',
    'Attention or linear runs again, whichever is cheaper.',
    holds(() => {
      assert.deepEqual(checkAttentionOrLinear(32, 512), [
        ['attention', 1],
        ['linear', 0],
      ]);
      assert.deepEqual(checkAttentionOrLinear(512, 32), [
        ['attention', 0],
        ['linear', 1],
      ]);
    }),
  ),
  budgetCase(
    118,
    'test_manual_ac',
    'Regions of the user bound what a budget may do.',
    holds(() => {
      const region = (x: Tensor, weight: Tensor): Tensor =>
        cos(matmul(cos(matmul(x, weight)), weight));
      const program: Program = {
        inputs: () => [matrix(side, side, 1), matrix(side, side, 2)],
        loss: (x, weight) => {
          const once = checkpoint(region, [x as Tensor, weight as Tensor]);
          return sum(checkpoint(region, [once, weight as Tensor]));
        },
      };
      const { base, under } = underBudgets(program, [0]);
      const counts = ({ forward, backward }: Measured): number[] =>
        ['matmul', 'cos'].flatMap((op) => [forward.count(op), backward.count(op)]);
      assert.deepEqual(under.map(counts), [counts(base)]);
      assert.equal(base.backward.count('matmul'), 8 + 4);
    }),
  ),
  budgetCase(
    134,
    'test_dp_knapsack',
    'The choice among independent values is the best one.',
    holds(() => {
      for (const [items, capacity] of knapsacks) {
        assert.equal(planItems(items, capacity).extra, leastCost(items, capacity));
      }
    }),
  ),
  budgetCase(
    135,
    'test_dp_knapsack_sliding_hirschberg',
    'What is kept never exceeds the capacity; what has no bytes is always kept.',
    holds(() => {
      for (const [items, capacity] of knapsacks) {
        const { extra, kept } = planItems(items, capacity);
        assert.ok(kept <= capacity + 1e-6, `${kept} of ${capacity}`);
        const nothing = items.filter(({ bytes }) => bytes === 0);
        assert.equal(
          extra,
          leastCost(
            items.filter((each) => !nothing.includes(each)),
            capacity,
          ),
        );
      }
    }),
  ),
];
