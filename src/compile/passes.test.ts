/** Each pass by itself, as the text of the graph before and after it. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { grad } from '../autograd/backward.ts';
import { checkpoint } from '../checkpoint/checkpoint.ts';
import type { Graph } from '../ir/graph.ts';
import { printGraph } from '../ir/print.ts';
import '../ops/methods.ts';
import { add, mul } from '../ops/arithmetic.ts';
import { sum } from '../ops/broadcast.ts';
import { addInPlace } from '../ops/in-place.ts';
import { matmul } from '../ops/matmul/matmul.ts';
import { exp, sin } from '../ops/unary.ts';
import { transpose } from '../ops/views.ts';
import { noGrad, withPhase } from '../tensor/context.ts';
import { tensor } from '../tensor/factory.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { checkLiveBytes } from '../../test/support/backend.ts';
import { fuse } from './fuse.ts';
import { place } from './place.ts';
import { hasRegions, readSavedValues, rematerializeRegions } from './rematerialize.ts';
import { scheduleGraph } from './schedule.ts';
import { mergeCommonSubexpressions, removeDeadCode } from './simplify.ts';
import { trace } from './trace.ts';

checkLiveBytes();

/** The graph of `step` on arguments of these shapes; `w` is captured state of shape [2, 2]. */
function graphOf(
  shapes: readonly (readonly number[])[],
  step: (...args: Tensor[]) => unknown,
): Graph {
  const args = shapes.map((shape) => {
    const count = shape.reduce((a, b) => a * b, 1);
    return tensor(new Float32Array(count), { shape });
  });
  const { graph } = trace(step, args);
  for (const arg of args) arg.dispose();
  return graph;
}

/** Lines of the print, without types and params. */
function lines(graph: Graph): string[] {
  return printGraph(graph)
    .split('\n')
    .map((line) => line.replace(/: \w+\[[^\]]*\]/, '').replace(/ \{.*\}/, ''));
}

function labelled(label: string, requiresGrad = false): Tensor {
  const made = tensor(new Float32Array(4), { shape: [2, 2], requiresGrad });
  made.label = label;
  return made;
}

test('what nobody reads goes; inputs, state and updates stay', () => {
  scope(() => {
    const w = labelled('w');
    const graph = graphOf([[2, 2], [2]], (x) => {
      exp(sin(x as Tensor));
      noGrad(() => addInPlace(w, mul(x as Tensor, 2)));
    });
    assert.equal(graph.nodes.length, 7);
    assert.deepEqual(lines(removeDeadCode(graph)), [
      "%0 = input 'arg0'",
      "%1 = input 'arg1'",
      '%2 = mulScalar(%0)',
      "%3 = state 'w'",
      '%4 = addInPlace(%3, %2)',
      'return ',
      'w := %4',
    ]);
  });
});

test('equal nodes are merged within one phase and region; updates never are', () => {
  scope(() => {
    const w = labelled('w');
    const graph = graphOf([[2, 2]], (arg) => {
      const x = arg as Tensor;
      const same = add(mul(x, 2), mul(x, 2));
      const other = add(
        mul(x, 3),
        withPhase('backward', () => mul(x, 2)),
      );
      noGrad(() => addInPlace(addInPlace(w, x), x));
      return [same, other];
    });
    assert.deepEqual(lines(mergeCommonSubexpressions(graph)), [
      "%0 = input 'arg0'",
      '%1 = mulScalar(%0)',
      '%2 = add(%1, %1)',
      '%3 = mulScalar(%0)',
      '%4 = mulScalar(%0)',
      '%5 = add(%3, %4)',
      "%6 = state 'w'",
      '%7 = addInPlace(%6, %0)',
      '%8 = addInPlace(%7, %0)',
      'return %2, %5',
      'w := %8',
    ]);
  });
});

test('an update runs as early as it may, after the readers of its target, through views too', () => {
  scope(() => {
    const w = labelled('w');
    const graph = graphOf([[2, 2]], (arg) => {
      const x = arg as Tensor;
      const turned = transpose(w);
      const gradient = mul(x, x);
      const read = matmul(turned, gradient);
      const later = exp(read);
      withPhase('optimizer', () => noGrad(() => addInPlace(w, gradient)));
      return later;
    });
    assert.deepEqual(lines(scheduleGraph(graph)), [
      "%0 = input 'arg0'",
      "%1 = state 'w'",
      '%2 = permute(%1)',
      '%3 = mul(%0, %0)',
      '%4 = matmul(%2, %3)',
      '%5 = addInPlace(%1, %3)',
      '%6 = exp(%4)',
      'return %6',
      'w := %5',
    ]);
  });
});

test('views wait for their first reader', () => {
  const graph = graphOf([[2, 2]], (arg) => {
    const turned = transpose(arg as Tensor);
    const slow = exp(sin(arg as Tensor));
    return add(slow, turned);
  });
  const order = (of: Graph): string[] => of.nodes.map((node) => node.op?.name ?? node.kind);
  assert.deepEqual(order(graph), ['input', 'permute', 'sin', 'exp', 'add']);
  assert.deepEqual(order(scheduleGraph(graph)), ['input', 'sin', 'exp', 'permute', 'add']);
});

test('regions are computed again where backward reads them; nested ones as part of the outer', () => {
  scope(() => {
    const p = labelled('p', true);
    const graph = graphOf([[2, 2]], (x) => {
      const inner = (z: Tensor): Tensor => exp(sin(z));
      const outer = (y: Tensor): Tensor => sin(checkpoint(inner, [mul(y, p)]));
      const out = checkpoint(outer, [x as Tensor]);
      return [...grad(sum(out), [p]), out];
    });
    assert.ok(hasRegions(graph));
    const again = rematerializeRegions(graph);
    const copies = again.nodes.filter((node) => node.meta.recomputeOf !== undefined);
    assert.deepEqual(
      copies.map((node) => [
        node.op?.name,
        again.nodes[node.meta.recomputeOf ?? -1]?.op?.name,
        node.meta.phase,
      ]),
      [
        ['mul', 'mul', 'backward'],
        ['sin', 'sin', 'backward'],
        ['exp', 'exp', 'backward'],
      ],
    );
    // The last sin is an output that nothing in backward reads: it is computed once.
    const count = (of: Graph, name: string): number =>
      of.nodes.filter((node) => node.op?.name === name).length;
    assert.equal(count(again, 'sin'), 3);
    assert.equal(count(again, 'savedRead'), 0);
    const kept = readSavedValues(graph);
    assert.deepEqual([count(kept, 'mul'), count(kept, 'savedRead')], [1, 0]);
    assert.ok(!hasRegions(again) && !hasRegions(kept));
  });
});

test('pointwise chains and their reduction become one kernel; nothing inside it is stored', () => {
  const graph = graphOf([[4, 8]], (arg) => {
    const x = arg as Tensor;
    return sum(mul(exp(sin(x)), x), -1);
  });
  const kernels = (enabled: boolean): string[] =>
    fuse(graph, { enabled }).flatMap((step) =>
      step.kind === 'kernel'
        ? [
            `${step.group.nodes.map((node) => node.op?.name).join('+')}: ${step.group.outputs.length}`,
          ]
        : [],
    );
  assert.deepEqual(kernels(true), ['sin+exp+mul+sum: 1']);
  assert.deepEqual(kernels(false), ['sin: 1', 'exp: 1', 'mul: 1', 'sum: 1']);
});

test('an update does not join a kernel that, or before one that, reads its target through a view', () => {
  scope(() => {
    const w = labelled('w');
    const graph = graphOf([[2, 2]], (arg) => {
      const turned = mul(transpose(w), 10);
      noGrad(() => addInPlace(w, turned));
      return arg;
    });
    const groups = fuse(graph, { enabled: true }).flatMap((step) =>
      step.kind === 'kernel' ? [step.group.nodes.map((node) => node.op?.name)] : [],
    );
    assert.deepEqual(groups, [['mulScalar'], ['addInPlace']]);
  });
});

test('a value that dies gives its memory to the output; one that is read later does not', () => {
  const buffers = (step: (x: Tensor) => unknown): string[] => {
    const graph = graphOf([[4, 8]], (x) => step(x as Tensor));
    const placed = place(graph, fuse(graph, { enabled: false }));
    return placed.steps.map(
      ({ label, operands }) =>
        `${label} ${operands.map(({ buffer }) => `${buffer.kind}${buffer.id}`).join(' ')}`,
    );
  };
  assert.deepEqual(
    buffers((x) => exp(sin(exp(x)))),
    ['exp input0 result1', 'sin result1 result1', 'exp result1 result1'],
  );
  assert.deepEqual(
    buffers((x) => {
      const a = exp(x);
      return add(sin(a), a);
    }),
    ['exp input0 arena1', 'sin arena1 result2', 'add result2 arena1 result2'],
  );
  // A result is never the caller's own memory, nor a view of another result.
  assert.deepEqual(
    buffers((x) => [x, transpose(x)]),
    ['copy input0 result1', 'copy input0 result2'],
  );
});

test('an in-place op works in its target, but on a copy of an argument', () => {
  const labels = (ofArgument: boolean): string[] => {
    const graph = graphOf([[4, 8]], (x) => {
      const target = ofArgument ? (x as Tensor) : exp(x as Tensor);
      return noGrad(() => sin(addInPlace(target, 1)));
    });
    return place(graph, fuse(graph, { enabled: false })).steps.map((step) => step.label);
  };
  assert.deepEqual(labels(true), ['copy', 'addScalarInPlace', 'sin']);
  assert.deepEqual(labels(false), ['exp', 'addScalarInPlace', 'sin']);
});
