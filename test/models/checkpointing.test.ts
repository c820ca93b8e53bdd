/** Checkpointing by setting: same numbers, same names, fewer bytes, and errors for bad settings. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backward } from '../../src/autograd/backward.ts';
import {
  type ApplyReport,
  applyActivationCheckpointing,
  setActivationCheckpointing,
} from '../../src/checkpoint/apply.ts';
import { ConfigError } from '../../src/core/errors.ts';
import { hostTensor } from '../../src/core/host-tensor.ts';
import { byteLlama } from '../../src/models/byte-llama.ts';
import type { CausalLm } from '../../src/models/decoder/causal-lm.ts';
import { Attention } from '../../src/nn/attention.ts';
import { GatedMlp } from '../../src/nn/mlp.ts';
import { Linear } from '../../src/nn/linear.ts';
import { TransformerLayer } from '../../src/nn/transformer-layer.ts';
import { currentBackend, liveBytes } from '../../src/tensor/backend.ts';
import { fromHost, item, toArray } from '../../src/tensor/factory.ts';
import { Generator } from '../../src/tensor/generator.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { scope } from '../../src/tensor/with-scope.ts';
import { executions } from '../support/executions.ts';

const before = liveBytes();

test.after(() => assert.equal(liveBytes(), before, 'memory was not given back'));

const quiet = { logger: (): void => {} };

function tinyModel(layers = 5): CausalLm {
  return byteLlama({ hidden: 16, layers, heads: 2, generator: new Generator(11) });
}

function batch(length = 12): { tokens: Tensor; targets: Tensor } {
  const ids = Array.from({ length: 2 * length }, (_, i) => (i * 37 + 11) % 256);
  const tokens = fromHost(hostTensor(ids, [2, length], 'int32'));
  const targets = fromHost(
    hostTensor(
      ids.map((_, i) => ids[i + 1] ?? -100),
      [2, length],
      'int32',
    ),
  );
  return { tokens, targets };
}

type Apply = (model: CausalLm) => ApplyReport;

const settings: [string, Apply][] = [
  ['full', (model) => applyActivationCheckpointing(model, 'full', quiet)],
  ['every 2', (model) => applyActivationCheckpointing(model, { every: 2 }, quiet)],
  ['2 segments', (model) => applyActivationCheckpointing(model, { segments: 2 }, quiet)],
  ['5 segments', (model) => applyActivationCheckpointing(model, { segments: 5 }, quiet)],
  ['attention', (model) => setActivationCheckpointing(model, Attention, quiet)],
  [
    'op',
    (model) =>
      applyActivationCheckpointing(model, { ac_mode: 'selective', ac_option: 'op' }, quiet),
  ],
  [
    'selective',
    (model) =>
      applyActivationCheckpointing(
        model,
        { selective: { save: ['matmul', 'attention'], recompute: 'layers.*.mlp.up_proj' } },
        quiet,
      ),
  ],
  ['nested', (model) => setActivationCheckpointing(model, [TransformerLayer, GatedMlp], quiet)],
];

for (const execution of executions) {
  const measure = (apply?: Apply): { loss: number; gradients: Float64Array[] } => {
    using model = tinyModel();
    apply?.(model);
    const parameters = [...model.parameters()];
    const { run, dispose } = execution.prepare((tokens: Tensor, targets: Tensor) => {
      const loss = model.call(tokens, { targets });
      backward(loss);
      return { loss, gradients: parameters.map((parameter) => parameter.grad) };
    });
    const result = scope(() => {
      const { tokens, targets } = batch();
      const { loss, gradients } = run(tokens, targets);
      return {
        loss: item(loss),
        gradients: gradients.map((gradient) => {
          assert.ok(gradient);
          return toArray(gradient);
        }),
      };
    });
    dispose();
    return result;
  };

  test(`${execution.name}: loss and gradients are bitwise equal under every setting`, () => {
    const plain = measure();
    for (const [name, apply] of settings) {
      const got = measure(apply);
      assert.equal(got.loss, plain.loss, name);
      assert.deepEqual(got.gradients, plain.gradients, name);
    }
  });
}

test('W2 names and state dicts are the same with and without', () => {
  using model = tinyModel();
  const names = [...model.stateDict().keys()];
  const modules = [...model.namedModules()].map(([name]) => name);
  for (const [, apply] of settings) {
    apply(model);
    assert.deepEqual([...model.stateDict().keys()], names);
    assert.deepEqual(
      [...model.namedModules()].map(([name]) => name),
      modules,
    );
  }
});

test('more checkpointing holds fewer bytes between forward and backward', () => {
  const held = (apply?: Apply): number => {
    using model = tinyModel();
    apply?.(model);
    // The first call builds the rotary tables.
    scope(() => {
      const { tokens, targets } = batch(32);
      model.call(tokens, { targets });
    });
    return scope(() => {
      const { tokens, targets } = batch(32);
      const start = liveBytes();
      model.call(tokens, { targets });
      return liveBytes() - start;
    });
  };
  const none = held();
  const some = held((model) => applyActivationCheckpointing(model, { every: 2 }, quiet));
  const full = held((model) => applyActivationCheckpointing(model, 'full', quiet));
  const segments = held((model) => applyActivationCheckpointing(model, { segments: 2 }, quiet));
  assert.ok(none > 1.3 * some, `${none} ${some}`);
  assert.ok(some > 1.3 * full, `${some} ${full}`);
  assert.ok(full > segments, `${full} ${segments}`);
  assert.ok(currentBackend().allocator.stats().peak > 0);
});

test('the report says what was wrapped, in one line', () => {
  using model = tinyModel();
  const lines: string[] = [];
  const options = { logger: (line: string): number => lines.push(line) };
  const paths = (...layers: (number | string)[]): string[] =>
    layers.map((layer) => `model.layers.${layer}`);
  const check = (
    spec: Parameters<typeof applyActivationCheckpointing>[1],
    wrapped: string[],
  ): void => {
    const report = applyActivationCheckpointing(model, spec, options);
    assert.deepEqual(report.wrapped, wrapped, JSON.stringify(spec));
    assert.equal(lines.pop(), report.line);
    assert.equal(lines.length, 0);
  };
  check('none', []);
  check({}, []);
  check('full', paths(0, 1, 2, 3, 4));
  check({ mode: 'every', every: { k: 2 } }, paths(1, 3));
  check({ every: { k: 2, offset: 1 } }, paths(0, 2, 4));
  check({ every: 1 }, paths(0, 1, 2, 3, 4));
  check({ segments: 2 }, paths('0-2', '3-4'));
  check({ segments: 4 }, paths('0-1', 2, 3, 4));
  check({ segments: 1 }, paths('0-4'));
  // torchtune's keys, in both spellings.
  check({ enable_activation_checkpointing: true }, paths(0, 1, 2, 3, 4));
  check({ enableActivationCheckpointing: false }, []);
  check({ ac_mode: 'full' }, paths(0, 1, 2, 3, 4));
  check({ ac_mode: 'none' }, []);
  check({ ac_mode: 'selective', ac_option: 2 }, paths(1, 3));
  check({ acMode: 'selective', acOption: '3' }, paths(2));
  check({ enable_activation_checkpointing: true, ac_mode: 'selective', ac_option: 5 }, paths(4));
  check({ enable_activation_checkpointing: true, ac_mode: null }, paths(0, 1, 2, 3, 4));
  const { line } = applyActivationCheckpointing(model, { every: 2 }, options);
  assert.equal(
    line,
    'activation checkpointing: every 2 layers from layer 2 on; 2 regions: model.layers.1, model.layers.3',
  );
});

test('applying again replaces what was applied before', () => {
  using model = tinyModel(3);
  const wrapped = (): string[] =>
    [...model.namedModules()].flatMap(([path, module]) => (module.callWrapper ? [path] : []));
  applyActivationCheckpointing(model, 'full', quiet);
  assert.equal(wrapped().length, 3);
  setActivationCheckpointing(model, Attention, quiet);
  assert.deepEqual(
    wrapped(),
    [0, 1, 2].map((layer) => `model.layers.${layer}.self_attn`),
  );
  applyActivationCheckpointing(model, { segments: 2 }, quiet);
  assert.deepEqual(wrapped(), []);
  assert.equal(model.model.layers.regions?.length, 2);
  applyActivationCheckpointing(model, 'none', quiet);
  assert.equal(model.model.layers.regions, undefined);
});

test('the counter of every belongs to one call', () => {
  using model = tinyModel(3);
  const first = applyActivationCheckpointing(model, { every: 2 }, quiet);
  const second = applyActivationCheckpointing(model, { every: 2 }, quiet);
  assert.deepEqual(first.wrapped, ['model.layers.1']);
  assert.deepEqual(second.wrapped, first.wrapped);
});

test('W3 a frozen model is not wrapped', () => {
  using model = tinyModel(2);
  model.requiresGrad_(false);
  const report = applyActivationCheckpointing(model, 'full', quiet);
  assert.deepEqual(report.wrapped, []);
  assert.match(report.line, /frozen/);
  assert.deepEqual(setActivationCheckpointing(model, Attention, quiet).wrapped, []);
});

test('W1 bad settings name the key, the value and what is legal', () => {
  using model = tinyModel(3);
  const refused = (spec: object, pattern: RegExp): void => {
    assert.throws(
      () => applyActivationCheckpointing(model, spec, quiet),
      (error: unknown) => {
        assert.ok(error instanceof ConfigError, JSON.stringify(spec));
        assert.match(error.message, pattern);
        return true;
      },
    );
  };
  refused({ mode: 'sparse' }, /'mode'.*"sparse".*none, full, every, segments/);
  refused({ mode: 'selective' }, /'selective'.*nothing.*save, recompute/);
  refused({ budgett: '40%' }, /unknown key 'budgett'.*budget/);
  refused({ modus: 'full' }, /unknown key 'modus'.*mode/);
  refused({ mode: 'full', every: 2 }, /'every' contradicts 'mode'/);
  refused({ every: 2, segments: 2 }, /'segments' contradicts 'mode'/);
  refused({ mode: 'every' }, /'every'.*nothing.*positive integer/);
  refused({ every: 0 }, /'every'.*0.*positive integer/);
  refused({ every: 4 }, /'every' wraps no layer.*k 4.*3 layers/);
  refused({ every: { k: 2, offset: 2 } }, /'every\.offset'.*2.*0 to 1/);
  refused({ every: { k: 2, ofset: 1 } }, /'every\.ofset'/);
  refused({ segments: 4 }, /'segments'.*4 for 3 layers/);
  refused({ segments: 1.5 }, /'segments'.*1\.5/);
  refused({ mode: 'full', earlyStop: 'no' }, /'earlyStop'.*true or false/);
  refused({ mode: 'full', determinism_check: 'all' }, /'determinism_check'.*default, values, none/);
  refused(
    { enable_activation_checkpointing: 'yes' },
    /'enable_activation_checkpointing'.*true or false/,
  );
  refused({ enable_activation_checkpointing: false, ac_mode: 'full' }, /contradicts 'ac_mode'/);
  refused({ enable_activation_checkpointing: true, ac_mode: 'none' }, /contradicts 'ac_mode'/);
  refused({ ac_mode: 'half' }, /'ac_mode'.*"half".*none, full, selective/);
  refused({ ac_mode: 'selective' }, /'acOption'.*nothing/);
  refused({ ac_mode: 'selective', ac_option: 'ops' }, /'ac_option'.*"ops".*'op'/);
  refused({ ac_mode: 'full', ac_option: 2 }, /'ac_option' contradicts 'ac_mode'/);
  refused({ mode: 'none', enable_activation_checkpointing: true }, /contradict/);
  refused({ ac_mode: 'full', acMode: 'none' }, /two spellings/);
  assert.deepEqual(
    applyActivationCheckpointing(model, { mode: 'full', ac_mode: 'full' }, quiet).wrapped.length,
    3,
  );
});

test('a budget wraps nothing and is handed on to compile; anything else about it is an error', () => {
  using model = tinyModel();
  const quiet = { logger: () => {} };
  applyActivationCheckpointing(model, 'full', quiet);
  const spec = { mode: 'budget', budget: '40%', cost: 'measured' } as const;
  const report = applyActivationCheckpointing(model, spec, { ...quiet, compiled: true });
  assert.deepEqual(report.wrapped, []);
  assert.deepEqual(report.compileOptions, { budget: '40%', cost: 'measured' });
  assert.ok([...model.namedModules()].every(([, module]) => module.callWrapper === undefined));
  const refused = (bad: object, compiled: boolean, pattern: RegExp): void =>
    assert.throws(
      () => applyActivationCheckpointing(model, bad, { ...quiet, compiled }),
      (error: unknown) => error instanceof ConfigError && pattern.test(error.message),
    );
  refused(spec, false, /got budget "40%" without compiled: true/);
  refused({ mode: 'budget' }, true, /'budget' is not legal \(got nothing\)/);
  refused({ budget: 'much' }, true, /got "much"\)\. Use bytes such as 512MiB/);
  refused({ mode: 'full', budget: '1GiB' }, true, /'budget' contradicts 'mode'/);
  refused({ mode: 'full', cost: 'flops' }, true, /'cost' contradicts 'mode'/);
  refused({ budget: '1GiB', cost: 'dear' }, true, /'cost' is not legal \(got "dear"\)/);
});

test('W4 classes and predicates choose modules; nothing matched is an error', () => {
  using model = tinyModel(2);
  assert.deepEqual(setActivationCheckpointing(model, [TransformerLayer], quiet).wrapped, [
    'model.layers.0',
    'model.layers.1',
  ]);
  const chosen = setActivationCheckpointing(model, (_, path) => path.endsWith('1.mlp'), quiet);
  assert.deepEqual(chosen.wrapped, ['model.layers.1.mlp']);
  class Unused extends Linear {}
  assert.throws(
    () => setActivationCheckpointing(model, Unused, quiet),
    (error: unknown) =>
      error instanceof ConfigError && /Unused.*Classes in the model:.*Linear/.test(error.message),
  );
  using alone = new Linear(1, 1);
  assert.throws(() => applyActivationCheckpointing(alone, 'full', quiet), /no LayerStack/);
});
