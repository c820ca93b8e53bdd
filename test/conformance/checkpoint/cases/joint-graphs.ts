/** test/dynamo/test_activation_checkpointing.py: regions in one graph of forward and backward. */

import assert from 'node:assert/strict';
import {
  Generator,
  type Tensor,
  add,
  checkpoint,
  clone,
  compile,
  cos,
  dropout,
  gelu,
  grad,
  linear,
  matmul,
  mul,
  noGrad,
  registerHook,
  scope,
  sigmoid,
  sin,
  sum,
  transpose,
  uniform,
} from '../../../../src/index.ts';
import * as library from '../../../../src/index.ts';
import type { Graph } from '../../../../src/ir/graph.ts';
import { printGraph } from '../../../../src/ir/print.ts';
import { Linear, Module } from '../../../../src/nn/index.ts';
import { attachBackward } from '../../../../src/tensor/apply.ts';
import { type ConformanceCase, absent, both, holds, neither } from '../case.ts';
import {
  type Program,
  counts,
  listsOf,
  matrix,
  measure,
  square,
  valuesOf,
  vector,
} from '../measure.ts';

const mmSigmoid = (x: Tensor, y: Tensor): Tensor => sigmoid(matmul(x, y));

class MatrixModule extends Module<[x: Tensor], Tensor> {
  readonly linear = new Linear(4, 4);
  readonly activation: (x: Tensor) => Tensor;

  constructor(activation: (x: Tensor) => Tensor) {
    super();
    this.activation = activation;
  }

  forward(x: Tensor): Tensor {
    return this.activation(this.linear.call(x));
  }
}

/** The graph as traced, and after rematerialization. */
function tracedGraphs(step: (...args: Tensor[]) => unknown, args: Tensor[]): Graph[] {
  const graphs: Graph[] = [];
  const compiled = compile(step, {
    disable: ['planRegions'],
    inspect: (pass, graph) => {
      if (pass === 'mergeCommonSubexpressions' || pass === 'rematerializeRegions')
        graphs.push(graph);
    },
  });
  compiled.prepare(...args);
  compiled.dispose();
  return graphs;
}

const eagerGraph = 'Eager execution has no graph to look at.';
const dynamo =
  'A step is traced whole: there is no graph break, and what cannot be traced is an error that names the line.';

export const jointGraphCases: readonly ConformanceCase[] = [
  both(
    59,
    'test_tags_function',
    'sigmoid(mm): one mm in forward; one recomputed and two for gradients in backward.',
    (execution) => {
      const got = counts(execution, 'matmul', (x, y) =>
        sum(checkpoint(mmSigmoid, [x, y] as [Tensor, Tensor])),
      );
      assert.deepEqual(got, [1, 3]);
    },
  ),
  both(
    60,
    'test_tags_function_via_global_checkpoint',
    'The same when checkpoint is reached through another name.',
    (execution) => {
      const got = counts(execution, 'matmul', (x, y) =>
        sum(library.checkpoint(mmSigmoid, [x, y] as [Tensor, Tensor])),
      );
      assert.deepEqual(got, [1, 3]);
    },
  ),
  both(
    61,
    'test_tags_function_with_kwargs',
    'The same with a tensor in an options object.',
    (execution) => {
      const region = (x: Tensor, options: { readonly y: Tensor }): Tensor =>
        mmSigmoid(x, options.y);
      const got = counts(execution, 'matmul', (x, y) =>
        sum(checkpoint(region, [x, { y }] as [Tensor, { y: Tensor }])),
      );
      assert.deepEqual(got, [1, 3]);
    },
  ),
  {
    number: 62,
    torch: 'test_checkpoint_shows_tags_in_tlparse',
    claim: 'The printed graph shows which region a value belongs to.',
    eager: absent(eagerGraph),
    compiled: holds(() =>
      scope(() => {
        const step = (x?: Tensor, y?: Tensor) =>
          grad(sum(checkpoint(mmSigmoid, [x, y] as [Tensor, Tensor])), x as Tensor);
        const [graph] = tracedGraphs(step, square());
        assert.ok(graph);
        const line = printGraph(graph, { meta: true })
          .split('\n')
          .find((text) => text.includes('matmul'));
        assert.match(line ?? '', /regions \d/);
      }),
    ),
  },
  both(
    63,
    'test_ac_tags_through_custom_autograd_function',
    'An mm in the forward of a custom backward is recomputed with its region.',
    (execution) => {
      const custom = (x: Tensor, y: Tensor): Tensor => {
        const out = noGrad(() => matmul(x, y));
        const backward = ([g]: readonly (Tensor | undefined)[], [a, b]: readonly Tensor[]) => {
          assert.ok(g && a && b);
          return [matmul(g, transpose(b)), matmul(transpose(a), g)];
        };
        attachBackward({ name: 'customMatmul', backward }, [x, y], [out], [x, y]);
        return out;
      };
      const loss = (x?: Tensor, y?: Tensor): Tensor =>
        sum(
          checkpoint((a: Tensor, b: Tensor) => sigmoid(custom(a, b)), [x, y] as [Tensor, Tensor]),
        );
      assert.deepEqual(counts(execution, 'matmul', loss), [1, 3]);
    },
  ),
  {
    number: 65,
    torch: 'test_tangent_placeholders_have_is_backward_tag',
    claim: 'Every value of a graph says whether it belongs to forward or to backward.',
    eager: absent(eagerGraph),
    compiled: holds(() =>
      scope(() => {
        const step = (x?: Tensor, y?: Tensor) =>
          grad(sum(mmSigmoid(x as Tensor, y as Tensor)), x as Tensor);
        const [graph] = tracedGraphs(step, square());
        assert.ok(graph);
        const phases = graph.nodes.filter((node) => node.op).map((node) => node.meta.phase);
        const first = phases.indexOf('backward');
        assert.ok(first > 0);
        assert.ok(phases.slice(0, first).every((phase) => phase === 'forward'));
        assert.ok(phases.slice(first).every((phase) => phase === 'backward'));
      }),
    ),
  },
  both(
    66,
    'test_tags_sequential_layers',
    'Two regions in a row of a cosine, three mm and a cosine: 6 mm in forward, 18 in backward with 2 cosines.',
    (execution) => {
      const layer = (v: Tensor): Tensor => {
        let x = cos(v);
        for (let i = 0; i < 3; i++) x = matmul(x, x);
        return cos(x);
      };
      const loss = (x?: Tensor): Tensor =>
        sum(checkpoint(layer, [checkpoint(layer, [x as Tensor])]));
      const inputs = (): Tensor[] => [matrix(4, 4, 1)];
      assert.deepEqual(counts(execution, 'matmul', loss, inputs), [6, 18]);
      assert.deepEqual(counts(execution, 'cos', loss, inputs), [4, 2]);
    },
  ),
  both(
    67,
    'test_tags_multiple_checkpoints',
    'Two regions of one mm each: 2 in forward, 6 in backward.',
    (execution) => {
      const loss = (x?: Tensor, y?: Tensor): Tensor => {
        const once = checkpoint(mmSigmoid, [sin(x as Tensor), y as Tensor]);
        return sum(checkpoint(mmSigmoid, [once, y as Tensor]));
      };
      assert.deepEqual(counts(execution, 'matmul', loss), [2, 6]);
    },
  ),
  both(
    68,
    'test_tags_module',
    'A module as a region: its sigmoid runs once in forward and once in backward.',
    (execution) => {
      const module = new MatrixModule(sigmoid);
      try {
        const loss = (x?: Tensor): Tensor =>
          sum(checkpoint((v: Tensor) => module.call(v), [x as Tensor]));
        assert.deepEqual(counts(execution, 'sigmoid', loss), [1, 1]);
      } finally {
        module.dispose();
      }
    },
  ),
  both(
    69,
    'test_tags_decomps',
    'gelu in a region: its input is recomputed; gelu itself is one op, and its backward one more.',
    (execution) => {
      const module = new MatrixModule(gelu);
      try {
        const loss = (x?: Tensor): Tensor =>
          sum(checkpoint((v: Tensor) => module.call(v), [x as Tensor]));
        assert.deepEqual(counts(execution, 'gelu', loss), [1, 0]);
        assert.deepEqual(counts(execution, 'geluBackward', loss), [0, 1]);
        const [forward, backward] = counts(execution, 'linear', loss);
        assert.deepEqual([forward, backward > 0], [1, true]);
      } finally {
        module.dispose();
      }
    },
  ),
  both(
    70,
    'test_tags_recomputed_rand',
    'Draws in two regions: values and gradients equal those of the plain run.',
    (execution) =>
      scope(() => {
        const run = (wrap: boolean): number[][] => {
          const generator = new Generator(5);
          const region = (x: Tensor, y: Tensor): Tensor => {
            const noise = uniform(x.shape, { generator });
            return add(sigmoid(mul(matmul(x, y), noise)), noise);
          };
          const step = (x: Tensor, y: Tensor) => {
            const once = wrap ? checkpoint(region, [sin(x), y]) : region(sin(x), y);
            const twice = wrap ? checkpoint(region, [once, y]) : region(once, y);
            return [twice, ...grad(sum(twice), [x, y])];
          };
          return valuesOf(execution, step, ...(square() as [Tensor, Tensor]));
        };
        assert.deepEqual(run(true), run(false));
      }),
  ),
  both(
    71,
    'test_tags_rand',
    'An mm region beside draws outside it equals the plain run.',
    (execution) =>
      scope(() => {
        const run = (wrap: boolean): number[][] => {
          const generator = new Generator(5);
          const region = (x: Tensor, y: Tensor): Tensor => matmul(matmul(x, y), y);
          const step = (x: Tensor, y: Tensor) => {
            const noisy = mul(x, uniform(x.shape, { generator }));
            const out = wrap ? checkpoint(region, [noisy, y]) : region(noisy, y);
            return [out, ...grad(sum(sin(out)), [x, y])];
          };
          return valuesOf(execution, step, ...(square() as [Tensor, Tensor]));
        };
        assert.deepEqual(run(true), run(false));
      }),
  ),
  both(72, 'test_tags_dropout', 'Dropout in a region equals the plain run.', (execution) =>
    scope(() => {
      const run = (wrap: boolean): number[][] => {
        const generator = new Generator(5);
        const region = (x: Tensor, y: Tensor): Tensor => dropout(linear(x, y), 0.2, { generator });
        const step = (x: Tensor, y: Tensor) => {
          const out = wrap ? checkpoint(region, [x, y]) : region(x, y);
          return [out, ...grad(sum(sin(out)), [x, y])];
        };
        return valuesOf(execution, step, ...(square() as [Tensor, Tensor]));
      };
      assert.deepEqual(run(true), run(false));
    }),
  ),
  both(
    73,
    'test_tags_must_save_tensor_that_has_backward_hook',
    "A hook on a region's output is given its gradient; nothing more than without it is saved (PyTorch has to save one tensor).",
    (execution) => {
      const program = (hook: boolean): Program => ({
        inputs: square,
        loss: (x, y) => {
          const region = (a: Tensor, b: Tensor): Tensor => mul(sigmoid(matmul(a, b)), 2);
          const out = checkpoint(region, [sin(x as Tensor), y as Tensor]);
          if (hook) registerHook(out, (g) => mul(g, 1));
          return sum(sin(out));
        },
      });
      const [plain, hooked] = [
        measure(execution, program(false)),
        measure(execution, program(true)),
      ];
      assert.deepEqual(hooked.gradients, plain.gradients);
      assert.equal(hooked.savedBytes, plain.savedBytes);
    },
  ),
  neither(74, 'test_fallback', dynamo),
  {
    number: 75,
    torch: 'test_kwargs',
    claim: 'Tensors in an options object are arguments of the graph like any other.',
    eager: absent(eagerGraph),
    compiled: holds(() =>
      scope(() => {
        const compiled = compile((x: Tensor, options: { readonly y: Tensor; readonly z: Tensor }) =>
          sum(checkpoint((v: Tensor) => matmul(mul(v, options.z), options.y), [x])),
        );
        const [y, z] = square() as [Tensor, Tensor];
        compiled(matrix(4, 4, 3), { y, z });
        const nodes = compiled.plans[0]?.plan.graph.nodes ?? [];
        assert.equal(nodes.filter((node) => node.kind === 'input').length, 3);
        compiled.dispose();
      }),
    ),
  },
  {
    number: 76,
    torch: 'test_symints_location',
    claim: 'Another shape of the argument gets a plan of its own, with the right values.',
    eager: absent(eagerGraph),
    compiled: holds(() =>
      scope(() => {
        const step = (x: Tensor) => grad(sum(checkpoint((v: Tensor) => sigmoid(sin(v)), [x])), x);
        const compiled = compile(step);
        for (const length of [4, 6]) {
          const x = vector(length, 1);
          assert.deepEqual(listsOf(compiled(x)), listsOf(step(x)));
        }
        assert.equal(compiled.plans.length, 2);
        compiled.dispose();
      }),
    ),
  },
  both(93, 'test_list_inputs', 'Lists of tensors go in and out of a region.', (execution) =>
    scope(() => {
      const region = (x: Tensor, ys: readonly Tensor[]): Tensor[] =>
        ys.map((y) => sin(matmul(x, y)));
      const step = (wrap: boolean) => (x: Tensor, y: Tensor) => {
        const args: [Tensor, Tensor[]] = [sin(x), [y, cos(y)]];
        const [a, b] = wrap ? checkpoint(region, args) : region(...args);
        return grad(sum(mul(a as Tensor, b as Tensor)), [x, y]);
      };
      const args = square() as [Tensor, Tensor];
      assert.deepEqual(
        valuesOf(execution, step(true), ...args),
        valuesOf(execution, step(false), ...args),
      );
    }),
  ),
  both(97, 'test_return_same_element_twice', 'A region may return one tensor twice.', (execution) =>
    scope(() => {
      const region = (x: Tensor): [Tensor, Tensor] => {
        const y = sin(x);
        return [y, y];
      };
      const step = (wrap: boolean) => (x: Tensor) => {
        const [a, b] = wrap ? checkpoint(region, [x]) : region(x);
        assert.equal(a, b);
        return grad(sum(mul(a, b)), x);
      };
      const x = vector(4, 1);
      assert.deepEqual(valuesOf(execution, step(true), x), valuesOf(execution, step(false), x));
    }),
  ),
  {
    number: 98,
    torch: 'test_nonlocal_mutation',
    claim:
      'A counter that a region advances is at 2 after an eager backward and at 1 after a compiled step.',
    eager: holds(() => assert.equal(counterAfterStep('eager'), 2)),
    compiled: holds(() => assert.equal(counterAfterStep('compiled'), 1)),
  },
  both(
    101,
    'test_frozen_dataclass_pytree_output',
    'A frozen object of tensors goes in and out of a region.',
    (execution) =>
      scope(() => {
        interface Pair {
          readonly a: Tensor;
          readonly b: Tensor;
        }
        const region = ({ a, b }: Pair): Pair => Object.freeze({ a: sin(mul(a, b)), b: cos(b) });
        const step = (wrap: boolean) => (x: Tensor, y: Tensor) => {
          const pair = Object.freeze({ a: x, b: y });
          const { a, b } = wrap ? checkpoint(region, [pair]) : region(pair);
          return grad(sum(mul(a, b)), [x, y]);
        };
        const args = square() as [Tensor, Tensor];
        assert.deepEqual(
          valuesOf(execution, step(true), ...args),
          valuesOf(execution, step(false), ...args),
        );
      }),
  ),
  both(
    104,
    'test_ac_rematerialize_simple_forward_backward',
    'Forward, loss and backward in one: a region takes mm from 3 to 4 and sigmoid from 1 to 2, with equal gradients.',
    (execution) => {
      const program = (wrap: boolean): Program => ({
        inputs: square,
        loss: (x, y) => {
          const args: [Tensor, Tensor] = [x as Tensor, y as Tensor];
          return sum(wrap ? checkpoint(mmSigmoid, args) : mmSigmoid(...args));
        },
      });
      const [plain, region] = [
        measure(execution, program(false)),
        measure(execution, program(true)),
      ];
      const total = ({ forward, backward }: typeof plain, op: string): number =>
        forward.count(op) + backward.count(op);
      assert.deepEqual([total(plain, 'matmul'), total(region, 'matmul')], [3, 4]);
      assert.deepEqual([total(plain, 'sigmoid'), total(region, 'sigmoid')], [1, 2]);
      assert.deepEqual(region.gradients, plain.gradients);
      assert.deepEqual(region.loss, plain.loss);
    },
  ),
  both(
    105,
    'test_ac_rematerialize_with_rng_ops_raises_error',
    'Where PyTorch refuses random ops in a region of such a graph, they are replayed: bitwise the plain gradients.',
    (execution) =>
      scope(() => {
        const run = (wrap: boolean): number[][] => {
          const generator = new Generator(9);
          const region = (x: Tensor, y: Tensor): Tensor =>
            sigmoid(dropout(matmul(x, y), 0.5, { generator }));
          const step = (x: Tensor, y: Tensor) =>
            grad(sum(wrap ? checkpoint(region, [x, y]) : region(x, y)), [x, y]);
          return valuesOf(execution, step, ...(square() as [Tensor, Tensor]));
        };
        assert.deepEqual(run(true), run(false));
      }),
  ),
  {
    number: 106,
    torch: 'test_ac_rematerialize_with_no_annotations_returns_unchanged',
    claim: 'Without regions rematerialization leaves the graph as it is.',
    eager: absent(eagerGraph),
    compiled: holds(() =>
      scope(() => {
        const step = (x?: Tensor, y?: Tensor) =>
          grad(sum(mmSigmoid(x as Tensor, y as Tensor)), x as Tensor);
        const [before, after] = tracedGraphs(step, square());
        assert.ok(before && after);
        assert.equal(printGraph(after), printGraph(before));
      }),
    ),
  },
];

function counterAfterStep(execution: 'eager' | 'compiled'): number {
  return scope(() => {
    let counter = 0;
    const region = (x: Tensor): Tensor => {
      counter++;
      return clone(sin(sin(x)));
    };
    const step = (x: Tensor) => grad(sum(checkpoint(region, [x])), x);
    const x = vector(4, 1);
    if (execution === 'eager') step(x);
    else {
      const compiled = compile(step);
      compiled(x);
      compiled.dispose();
    }
    return counter;
  });
}
