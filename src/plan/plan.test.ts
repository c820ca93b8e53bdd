import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { bestExtra } from '../../test/support/best-plan.ts';
import {
  chain,
  constant,
  op,
  randomGraph,
  randomNumbers,
  tracedGraph,
  view,
} from '../../test/support/plan-graphs.ts';
import { ArgumentError, InfeasibleBudgetError } from '../core/errors.ts';
import type { Plan, PlanGraph, PlanNode } from './graph.ts';
import { planFrontier, planGraph, smallestFeasible } from './plan.ts';
import { Planner } from './planner.ts';
import { simulate } from './simulate.ts';

const shares = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1];

/** The plan, replayed by the verifier; undefined when the budget is infeasible. */
function checked(planner: Planner, graph: PlanGraph, budgetBytes: number): Plan | undefined {
  try {
    const plan = planner.plan(budgetBytes);
    const replay = simulate(graph, plan.schedule);
    assert.ok(replay.peakBytes <= budgetBytes, `peak ${replay.peakBytes} of ${budgetBytes}`);
    assert.equal(replay.peakBytes, plan.peakBytes);
    assert.ok(Math.abs(replay.extraNs - plan.extraNs) < 1e-6);
    assert.ok(Math.abs(replay.extraHardNs - plan.extraHardNs) < 1e-6);
    assert.ok(Math.abs(replay.baseNs - plan.baseNs) < 1e-6);
    assert.ok(plan.lowerBoundNs <= plan.extraNs);
    assert.ok(plan.lowerBoundNs >= 0);
    return plan;
  } catch (error) {
    if (!(error instanceof InfeasibleBudgetError)) throw error;
    assert.ok(Number(error.details.smallestBytes) > budgetBytes);
    assert.ok(Number(error.details.lowerBoundBytes) <= Number(error.details.smallestBytes));
    return undefined;
  }
}

describe('against the best schedule of small graphs', () => {
  test('no bound is above it, no plan below it, and nearly every plan is one', () => {
    let plans = 0;
    let best = 0;
    for (let seed = 1; seed <= 80; seed++) {
      const graph = seed % 10 === 0 ? chain(1 + Math.floor(seed / 20)) : randomGraph(seed, 8);
      const planner = new Planner(graph);
      for (const share of shares) {
        const budget = Math.floor(planner.base.peak * share);
        const plan = checked(planner, graph, budget);
        if (!plan) continue;
        const least = bestExtra(graph, budget);
        assert.ok(
          plan.lowerBoundNs <= least + 1e-6,
          `seed ${seed}, ${share}: bound above ${least}`,
        );
        assert.ok(plan.extraNs >= least, `seed ${seed}, ${share}: plan below ${least}`);
        plans++;
        if (plan.extraNs === least) best++;
      }
    }
    assert.ok(plans > 130, `${plans} plans`);
    assert.ok(best >= 0.9 * plans, `${best} of ${plans} plans are the best`);
  });

  test('nothing runs below the proven bytes, and nearly always the smallest is found', () => {
    let found = 0;
    for (let seed = 1; seed <= 60; seed++) {
      const graph = randomGraph(seed, 8);
      const { bytes, lowerBoundBytes } = smallestFeasible(graph);
      assert.equal(bestExtra(graph, lowerBoundBytes - 1), Number.POSITIVE_INFINITY, `seed ${seed}`);
      assert.ok(bestExtra(graph, bytes) < Number.POSITIVE_INFINITY, `seed ${seed}`);
      if (bestExtra(graph, bytes - 1) === Number.POSITIVE_INFINITY) found++;
    }
    assert.ok(found >= 48, `${found} of 60`);
  });
});

describe('random graphs', () => {
  test('plans hold, more memory is never slower, equal input gives equal plans', () => {
    for (let seed = 1; seed <= 20; seed++) {
      const graph = randomGraph(seed, 8 + seed);
      const planner = new Planner(graph);
      let last = Number.POSITIVE_INFINITY;
      for (let percent = 20; percent <= 100; percent += 5) {
        const budget = Math.floor((planner.base.peak * percent) / 100);
        const plan = checked(planner, graph, budget);
        if (!plan) {
          assert.equal(
            last,
            Number.POSITIVE_INFINITY,
            `seed ${seed}: ${percent} % became infeasible`,
          );
          continue;
        }
        assert.ok(plan.extraNs <= last, `seed ${seed}: ${percent} % is slower than less memory`);
        last = plan.extraNs;
        if (percent % 25 === 0) {
          const { schedule, extraNs, lowerBoundNs } = planGraph(graph, { budgetBytes: budget });
          assert.deepEqual([schedule, extraNs], [plan.schedule, plan.extraNs], `seed ${seed}`);
          assert.ok(lowerBoundNs <= extraNs);
        }
      }
      assert.equal(last, 0, `seed ${seed}`);
    }
  });

  test('orders of nodes are kept', () => {
    const random = randomNumbers(7);
    for (let seed = 1; seed <= 40; seed++) {
      const { nodes, outputs } = randomGraph(seed, 20);
      const ordered = nodes.map((node): PlanNode => {
        const draw = random();
        if (node.kind === 'constant' || draw > 0.45) return node;
        if (draw < 0.15) return { ...node, keep: true };
        return draw < 0.3 ? { ...node, recompute: false } : { ...node, drop: true };
      });
      const graph = { nodes: ordered, outputs };
      const planner = new Planner(graph);
      for (const share of shares) checked(planner, graph, Math.floor(planner.base.peak * share));
    }
  });
});

test('a value that must be dropped is made again even where memory would do', () => {
  const { nodes, outputs } = chain(3);
  const graph = { nodes: nodes.map((n, i) => (i === 2 ? { ...n, drop: true } : n)), outputs };
  assert.equal(planGraph(graph, { budgetBytes: 1e6 }).extraNs, 10);
});

test('a value that is kept is not run again, and its neighbours pay', () => {
  const { nodes, outputs } = chain(6);
  const free = planGraph({ nodes, outputs }, { budgetBytes: 500 });
  const kept = free.schedule.filter(([what], i) => what === 'run' && i > 0).map(([, node]) => node);
  const again = kept.find((node, i) => kept.indexOf(node) < i);
  assert.ok(again !== undefined);
  const graph = { nodes: nodes.map((n, i) => (i === again ? { ...n, keep: true } : n)), outputs };
  const { schedule } = planGraph(graph, { budgetBytes: 500 });
  assert.equal(schedule.filter(([what, node]) => what === 'run' && node === again).length, 1);
});

describe('contradictions and illegal graphs are typed errors that name the node', () => {
  const refused = (graph: PlanGraph, text: RegExp) =>
    assert.throws(
      () => planGraph(graph, { budgetBytes: 100 }),
      (error) => error instanceof ArgumentError && text.test(error.message),
    );
  const one = (node: PlanNode): PlanGraph => ({ nodes: [constant, node], outputs: [[1, 0]] });

  test('orders', () => {
    refused(one(op('a', [0], 1, { keep: true, drop: true })), /node 1 \('a'\) must be recomputed/);
    refused(one(op('a', [0], 1, { recompute: false, drop: true })), /never run twice/);
  });

  test('references', () => {
    refused(one(op('a', [2], 1)), /node 1 \('a'\) reads a value that does not exist before it/);
    refused(one(op('a', [[0, 3]], 1)), /reads a value that does not exist/);
    refused(one(op('a', [-1], 1)), /reads a value that does not exist/);
    refused({ nodes: [constant, op('a', [0], 1)], outputs: [[1, 4]] }, /outputs name a value/);
    refused(one(view('a', 1, { inputs: [] })), /is an alias of a value that does not exist/);
  });

  test('numbers', () => {
    for (const bytes of [-1, 0.5, Number.NaN, 2 ** 60])
      refused(one(op('a', [0], bytes)), /bytes of node 1 \('a'\) are not whole numbers/);
    for (const costNs of [-1, Number.NaN, Number.POSITIVE_INFINITY])
      refused(one(op('a', [0], 1, { costNs })), /cost of node 1 \('a'\) is not a time/);
    assert.throws(
      () => planGraph(chain(2), { budgetBytes: Number.NaN }),
      /the budget is no amount of memory \(got NaN\)/,
    );
  });
});

describe('unusual graphs', () => {
  const planned = (graph: PlanGraph, budgetBytes: number): Plan => {
    const plan = checked(new Planner(graph), graph, budgetBytes);
    assert.ok(plan);
    return plan;
  };

  test('nothing at all', () => {
    assert.deepEqual(planned({ nodes: [], outputs: [] }, 0).schedule, []);
    assert.equal(planned({ nodes: [constant], outputs: [[0, 0]] }, 0).peakBytes, 0);
  });

  test('dead code, several outputs, results that are inputs and views of inputs', () => {
    const graph: PlanGraph = {
      nodes: [
        constant,
        view('shown', 0),
        op('split', [1], [30, 70]),
        op('dead', [[2, 1]], 40),
        op('sum', [[2, 0]], 20),
        view('flat', 4),
        view('flatter', 5),
      ],
      outputs: [
        [0, 0],
        [1, 0],
        [6, 0],
      ],
    };
    assert.equal(planned(graph, 140).peakBytes, 140);
    assert.equal(smallestFeasible(graph).bytes, 110);
  });

  test('no backward: a value read at both ends is made again', () => {
    const nodes = [
      constant,
      op('a', [0], 100),
      op('b', [1], 10),
      op('c', [2], 150),
      op('d', [1, 3], 10),
    ];
    const graph: PlanGraph = { nodes, outputs: [[4, 0]] };
    assert.equal(smallestFeasible(graph).bytes, 260);
    const long: PlanGraph = {
      nodes: [...nodes.slice(0, 4), op('e', [3], 10), op('f', [1, 4], 10)],
      outputs: [[5, 0]],
    };
    assert.equal(planned(long, 170).extraNs, 10);
  });

  test('phases in any order', () => {
    const { nodes, outputs } = chain(6);
    const mixed = nodes.map(
      (node, i): PlanNode => ({
        ...node,
        phase: i % 2 === 0 ? 'forward' : 'backward',
      }),
    );
    planned({ nodes: mixed, outputs }, 500);
  });

  test('ops without cost are free to run again', () => {
    const graph = chain(8, 100, 0);
    const { extraNs, gap, baseNs } = planned(graph, smallestFeasible(graph).bytes);
    assert.deepEqual([extraNs, gap, baseNs], [0, 0, 0]);
  });

  test('an op that writes into what it was given runs once, and so does what made that', () => {
    const write = op('write', [1], 0, { outputs: [{ bytes: 0, alias: [1, 0] }] });
    const graph: PlanGraph = {
      nodes: [
        constant,
        op('buffer', [0], 100),
        {
          ...write,
          inputs: [
            [1, 0],
            [0, 0],
          ],
        },
        op('wide', [0], 200),
        op('narrow', [3], 10),
        op(
          'end',
          [
            [2, 0],
            [4, 0],
          ],
          10,
        ),
      ],
      outputs: [[5, 0]],
    };
    assert.equal(smallestFeasible(graph).bytes, 310);
    planned(graph, 310);
  });

  test('a value of many gigabytes', () => {
    const graph = chain(6, 3 * 2 ** 40);
    assert.ok(planned(graph, 5 * 3 * 2 ** 40).extraNs > 0);
  });
});

test('where little counts but hard work, plans have less of it, and the bound is about what counts', () => {
  const graph = tracedGraph('llama-tiny-2L-aten');
  const budgetBytes = 15_280_128;
  const all = planGraph(graph, { budgetBytes });
  const hard = planGraph(graph, { budgetBytes, softShare: 0.02 });
  const counted = 0.98 * hard.extraHardNs + 0.02 * hard.extraNs;
  assert.ok(hard.extraHardNs < all.extraHardNs, `${hard.extraHardNs} of ${all.extraHardNs}`);
  assert.ok(hard.extraNs > all.extraNs);
  assert.ok(hard.lowerBoundNs <= counted + 1e-6);
  assert.ok(simulate(graph, hard.schedule).peakBytes <= budgetBytes);
  for (const softShare of [0, -1, 2, Number.NaN]) {
    assert.throws(() => new Planner(graph, { softShare }), /softShare is no share/);
  }
});

describe('a traced training step', () => {
  const graph = tracedGraph('llama-tiny-2L-aten');

  test('smallest budget, and the error below it', () => {
    const { bytes, lowerBoundBytes, node } = smallestFeasible(graph);
    const planner = new Planner(graph);
    assert.ok(checked(planner, graph, bytes));
    assert.throws(
      () => planGraph(graph, { budgetBytes: lowerBoundBytes - 1 }),
      (error) =>
        error instanceof InfeasibleBudgetError &&
        error.message.includes(`'${graph.nodes[node]?.label}' alone needs`) &&
        error.message.includes(`Give at least ${bytes} bytes`),
    );
  });

  test('a frontier is what single plans are, and never slower with more memory', () => {
    const frontier = planFrontier(graph);
    assert.equal(frontier.points.length, 20);
    let last = Number.POSITIVE_INFINITY;
    for (const { budgetBytes, plan } of frontier.points) {
      assert.ok(plan);
      assert.ok(plan.extraNs <= last);
      last = plan.extraNs;
      assert.ok(simulate(graph, plan.schedule).peakBytes <= budgetBytes);
    }
    assert.equal(last, 0);
    const some = frontier.points[10];
    const single = planGraph(graph, { budgetBytes: some?.budgetBytes ?? 0 });
    assert.deepEqual(single.schedule, some?.plan?.schedule);
  });

  test('gaps are small', () => {
    for (const name of ['llama-tiny-2L-aten', 'llama-tiny-2L-inductor'] as const) {
      const traced = tracedGraph(name);
      const planner = new Planner(traced);
      for (let percent = 50; percent <= 100; percent += 5) {
        const plan = checked(planner, traced, Math.floor((planner.base.peak * percent) / 100));
        assert.ok(plan && plan.gap <= 0.004, `${name} at ${percent} %: gap ${plan?.gap}`);
      }
    }
  });
});
