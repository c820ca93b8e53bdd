/** test/test_autograd.py, class TestAutograd: one region, its backward, its errors. */

import assert from 'node:assert/strict';
import {
  type CheckpointOptions,
  type Tensor,
  add,
  backward,
  checkpoint,
  exp,
  grad,
  matmul,
  mul,
  noGrad,
  recomputeGroup,
  registerHook,
  scope,
  setCheckpointDebug,
  sin,
  sum,
  tanh,
  tensor,
  withSavedTensorHooks,
} from '../../../../src/index.ts';
import { CheckpointError } from '../../../../src/core/errors.ts';
import { attachBackward } from '../../../../src/tensor/apply.ts';
import { fromHost, toHost } from '../../../../src/tensor/factory.ts';
import { type ConformanceCase, absent, both, holds } from '../case.ts';
import { listsOf, matrix, measure, valuesOf, vector } from '../measure.ts';

const once =
  'A step is traced once and its recompute is a copy of traced ops: two runs cannot differ.';

const chain = (x: Tensor): Tensor => sin(exp(mul(sin(x), x)));

/** Two layers with parameters of their own, as PyTorch's MyModule of these tests. */
function perceptron(x: Tensor, [a, b]: readonly Tensor[]): Tensor {
  assert.ok(a && b);
  return matmul(tanh(matmul(x, a)), b);
}

function weights(): Tensor[] {
  return [matrix(10, 8, 1), matrix(8, 4, 2)];
}

/** The error of a backward whose recompute runs `again` where forward ran `first`. */
function mismatch(
  first: (x: Tensor) => Tensor,
  again: (x: Tensor) => Tensor,
  options: CheckpointOptions = {},
): unknown {
  return scope(() => {
    let calls = 0;
    const x = vector(4, 1);
    const y = checkpoint((v: Tensor) => (calls++ === 0 ? first(v) : again(v)), [x], options);
    try {
      backward(sum(y));
    } catch (error) {
      return error;
    }
    return undefined;
  });
}

function isMismatch(error: unknown, text: RegExp): void {
  assert.ok(error instanceof CheckpointError, String(error));
  assert.match(error.message, text);
}

export const regionCases: readonly ConformanceCase[] = [
  {
    number: 9,
    torch: 'test_checkpoint_graph_execution_group',
    claim:
      'Disjoint backwards recompute once each, inside a group once together; overlapping ones are an error.',
    eager: holds(() =>
      scope(() => {
        let calls = 0;
        const region = (a: Tensor, b: Tensor): Tensor[] => {
          calls++;
          return [exp(sin(a)), exp(sin(b))];
        };
        const run = (grouped: boolean): number => {
          calls = 0;
          const [a, b] = [vector(3, 1), vector(3, 2)];
          const [p, q] = checkpoint(region, [a, b], { earlyStop: false });
          assert.ok(p && q);
          const apart = (): void => {
            grad(sum(p), a, { retainGraph: true });
            grad(sum(q), b, { retainGraph: true });
          };
          if (grouped) recomputeGroup(apart);
          else apart();
          return calls;
        };
        assert.equal(run(false), 3);
        assert.equal(run(true), 2);
        const x = vector(3, 1);
        const y = sum(checkpoint(chain, [x]));
        const overlapping = (): void => {
          grad(y, x, { retainGraph: true });
          grad(y, x, { retainGraph: true });
        };
        assert.throws(
          () => recomputeGroup(overlapping),
          /Performing two backward calls that overlap/,
        );
      }),
    ),
    compiled: holds((execution) => {
      // In a traced step every backward shares one copy of what it needs, as if all were in a group.
      const counts = measure(execution, {
        inputs: () => [vector(3, 1), vector(3, 2)],
        loss: (a, b) => {
          const [p, q] = checkpoint((v: Tensor, w: Tensor) => [exp(sin(v)), exp(sin(w))], [
            a,
            b,
          ] as [Tensor, Tensor]);
          assert.ok(p && q);
          const [g] = grad(sum(p), a as Tensor, { retainGraph: true });
          const [h] = grad(sum(q), b as Tensor, { retainGraph: true });
          assert.ok(g && h);
          return add(add(sum(g), sum(h)), add(sum(p), sum(q)));
        },
      });
      assert.equal(counts.forward.count('sin'), 2);
      assert.equal(counts.backward.count('sin'), 2);
    }),
  },
  {
    number: 10,
    torch: 'test_checkpoint_detects_non_determinism',
    claim:
      'Fewer tensors, more tensors (early stop off) and other shapes in the recompute are errors; debug shows both runs.',
    eager: holds(() => {
      const two = (x: Tensor): Tensor => sin(sin(x));
      const three = (x: Tensor): Tensor => sin(sin(sin(x)));
      const other = (x: Tensor): Tensor => sin(sum(sin(x)));
      const metadata = /have different metadata/;
      isMismatch(mismatch(three, two), /A different number of tensors was saved/);
      isMismatch(
        mismatch(two, three, { earlyStop: false }),
        /trying to save more tensors during recomput/,
      );
      assert.equal(mismatch(two, three), undefined, 'more tensors, early stop on');
      isMismatch(mismatch(two, other), metadata);
      assert.equal(
        mismatch(two, (x) => sin(exp(x)), { determinismCheck: 'none' }),
        undefined,
      );
      const debug = /because you passed debug: true/;
      isMismatch(mismatch(two, other, { debug: true }), debug);
      isMismatch(
        setCheckpointDebug(true, () => mismatch(two, other, { debug: false })),
        debug,
      );
      const off = setCheckpointDebug(false, () => mismatch(two, other, { debug: true }));
      isMismatch(off, metadata);
      assert.doesNotMatch((off as Error).message, debug);
    }),
    compiled: absent(once),
  },
  {
    number: 11,
    torch: 'test_access_saved_tensor_twice_without_recomputation_works',
    claim:
      'A saved value that is read outside a backward is recomputed each time; after the backward it is gone.',
    eager: holds(() =>
      scope(() => {
        let calls = 0;
        const region = (x: Tensor): Tensor => {
          calls++;
          return exp(sin(x));
        };
        const x = vector(3, 1);
        const y = checkpoint(region, [x]);
        const node = y.node;
        assert.ok(node);
        const read = (): number[][] => listsOf(node.saved.get('out')?.unpack(node));
        assert.deepEqual(read(), listsOf(y));
        assert.equal(calls, 2);
        assert.deepEqual(read(), listsOf(y));
        assert.equal(calls, 3);
        const loss = sum(y);
        backward(loss);
        assert.equal(calls, 4);
        assert.throws(() => backward(loss), /have already been freed/);
      }),
    ),
    compiled: absent('A compiled step has no saved values that could be read from outside.'),
  },
  both(
    12,
    'test_checkpointing_without_reentrant',
    'Parameter gradients through very many regions, with and without gradients of the input, equal the plain ones.',
    (execution) => {
      const count = execution.name === 'eager' ? 2000 : 60;
      for (const inputWants of [true, false]) {
        const run = (wrap: boolean): number[][] =>
          scope(() => {
            const parameters = weights();
            const x = matrix(2, 10, 3, inputWants);
            const region = (options: { readonly data: Tensor }): Tensor =>
              perceptron(options.data, parameters);
            const step = (data: Tensor): (Tensor | undefined)[] => {
              let total = tensor(0);
              for (let i = 0; i < count; i++) {
                const out = wrap ? checkpoint(region, [{ data }]) : region({ data });
                total = add(total, sum(out));
              }
              return grad(mul(total, 1 / count), parameters);
            };
            return valuesOf(execution, step, x);
          });
        assert.deepEqual(run(true), run(false));
      }
    },
  ),
  both(
    14,
    'test_checkpointing_without_reentrant_detached_tensor',
    'A region all of whose work is done without gradients passes.',
    (execution) =>
      scope(() => {
        const parameters = weights();
        const region = (x: Tensor): Tensor => noGrad(() => perceptron(x, parameters));
        for (const wants of [true, false]) {
          const step = (x: Tensor): Tensor => {
            const out = sum(checkpoint(region, [x]));
            assert.equal(out.requiresGrad, false);
            return out;
          };
          for (let turn = 0; turn < 3; turn++) {
            assert.equal(valuesOf(execution, step, matrix(2, 10, 3, wants)).length, 1);
          }
        }
      }),
  ),
  {
    number: 15,
    torch: 'test_checkpointing_without_reentrant_saved_object_identity',
    claim:
      'A saved input that wants no gradient is handed to backward as the very same memory, not as a copy.',
    eager: holds(() =>
      scope(() => {
        const frozen = vector(3, 2, false);
        const seen: boolean[] = [];
        const scaled = (x: Tensor): Tensor => {
          const out = noGrad(() => mul(x, frozen));
          const custom = {
            name: 'scaled',
            backward: ([g]: readonly (Tensor | undefined)[], [saved]: readonly Tensor[]) => {
              assert.ok(g && saved);
              seen.push(saved.data.root === frozen.data.root);
              return [mul(g, saved)];
            },
          };
          attachBackward(custom, [x], [out], [frozen]);
          return out;
        };
        const x = vector(3, 1);
        backward(sum(scaled(x)));
        backward(sum(checkpoint(scaled, [x])));
        assert.deepEqual(seen, [true, true]);
      }),
    ),
    compiled: absent(
      'Values of a graph have no identity; that nothing is copied shows in the planned bytes (P5).',
    ),
  },
  both(
    16,
    'test_checkpointing_without_reentrant_correct_grad',
    'backward() and grad() both give the plain gradient.',
    (execution) =>
      scope(() => {
        const x = vector(5, 1);
        const want = valuesOf(execution, (v: Tensor) => grad(sum(chain(v)), v), x);
        const byGrad = valuesOf(execution, (v: Tensor) => grad(sum(checkpoint(chain, [v])), v), x);
        const byBackward = valuesOf(
          execution,
          (v: Tensor) => {
            backward(sum(checkpoint(chain, [v])));
            return v.grad;
          },
          x,
        );
        assert.deepEqual(byGrad, want);
        assert.deepEqual(byBackward, want);
      }),
  ),
  both(
    18,
    'test_checkpointing_without_reentrant_parameter_used_in_an_out',
    'A tensor that is used inside and outside a region has one gradient, and its hook runs once.',
    (execution) =>
      scope(() => {
        const run = (wrap: boolean): { calls: number; gradient: number[][] } => {
          const w = matrix(4, 4, 1);
          let calls = 0;
          registerHook(w, () => {
            calls++;
            return undefined;
          });
          const step = (x: Tensor): unknown => {
            const inner = (v: Tensor): Tensor => tanh(matmul(v, w));
            const h = wrap ? checkpoint(inner, [x]) : inner(x);
            return grad(sum(add(matmul(h, w), w)), w);
          };
          const gradient = valuesOf(execution, step, matrix(4, 4, 2));
          return { calls, gradient };
        };
        assert.deepEqual(run(true), run(false));
        assert.equal(run(true).calls, 1);
      }),
  ),
  both(
    19,
    'test_checkpointing_without_reentrant_arbitrary_input_output',
    'Objects of tensors and of anything else go in and come out; gradients equal the plain ones.',
    (execution) =>
      scope(() => {
        interface Record {
          readonly data: Tensor;
          readonly parts: readonly Tensor[];
          readonly scale: number;
        }
        const region = ({ data, parts, scale }: Record) => {
          const out = parts.reduce((x, part) => tanh(mul(x, part)), mul(data, scale));
          return { out, text: 'kept', both: [out, exp(data)] };
        };
        const run = (wrap: boolean): number[][] =>
          valuesOf(
            execution,
            (data: Tensor, a: Tensor, b: Tensor) => {
              const record = { data, parts: [a, b], scale: 2 };
              const {
                out,
                text,
                both: pair,
              } = wrap ? checkpoint(region, [record]) : region(record);
              assert.equal(text, 'kept');
              const loss = sum(add(out, mul(pair[0] as Tensor, pair[1] as Tensor)));
              return grad(loss, [data, a, b]);
            },
            vector(4, 1),
            vector(4, 2),
            vector(4, 3),
          );
        assert.deepEqual(run(true), run(false));
      }),
  ),
  {
    number: 20,
    torch: 'test_save_on_cpu_and_checkpoint',
    claim:
      'Hooks around a region see its inputs only, hooks inside it see all of its saved values; gradients are the plain ones.',
    eager: holds(() =>
      scope(() => {
        const packs: string[] = [];
        const hooks = {
          pack: (x: Tensor, context: { readonly op: string }) => {
            packs.push(context.op);
            return toHost(x);
          },
          unpack: (host: ReturnType<typeof toHost>) => fromHost(host),
          release: () => {},
        };
        const offload = (f: (x: Tensor) => Tensor) => (x: Tensor) =>
          withSavedTensorHooks(hooks, () => f(x));
        const region = (f: (x: Tensor) => Tensor) => (x: Tensor) => checkpoint(f, [x]);
        const gradientOf = (f: (x: Tensor) => Tensor): number[][] => {
          packs.length = 0;
          const x = vector(4, 1);
          return listsOf(grad(sum(f(x)), x));
        };
        const plain = gradientOf(chain);
        assert.deepEqual(gradientOf(offload(chain)), plain);
        const all = packs.length;
        assert.deepEqual(gradientOf(offload(region(chain))), plain);
        assert.deepEqual(packs, ['checkpoint'], 'only the input of the region');
        assert.deepEqual(gradientOf(region(offload(chain))), plain);
        assert.equal(packs.length, all, 'every value, in the one forward');
        assert.deepEqual(gradientOf(offload(region(offload(chain)))), plain);
      }),
    ),
    compiled: absent(
      'Moving values to the host inside a compiled step is an error; there offload is a choice of the planner.',
    ),
  },
];
