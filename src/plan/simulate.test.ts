import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chain, constant, op, tracedGraph, view } from '../../test/support/plan-graphs.ts';
import type { PlanGraph, Step } from './graph.ts';
import { baseSchedule, simulate } from './simulate.ts';

/** a (100) -> b (40, workspace 5) -> c (10); c also reads a. */
const small: PlanGraph = {
  nodes: [
    constant,
    op('a', [0], 100, { costNs: 7, hard: true }),
    op('b', [1], 40, { costNs: 3, workspaceBytes: 5 }),
    op('c', [1, 2], 10, { costNs: 1 }),
  ],
  outputs: [[3, 0]],
};

test('outputs are allocated while inputs and workspace are there; constants are not counted', () => {
  const { peakBytes, peakAt, baseNs, extraNs, aliveAtPeak } = simulate(small, baseSchedule(small));
  assert.deepEqual([peakBytes, baseNs, extraNs], [150, 11, 0]);
  assert.deepEqual(baseSchedule(small)[peakAt], ['run', 3]);
  assert.deepEqual(
    aliveAtPeak.map(({ value, bytes }) => [...value, bytes]),
    [
      [1, 0, 100],
      [2, 0, 40],
      [3, 0, 10],
    ],
  );
});

test('a second run costs its time, and memory that was freed is taken again', () => {
  const schedule: Step[] = [
    ['run', 1],
    ['run', 2],
    ['free', 1, 0],
    ['free', 2, 0],
    ['run', 1],
    ['run', 2],
    ['run', 3],
  ];
  const { peakBytes, extraNs, extraHardNs } = simulate(small, schedule);
  assert.deepEqual([peakBytes, extraNs, extraHardNs], [150, 10, 7]);
});

test('workspace counts during its op alone', () => {
  const alone: PlanGraph = {
    nodes: [op('a', [], 100, { workspaceBytes: 30 }), op('b', [0], 20)],
    outputs: [[1, 0]],
  };
  assert.equal(simulate(alone, baseSchedule(alone)).peakBytes, 130);
});

test('schedules that cannot run are refused with the place', () => {
  const refused = (graph: PlanGraph, schedule: Step[], text: RegExp) =>
    assert.throws(() => simulate(graph, schedule), text);
  refused(
    small,
    [['run', 2]],
    /step 0 \('b'\) needs a value that is not resident \(got 1:0, 'a'\)/,
  );
  refused(small, [['run', 0]], /step 0 names no op/);
  refused(small, [['run', 9]], /step 0 names no op/);
  refused(small, [['free', 1, 0]], /step 0 frees a value that is not resident/);
  refused(small, [['run', 1]], /the end needs a value/);
  const twice: Step[] = [
    ['run', 1],
    ['free', 1, 0],
    ['run', 1],
  ];
  const ordered = (node: object): PlanGraph => ({
    nodes: [constant, op('a', [0], 10, node)],
    outputs: [[1, 0]],
  });
  refused(ordered({ recompute: false }), twice, /step 2 runs a node again that must run once/);
  refused(ordered({ keep: true }), twice, /step 2 runs a node again that must run once/);
});

test('a value that must be dropped is not resident when backward begins', () => {
  const { nodes, outputs } = chain(2);
  const graph = { nodes: nodes.map((n, i) => (i === 1 ? { ...n, drop: true } : n)), outputs };
  const ids = baseSchedule(chain(2));
  assert.throws(() => simulate(graph, ids), /must be dropped .*\(got 1:0, 'f1'\)/);
  const again: Step[] = [
    ['run', 1],
    ['run', 2],
    ['free', 1, 0],
    ['run', 1],
    ['run', 3],
    ['free', 1, 0],
    ['run', 4],
  ];
  assert.equal(simulate(graph, again).extraNs, 10);
});

test('views and aliases of aliases have no bytes and need what they show', () => {
  const graph: PlanGraph = {
    nodes: [
      constant,
      op('a', [0], 50),
      view('v', 1),
      view('w', 2),
      op('b', [3], 10),
      op('c', [4], 10),
    ],
    outputs: [[5, 0]],
  };
  assert.equal(simulate(graph, baseSchedule(graph)).peakBytes, 60);
  const early: Step[] = [
    ['run', 1],
    ['free', 1, 0],
    ['run', 4],
  ];
  assert.throws(() => simulate(graph, early), /needs a value that is not resident \(got 1:0/);
});

test('the order of a traced step has the peak an independent checker finds', () => {
  assert.equal(
    simulate(tracedGraph('llama-tiny-2L-aten'), baseSchedule(tracedGraph('llama-tiny-2L-aten')))
      .peakBytes,
    19_310_596,
  );
});
