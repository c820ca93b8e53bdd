/** Offload as a setting of a model: what is moved, what stays, and errors for bad settings. */

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { backward } from '../../src/autograd/backward.ts';
import { type ApplyReport, applyActivationCheckpointing } from '../../src/checkpoint/apply.ts';
import type { CheckpointingSpec } from '../../src/checkpoint/apply-spec.ts';
import { compile } from '../../src/compile/compile.ts';
import { CompileError, ConfigError, UnsupportedError } from '../../src/core/errors.ts';
import { hostTensor } from '../../src/core/host-tensor.ts';
import { byteLlama } from '../../src/models/byte-llama.ts';
import type { CausalLm } from '../../src/models/decoder/causal-lm.ts';
import { liveBytes } from '../../src/tensor/backend.ts';
import { fromHost, item, toArray } from '../../src/tensor/factory.ts';
import { Generator } from '../../src/tensor/generator.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { scope } from '../../src/tensor/with-scope.ts';
import { checkLiveBytes } from '../support/backend.ts';

checkLiveBytes();

const dir = mkdtempSync(join(tmpdir(), 'retune-model-offload-'));
after(() => rmSync(dir, { recursive: true, force: true }));

const quiet = { logger: (): void => {} };
const offload = { dir, min_bytes: 0, depth: 1 };
const [rows, length, hidden, layers] = [2, 32, 16, 4];

function tinyModel(count = layers): CausalLm {
  return byteLlama({ hidden, layers: count, heads: 2, generator: new Generator(11) });
}

function batch(): { tokens: Tensor; targets: Tensor } {
  const ids = Array.from({ length: rows * length }, (_, i) => (i * 37 + 11) % 256);
  const tensorOf = (values: number[]): Tensor =>
    fromHost(hostTensor(values, [rows, length], 'int32'));
  return { tokens: tensorOf(ids), targets: tensorOf(ids.map((id) => (id * 3) % 256)) };
}

interface Run {
  readonly loss: number;
  readonly gradients: Float64Array[];
  readonly held: number;
  readonly report: ApplyReport;
}

function run(spec: CheckpointingSpec): Run {
  using model = tinyModel();
  const report = applyActivationCheckpointing(model, spec, quiet);
  const result = scope(() => {
    const { tokens, targets } = batch();
    scope(() => model.call(tokens, { targets }));
    const before = liveBytes();
    const loss = model.call(tokens, { targets });
    const held = liveBytes() - before;
    backward(loss);
    const gradients = [...model.parameters()].map(({ grad }) => toArray(grad as Tensor));
    return { loss: item(loss), gradients, held, report };
  });
  report.offload?.assertEmpty();
  return result;
}

const settings: CheckpointingSpec[] = [
  {},
  { mode: 'full' },
  { every: 2 },
  { segments: 2 },
  { mode: 'full', earlyStop: false },
];

for (const spec of settings) {
  const name = JSON.stringify(spec);
  test(`O1 ${name}: offload changes no bit, and less is held between forward and backward`, () => {
    const plain = run(spec);
    const moved = run({ ...spec, offload });
    assert.equal(moved.loss, plain.loss);
    assert.deepEqual(moved.gradients, plain.gradients);
    assert.ok(moved.held < plain.held, `${moved.held} of ${plain.held} bytes`);
    assert.equal(plain.report.offload, undefined);
    assert.deepEqual(moved.report.wrapped, plain.report.wrapped);
    assert.match(
      moved.report.line,
      /; of [13] calls of layers what they save.* waits in a file, 1 ahead$/,
    );
  });
}

test('O1 full: the inputs of all regions but the last are what moves', () => {
  const { report } = run({ mode: 'full', offload });
  // Twice: in the first call, too, whose graph is dropped.
  assert.equal(report.offload?.stats.bytesOut, 2 * (layers - 1) * 4 * rows * length * hidden);
});

test('S1 what a policy offloads is moved, in the last layer too, with and without a setting of its own', () => {
  const selective = { save: ['attention'], offload: ['matmul'] };
  const plain = run({});
  const kept = run({ selective: { save: ['attention', 'matmul'] } });
  for (const spec of [{ selective }, { selective, offload }]) {
    const moved = run(spec);
    assert.equal(moved.loss, plain.loss);
    assert.deepEqual(moved.gradients, plain.gradients);
    assert.ok(moved.held < kept.held, `${moved.held} of ${kept.held} bytes`);
  }
  const { offload: inputsOnly } = run({
    selective: { save: ['attention', 'matmul'] },
    offload,
  }).report;
  const { offload: products } = run({ selective, offload }).report;
  assert.ok(inputsOnly && products);
  assert.ok(products.stats.bytesOut > inputsOnly.stats.bytesOut);
});

test('S1 what a policy compresses is held in fewer bits; other ops of the region keep their numbers', () => {
  const plain = run({});
  const saved = run({ selective: { save: ['attention', 'matmul', 'mlp'] } });
  const compressed = run({
    selective: { save: ['attention', 'matmul'], compress: { mlp: 'bf16' } },
  });
  assert.equal(compressed.loss, plain.loss);
  assert.ok(compressed.held < saved.held, `${compressed.held} of ${saved.held} bytes`);
  compressed.gradients.forEach((gradient, k) => {
    const want = plain.gradients[k] ?? new Float64Array();
    const error = Math.hypot(...gradient.map((g, i) => g - (want[i] ?? 0))) / Math.hypot(...want);
    assert.ok(error < 0.02, `gradient ${k} is off by ${error}`);
  });
  assert.notDeepEqual(compressed.gradients, plain.gradients);
});

test("W1 torchtune's enable_activation_offloading moves region inputs", () => {
  const spec = { enable_activation_checkpointing: true, enable_activation_offloading: true };
  using model = tinyModel();
  const report = applyActivationCheckpointing(model, spec, quiet);
  assert.deepEqual(report.offload?.settings, {
    place: { to: 'file', dir: undefined },
    minBytes: 65536,
    depth: 2,
  });
  const off = { ...spec, enable_activation_offloading: false };
  assert.equal(applyActivationCheckpointing(model, off, quiet).offload, undefined);
});

test('W3 a frozen model is left alone', () => {
  using model = tinyModel();
  for (const parameter of model.parameters()) parameter.requiresGrad = false;
  const report = applyActivationCheckpointing(model, { offload }, quiet);
  assert.equal(report.offload, undefined);
  assert.match(report.line, /frozen/);
});

test('O1 a compiled step of a model with offload is refused', () => {
  using model = tinyModel();
  for (const mode of ['none', 'full'] as const) {
    applyActivationCheckpointing(model, { mode, offload }, quiet);
    scope(() => {
      const { tokens, targets } = batch();
      const step = compile((t: Tensor) => {
        const loss = model.call(t, { targets });
        backward(loss);
        return loss.detach();
      });
      assert.throws(() => step(tokens), CompileError);
      step.dispose();
    });
  }
});

test('W1 bad offload settings name the key, the value and what is legal', () => {
  using model = tinyModel();
  using shallow = tinyModel(1);
  const refused = (spec: object, message: RegExp, on = model): void => {
    assert.throws(
      () => applyActivationCheckpointing(on, spec as CheckpointingSpec, quiet),
      (error: unknown) => error instanceof ConfigError && message.test(error.message),
      JSON.stringify(spec),
    );
  };
  refused({ offload: true }, /'offload'.*true.*to, dir, min_bytes, depth/);
  refused({ offload: { to: 'disk' } }, /'offload\.to'.*disk.*'file' or 'host'/);
  refused({ offload: { min_bytes: 'few' } }, /'offload\.min_bytes'.*few.*64KiB/);
  refused({ offload: { minBytes: -1 } }, /'offload\.minBytes'.*-1/);
  refused({ offload: { depth: 1.5 } }, /'offload\.depth'.*1\.5/);
  refused({ offload: { deep: 1 } }, /'offload\.deep'.*keys to, dir/);
  refused({ offload: { to: 'host', dir } }, /'offload\.dir'/);
  refused({ offload: { min_bytes: 1, minBytes: 1 } }, /one spelling/);
  refused(
    { offload, enable_activation_offloading: false },
    /'offload' contradicts 'enable_activation_off/,
  );
  refused({ enable_activation_offloading: 'yes' }, /'enable_activation_offloading'.*true or false/);
  refused({ enable_activation_offloading: true }, /'enable_activation_offloading'.*mode none/);
  refused({ offload }, /'offload' moves nothing.*1 layers/, shallow);
  refused({ segments: 1, offload }, /'offload' moves nothing/);
  assert.throws(
    () => applyActivationCheckpointing(model, { offload: { to: 'host' } }, quiet),
    UnsupportedError,
  );
});
