/**
 * test/distributed/fsdp/test_checkpoint_wrapper.py and test/distributed/_composable/test_checkpoint.py:
 * checkpointing modules.
 */

import assert from 'node:assert/strict';
import {
  Generator,
  type Tensor,
  add,
  checkpoint,
  currentBackend,
  grad,
  mul,
  normal,
  relu,
  scope,
  setActivationCheckpointing,
  sum,
} from '../../../../src/index.ts';
import { type AnyModule, Linear, Module, ModuleList } from '../../../../src/nn/index.ts';
import type { Execution } from '../../../support/executions.ts';
import { type ConformanceCase, both, neither } from '../case.ts';
import { matrix, measure, valuesOf } from '../measure.ts';

const quiet = { logger: (): void => {} };

class Net extends Module<[x: Tensor], Tensor> {
  readonly first: Linear;
  readonly second: Linear;

  constructor(width = 6) {
    super();
    this.first = new Linear(width, width, { bias: false });
    this.second = new Linear(width, width, { bias: false });
  }

  forward(x: Tensor): Tensor {
    return relu(this.second.call(relu(this.first.call(x))));
  }
}

/** Several nets behind one another, so that a region is a net. */
class Model extends Module<[x: Tensor], Tensor> {
  readonly nets: ModuleList<Net>;

  constructor(nets: number, width = 6) {
    super();
    this.nets = new ModuleList(Array.from({ length: nets }, () => new Net(width)));
  }

  forward(x: Tensor): Tensor {
    let out = x;
    for (const net of this.nets) out = net.call(out);
    return out;
  }
}

/** Loss and gradients of all parameters. */
function stepValues(execution: Execution, model: Module<[x: Tensor], Tensor>): number[][] {
  return scope(() =>
    valuesOf(
      execution,
      (x: Tensor) => {
        const loss = sum(model.call(x));
        return [loss, ...grad(loss, [...model.parameters()])];
      },
      matrix(4, 6, 1, false),
    ),
  );
}

/** Runs `body` with a model that is disposed after it. */
function withModel<M extends AnyModule>(model: M, body: (model: M) => void): void {
  try {
    body(model);
  } finally {
    model.dispose();
  }
}

export const wrappingCases: readonly ConformanceCase[] = [
  both(
    143,
    'test_load_activation_checkpointed_module',
    'State dicts go from a model with checkpointing to one without and back, and the two then compute the same.',
    (execution) => {
      withModel(new Model(2), (plain) =>
        withModel(new Model(2), (wrapped) => {
          setActivationCheckpointing(wrapped, Net, { ...quiet, earlyStop: false });
          assert.deepEqual([...wrapped.stateDict().keys()], [...plain.stateDict().keys()]);
          wrapped.loadStateDict(plain.stateDict());
          assert.deepEqual(stepValues(execution, wrapped), stepValues(execution, plain));
          for (const weight of wrapped.parameters()) assert.equal(weight.disposed, false);
          plain.loadStateDict(wrapped.stateDict());
          assert.deepEqual(stepValues(execution, wrapped), stepValues(execution, plain));
        }),
      );
    },
  ),
  both(
    144,
    'test_checkpoint_wrapper_kwarg_support',
    'A module that takes an options object is wrapped like any other, and its tensors there get gradients.',
    (execution) => {
      class Scaled extends Module<
        [x: Tensor, options: { readonly a: Tensor; readonly b?: number }],
        Tensor
      > {
        forward(x: Tensor, { a, b = 1 }: { readonly a: Tensor; readonly b?: number }): Tensor {
          return mul(mul(x, a), mul(a, b));
        }
      }
      scope(() => {
        const module = new Scaled();
        const weightless = { namedModules: () => module.namedModules(), callWrapper: undefined };
        const step = (x: Tensor, a: Tensor) => grad(sum(module.call(x, { a, b: 2 })), [x, a]);
        const args: [Tensor, Tensor] = [matrix(2, 3, 1), matrix(2, 3, 2)];
        const plain = valuesOf(execution, step, ...args);
        // A model without trainable parameters is left alone, so this one borrows the input as a parameter.
        setActivationCheckpointing({ ...weightless, parameters: () => args }, Scaled, quiet);
        assert.ok(module.callWrapper);
        assert.deepEqual(valuesOf(execution, step, ...args), plain);
      });
    },
  ),
  both(
    145,
    'test_checkpoint_wrapper_parity',
    'A wrapped module and checkpoint() called by hand save the same bytes and have the same peak.',
    (execution) => {
      withModel(new Model(3), (model) => {
        const peakOf = (run: (x: Tensor) => Tensor): [saved: number, peak: number] => {
          const { allocator } = currentBackend();
          const live = allocator.stats().live;
          allocator.resetPeak();
          const { savedBytes } = measure(execution, {
            inputs: () => [matrix(64, 6, 1)],
            loss: (x) => sum(run(x as Tensor)),
          });
          return [savedBytes, allocator.stats().peak - live];
        };
        const byHand = peakOf((x) =>
          scope(() => {
            let out = x;
            for (const net of model.nets) out = checkpoint((v: Tensor) => net.call(v), [out]);
            return out;
          }),
        );
        setActivationCheckpointing(model, Net, quiet);
        const wrapped = peakOf((x) => model.call(x));
        assert.deepEqual(wrapped, byHand);
      });
    },
  ),
  both(
    146,
    'test_forward_missing_attributes',
    'Wrapping changes how a call runs and nothing else: fields, items and children of the module are as they were.',
    (execution) => {
      withModel(new Model(2), (model) => {
        const before = [...model.namedModules()];
        const values = stepValues(execution, model);
        setActivationCheckpointing(model, [Net, Linear], quiet);
        assert.deepEqual([...model.namedModules()], before);
        const [first] = model.nets;
        assert.equal(first, model.nets.items[0]);
        assert.deepEqual(first?.first.weight.shape, [6, 6]);
        assert.deepEqual(stepValues(execution, model), values);
      });
    },
  ),
  both(
    147,
    'test_apply_activation_checkpointing',
    'Exactly the modules of the chosen class become regions, by class and by predicate; gradients are as without.',
    (execution) => {
      withModel(new Model(2), (model) => {
        const plain = stepValues(execution, model);
        const linears = [...model.namedModules()].filter(([, module]) => module instanceof Linear);
        const paths = linears.map(([path]) => path);
        const byClass = setActivationCheckpointing(model, Linear, quiet);
        assert.deepEqual(byClass.wrapped, paths);
        const wrapped = [...model.namedModules()].filter(([, module]) => module.callWrapper);
        assert.deepEqual(wrapped, linears);
        for (let turn = 0; turn < 3; turn++) assert.deepEqual(stepValues(execution, model), plain);
        const second = (_: unknown, path: string): boolean => path.endsWith('second');
        const byPath = setActivationCheckpointing(model, second, quiet);
        assert.deepEqual(
          byPath.wrapped,
          paths.filter((path) => path.endsWith('second')),
        );
        assert.deepEqual(stepValues(execution, model), plain);
      });
    },
  ),
  both(
    148,
    'test_fqn',
    'Names of parameters with checkpointing are the keys of the state dict without.',
    (execution) => {
      withModel(new Model(2), (model) => {
        const keys = [...model.stateDict().keys()];
        setActivationCheckpointing(model, [Net, Linear], quiet);
        stepValues(execution, model);
        assert.deepEqual(
          [...model.namedParameters()].map(([name]) => name),
          keys,
        );
      });
    },
  ),
  neither(
    149,
    'test_checkpoint_wrapper_cpu_offload',
    'Needs a device with memory apart from the host; offload to files has tests of its own (O1).',
  ),
  ...[
    [150, 'test_checkpoint_fsdp_wrapping'],
    [151, 'test_basic_checkpoint_end_to_end'],
    [152, 'test_checkpoint_submodule'],
  ].map(([number, torch]) =>
    neither(
      number as number,
      torch as string,
      'About sharded parameters (FSDP), which do not exist here; nested regions of modules are 24 and 146.',
    ),
  ),
  both(
    153,
    'test_tensor_only_cpu',
    'A region in the middle of a model: gradients of all parameters are the plain ones, and fewer bytes wait for backward.',
    (execution) => {
      withModel(new Model(3), (model) => {
        const program = () => ({
          inputs: () => [matrix(64, 6, 1)],
          loss: (x?: Tensor) => sum(model.call(x as Tensor)),
        });
        const plainValues = stepValues(execution, model);
        const plain = measure(execution, program());
        setActivationCheckpointing(model, (_, path) => path === 'nets.1', quiet);
        const region = measure(execution, program());
        assert.deepEqual(stepValues(execution, model), plainValues);
        assert.deepEqual([region.loss, region.gradients], [plain.loss, plain.gradients]);
        assert.ok(region.savedBytes < plain.savedBytes);
      });
    },
  ),
  both(
    154,
    'test_random_cpu',
    'Draws inside a checkpointed module: gradients equal those from the same random state without.',
    (execution) => {
      const generator = new Generator(4);
      class Noisy extends Module<[x: Tensor], Tensor> {
        readonly linear = new Linear(6, 6);

        forward(x: Tensor): Tensor {
          return relu(this.linear.call(mul(x, normal(x.shape, { generator }))));
        }
      }
      withModel(new Noisy(), (model) => {
        const run = (): number[][] => {
          generator.manualSeed(4);
          return stepValues(execution, model);
        };
        const plain = run();
        setActivationCheckpointing(model, Noisy, quiet);
        assert.deepEqual(run(), plain);
      });
    },
  ),
  both(
    155,
    'test_multi_args',
    'Lists of tensors pass between checkpointed modules; gradients are the plain ones.',
    (execution) => {
      class Split extends Module<[x: Tensor], [Tensor, Tensor]> {
        readonly a = new Linear(6, 6);
        readonly b = new Linear(6, 6);

        forward(x: Tensor): [Tensor, Tensor] {
          return [relu(this.a.call(x)), this.b.call(x)];
        }
      }
      class Join extends Module<[parts: readonly Tensor[]], Tensor> {
        readonly linear = new Linear(6, 6);

        forward([x, y]: readonly Tensor[]): Tensor {
          return this.linear.call(mul(x as Tensor, y as Tensor));
        }
      }
      class Whole extends Module<[x: Tensor], Tensor> {
        readonly split = new Split();
        readonly join = new Join();

        forward(x: Tensor): Tensor {
          return add(this.join.call(this.split.call(x)), x);
        }
      }
      withModel(new Whole(), (model) => {
        const plain = stepValues(execution, model);
        setActivationCheckpointing(model, [Split, Join], quiet);
        assert.deepEqual(stepValues(execution, model), plain);
      });
    },
  ),
];
