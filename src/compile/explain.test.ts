/** The report of a compiled step: every byte at the peak has an owner, and equal layers fold. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { grad } from '../autograd/backward.ts';
import { checkpoint } from '../checkpoint/checkpoint.ts';
import { ArgumentError } from '../core/errors.ts';
import '../ops/methods.ts';
import { add, mul } from '../ops/arithmetic.ts';
import { sum } from '../ops/broadcast.ts';
import { matmul } from '../ops/matmul/matmul.ts';
import { sin, tanh } from '../ops/unary.ts';
import { withModule } from '../tensor/context.ts';
import { tensor } from '../tensor/factory.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { checkLiveBytes } from '../../test/support/backend.ts';
import { type CompileOptions, compile } from './compile.ts';
import { formatStepReport, groupValues } from './explain-text.ts';
import { type StepReport, explain } from './explain.ts';

checkLiveBytes();

const layers = 4;

function reportOf(options: CompileOptions, regions = false): StepReport {
  return scope(() => {
    const fill = (phase: number): Float32Array =>
      Float32Array.from({ length: 256 }, (_, i) => Math.sin(phase + i));
    const w = tensor(fill(1), { shape: [16, 16], requiresGrad: true });
    const step = (x: Tensor): (Tensor | undefined)[] => {
      let h = x;
      for (let k = 0; k < layers; k++) {
        const layer = (v: Tensor): Tensor => add(v, sin(matmul(tanh(matmul(v, w)), w)));
        h = withModule(`layers.${k}`, () => (regions ? checkpoint(layer, [h]) : layer(h)));
      }
      return grad(sum(mul(h, h)), [w]);
    };
    const compiled = compile(step, options);
    try {
      compiled.prepare(tensor(fill(2), { shape: [16, 16] }));
      return explain(compiled);
    } finally {
      compiled.dispose();
    }
  });
}

test('without recomputing every value that backward reads is saved, in one row for all layers', () => {
  const report = reportOf({});
  assert.ok(report.values.length > 0);
  assert.ok(report.values.every(({ action, repeats }) => action === 'saved' && repeats === 0));
  assert.equal(report.budgetBytes, undefined);
  const tanhs = groupValues(report.values).find(({ example }) => example.op === 'tanh');
  assert.deepEqual(tanhs && [tanhs.module, tanhs.count, tanhs.bytes], [
    'layers.*',
    layers,
    layers * 1024,
  ]);
});

test('the timeline ends in the arena at its peak, and the peak lists what is alive', () => {
  const report = reportOf({ budget: '60%' });
  const highest = Math.max(...report.timeline.map((point) => point.bytes));
  const alive = report.peak.alive.reduce((total, buffer) => total + buffer.bytes, 0);
  assert.equal(alive, highest);
  assert.ok(highest <= report.peakBytes && report.peakBytes <= (report.budgetBytes ?? 0));
  assert.ok((report.extraTime ?? 0) > 0 && (report.extraTimeBound ?? 1) <= (report.extraTime ?? 0));
  const recomputed = report.values.filter((value) => value.action === 'recomputed');
  assert.ok(recomputed.length > 0 && recomputed.every((value) => value.repeats >= 1));
  assert.ok(recomputed.every((value) => value.reason === 'planner: saves memory'));
});

test('regions as written are a reason', () => {
  const report = reportOf({ disable: ['planRegions'] }, true);
  const reasons = new Set(report.values.map(({ action, reason }) => `${action}: ${reason}`));
  assert.ok(reasons.has('recomputed: inside a region'), [...reasons].join('\n'));
});

test('as text: memory, budget, time, peak, and both tables with their columns in line', () => {
  const text = formatStepReport(reportOf({ budget: '60%' }));
  assert.match(
    text,
    /^step memory .*\nwithout recomputing .*%\)\nbudget .*\ntime added by recomputing: /,
  );
  assert.match(text, /\npeak at .* in (forward|backward): /);
  assert.match(text, /\n\nsaved: .* values\n +bytes +to compute +op +module/);
  assert.match(text, /\n\nrecomputed: .* values\n +bytes +computing +op +module/);
});

test('a step that has no plan is refused', () => {
  const compiled = compile((x: Tensor) => mul(x, 2));
  assert.throws(() => explain(compiled), ArgumentError);
});
