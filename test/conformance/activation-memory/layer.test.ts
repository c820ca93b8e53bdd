/** Activation bytes and percentages of arXiv 2205.05198 from traced layers. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Tensor, grad, manualSeed, scope, sum, toArray } from '../../../src/index.ts';
import { checkLiveBytes } from '../../support/backend.ts';
import { matrix } from '../checkpoint/measure.ts';
import {
  type Model,
  configurations,
  formulaBytes,
  models,
  tracedBytes,
  tracedReport,
} from './figures.ts';
import { type LayerVariant, PaperLayer, isStatistic } from './layer.ts';

checkLiveBytes();

const small: Model = {
  name: 'small',
  sequence: 24,
  batch: 3,
  hidden: 32,
  heads: 8,
  tensorParallel: 4,
};

for (const model of [...models, small]) {
  test(`${model.name}: a traced layer holds the bytes of each formula`, () => {
    for (const configuration of configurations) {
      const [traced, formula] = [
        tracedBytes(model, configuration),
        formulaBytes(model, configuration),
      ];
      assert.equal(traced, Math.round(formula), configuration.name);
    }
  });
}

test('MiB of one layer of the four models [table 2]', () => {
  const rows = models.map((model) =>
    configurations.map((configuration) => tracedBytes(model, configuration) / 2 ** 20),
  );
  assert.deepEqual(rows, [
    [6752, 1264, 844, 624, 204, 96, 12],
    [2736, 552, 342, 312, 102, 48, 6],
    [3920, 840, 490, 520, 170, 80, 10],
    [4900, 1050, 612.5, 650, 212.5, 100, 12.5],
  ]);
});

test('percent of tensor parallelism alone [figure 7]', () => {
  const percents = models.map((model) => {
    const [, base = 0, ...others] = configurations.map((c) => tracedBytes(model, c));
    return others.slice(0, 4).map((bytes) => ((100 * bytes) / base).toFixed(1));
  });
  assert.deepEqual(percents, [
    ['66.8', '49.4', '16.1', '7.6'],
    ['62.0', '56.5', '18.5', '8.7'],
    ['58.3', '61.9', '20.2', '9.5'],
    ['58.3', '61.9', '20.2', '9.5'],
  ]);
});

test('what each part of a layer holds [section 4.1]', () => {
  const [model] = models;
  assert.ok(model);
  const { entries } = tracedReport(model, { parallel: false });
  const sbh = model.sequence * model.batch * model.hidden;
  const scores = model.heads * model.sequence ** 2 * model.batch;
  const parts = new Map<string, number>();
  for (const entry of entries) {
    if (entry.category === 'parameter' || isStatistic(entry)) continue;
    const { op, shape } = entry;
    const part = op === 'layerNorm' ? 'norms' : shape.length === 4 ? 'core' : moduleOf(entry);
    parts.set(part, (parts.get(part) ?? 0) + entry.bytes);
  }
  assert.deepEqual(Object.fromEntries(parts), {
    norms: 4 * sbh,
    attention: 4 * sbh,
    core: 6 * sbh + 5 * scores,
    mlp: 18 * sbh,
    masks: 2 * sbh,
  });
});

function moduleOf({ module }: { readonly module: string }): string {
  return module === '' ? 'masks' : (module.split('.')[0] ?? '');
}

const variants: readonly LayerVariant[] = [
  {},
  { recompute: 'selective' },
  { recompute: 'full' },
  { sequenceParallel: true },
  { sequenceParallel: true, recompute: 'selective' },
  { sequenceParallel: true, recompute: 'full' },
];

test('the layers that are measured also train: recompute changes no bit of a gradient', () => {
  const gradients = variants.map((variant) =>
    scope(() => {
      manualSeed(1);
      const layer = new PaperLayer({ ...small, sequence: 8 }, variant);
      manualSeed(2);
      const rows = variant.sequenceParallel ? 2 : 8;
      const x = matrix(rows * 3, 32, 1)
        .reshape([rows, 3, 32])
        .cast('bfloat16')
        .detach();
      x.requiresGrad = true;
      const wanted: Tensor[] = [x, ...layer.parameters()];
      const values = grad(sum(layer.call(x)), wanted).map((g) => [...toArray(g as Tensor)]);
      layer.dispose();
      return values;
    }),
  );
  const [none, selective, full, ...sharded] = gradients;
  assert.deepEqual([selective, full], [none, none]);
  assert.deepEqual(sharded.slice(1), [sharded[0], sharded[0]]);
});
