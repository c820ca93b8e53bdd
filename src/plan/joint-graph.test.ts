import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tracedJson } from '../../test/support/plan-graphs.ts';
import { ArgumentError } from '../core/errors.ts';
import { readJointGraph } from './joint-graph.ts';

const input = { id: 0, name: 'x', op: 'placeholder', kind: 'input', phase: 'fwd', in: [] };
const node = { id: 1, name: 'mm_1', op: 'aten.mm', kind: 'op', phase: 'bwd', in: [[0, 0]] };
const graph = (change: object = {}) => ({
  outputs: [[1, 0]],
  nodes: [
    { ...input, out: [{ bytes: 8 }] },
    { ...node, out: [{ bytes: 16 }, { bytes: 0, alias: [0, 0] }], est_ns: 2.5, ...change },
  ],
});

test('nodes, views, phases and costs are read', () => {
  const { nodes, outputs } = readJointGraph(graph());
  assert.deepEqual(outputs, [[1, 0]]);
  assert.equal(nodes[0]?.kind, 'constant');
  assert.deepEqual(nodes[1], {
    kind: 'op',
    phase: 'backward',
    inputs: [[0, 0]],
    outputs: [{ bytes: 16 }, { bytes: 0, alias: [0, 0] }],
    costNs: 2.5,
    hard: true,
    label: 'mm_1',
    op: 'aten.mm',
  });
});

test('matrix products and attention of a traced step are hard, pointwise ops are not', () => {
  const { nodes } = readJointGraph(tracedJson('llama-tiny-2L-aten'));
  assert.equal(nodes.length, 501);
  const hard = new Set(nodes.filter((each) => each.hard).map((each) => each.op));
  assert.ok([...hard].every((name) => /mm|attention/.test(name ?? '')));
  assert.ok(nodes.some((each) => each.op?.includes('mul') && !each.hard));
});

test('what is not of the form is named', () => {
  const refused = (json: unknown, text: RegExp) =>
    assert.throws(
      () => readJointGraph(json),
      (error) => error instanceof ArgumentError && text.test(error.message),
    );
  refused(null, /the document is not as joint-graph-v1 has it \(got null\)\. Give an object/);
  refused([], /the document .* Give an object/);
  refused({}, /nodes is not .* \(got nothing\)\. Give a list/);
  refused({ nodes: [] }, /outputs is not/);
  refused(graph({ kind: 'operation' }), /nodes\[1\]\.kind .*Give op, input or tangent/);
  refused(graph({ phase: 'backward' }), /nodes\[1\]\.phase .*Give fwd or bwd/);
  refused(graph({ id: 7 }), /nodes\[1\]\.id .*its place in the list/);
  refused(graph({ in: [[0]] }), /nodes\[1\]\.in\[0\]\[1\] .*Give a number/);
  refused(graph({ in: 'x' }), /nodes\[1\]\.in is not/);
  refused(graph({ out: [{ bytes: '8' }] }), /nodes\[1\]\.out\[0\]\.bytes/);
  refused(graph({ out: [{ bytes: 8, alias: 3 }] }), /nodes\[1\]\.out\[0\]\.alias/);
  refused(graph({ est_ns: 'fast' }), /nodes\[1\]\.est_ns/);
});
