/** The benchmark's own training step: variants agree, plans hold, the report can be rendered. */

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { type BenchConfig, configs, findConfig, stepFlops } from '../../bench/configs.ts';
import { entriesOf, environments } from '../../bench/contestants.ts';
import { mulberry32, writeMaterials } from '../../bench/materials.ts';
import { readOptions } from '../../bench/options.ts';
import { renderReport } from '../../bench/report/markdown.ts';
import type { Results } from '../../bench/report/results.ts';
import { judge } from '../../bench/report/targets.ts';
import { compiledLaunches, eagerLaunches } from '../../bench/retune/launches.ts';
import { enlarge } from '../../bench/retune/op-job.ts';
import { TrainingJob } from '../../bench/retune/training-job.ts';
import type { TrainingResult } from '../../bench/sections/training.ts';
import { matmulOp } from '../../src/ops/matmul/matmul.ts';

const tiny: BenchConfig = {
  name: 'tiny',
  about: 'for tests',
  layers: 2,
  hidden: 16,
  heads: 2,
  kvHeads: 1,
  headDim: 8,
  intermediate: 24,
  vocab: 32,
  tied: false,
  ropeTheta: 10_000,
  normEps: 1e-5,
  batch: 2,
  sequence: 6,
  stepsPerTurn: 1,
};

const folder = mkdtempSync(path.join(os.tmpdir(), 'retune-bench-test-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const variants = entriesOf(environments(undefined))
  .filter(({ environment }) => environment === 'retune+wasm')
  .map(({ variant }) => variant);

test('the generator and the files are what they were', () => {
  const random = mulberry32(1234);
  const first = [random(), random(), random()];
  const materials = writeMaterials(tiny, folder);
  const bytes = new Uint8Array(readFileSync(materials.weightsFile));
  const weights = new Float32Array(bytes.buffer);
  assert.equal(weights.length, materials.elements);
  const [u, v] = first as [number, number];
  const value = 0.02 * Math.sqrt(-2 * Math.log(1 - u)) * Math.cos(2 * Math.PI * v);
  assert.equal(weights[0], Math.fround(value));
  assert.deepEqual([u, v], [0.07329497812315822, 0.7034119898453355]);
  const norm = materials.tensors.find(({ name }) => name === 'model.norm.weight');
  assert.ok(norm);
  assert.deepEqual([...weights.subarray(norm.start, norm.start + 16)], Array(16).fill(1));
});

test('all variants give the same losses, again after a reset, and plans hold', () => {
  const job = new TrainingJob(tiny, writeMaterials(tiny, folder));
  const losses = variants.map((variant) => job.start(variant, 3).losses);
  const again = variants.map((variant) => job.start(variant, 3).losses);
  assert.deepEqual(again, losses);
  for (const list of losses) {
    list.forEach((loss, i) => {
      assert.ok(Math.abs(loss - (losses[0]?.[i] ?? 0)) < 1e-6, `${losses}`);
    });
    assert.ok((list[2] ?? 9) < (list[0] ?? 0), 'it learns');
  }
  for (const variant of variants) {
    const { peakBytes, plannedBytes } = job.memory(variant);
    assert.ok(peakBytes > 0);
    if (variant.compiled) assert.equal(peakBytes, plannedBytes);
  }
});

test('launches are listed with their work', () => {
  const job = new TrainingJob(tiny, writeMaterials(tiny, folder));
  for (const variant of variants) {
    const collect = variant.compiled ? compiledLaunches : eagerLaunches;
    const launches = collect(job, variant);
    const flops = launches.reduce((sum, launch) => sum + launch.flops, 0);
    assert.ok(flops > 0.8 * stepFlops(tiny), `${flops} of ${stepFlops(tiny)}`);
    assert.ok(launches.every(({ ms, bytes }) => ms >= 0 && bytes >= 0));
    assert.equal(
      launches.some(({ part }) => part === 'recompute'),
      variant.checkpointing === 'full',
    );
  }
});

test('samples grow by whole numbers until they are large enough', () => {
  const sample = matmulOp.samples[0];
  assert.ok(sample);
  const sized = enlarge(matmulOp, sample);
  assert.ok(sized);
  const [m = 0, k = 0] = sized.inputs[0]?.shape ?? [];
  assert.equal(m / 7, k / 13);
  assert.ok(sized.cost.flops <= 2e9 && sized.cost.flops > 1e9);
});

test('targets are judged only by what was measured undisturbed', () => {
  const training = (disturbed: boolean): TrainingResult => ({
    config: findConfig('S'),
    tokensPerStep: 512,
    flopsPerStep: 1,
    parameters: 1,
    entries: entriesOf(environments('python')).map((entry) => ({
      entry,
      losses: [7.65343, 7.25938, 6.87745, 6.58212],
      turns: [
        {
          round: 0,
          ms: [entry.environment === 'torch' ? 130 : 100],
          otherCores: disturbed ? 1 : 0,
          disturbed,
        },
      ],
    })),
  });
  const results = (disturbed: boolean): Results => ({
    name: 'test',
    command: 'npm run bench',
    machine: { cpu: 'x', cores: 2, memoryGiB: 1, system: 'y', kernel: '6', node: '24', v8: '13' },
    software: { torch: { name: 'PyTorch', version: '2' } },
    absent: [{ environment: 'retune+wasm', reason: 'no threads' }],
    retune: '0',
    threads: 2,
    rounds: 1,
    maxOtherCores: 0.1,
    quick: false,
    minutes: 1,
    training: [training(disturbed)],
    matmul: [],
    ops: undefined,
    startup: [],
  });
  const verdicts = (disturbed: boolean): Map<string, string> =>
    new Map(judge(results(disturbed)).map(({ what, verdict }) => [what, verdict]));
  const name = 'tokens/s, S: compiled, BLAS, over PyTorch eager';
  assert.equal(verdicts(false).get(name), 'reached');
  assert.equal(verdicts(true).get(name), 'disturbed');
  assert.equal(verdicts(false).get(name.replace('S:', 'L:')), 'not measured');
  const page = renderReport(results(false));
  assert.match(page, /\| retune\+blas\/compiled\/none \| 100 \| 5120 \| 1\.30 \| 1\.30 \|/);
  assert.ok(!page.includes('\u2020'));
  assert.match(page, /\* Machine: x, 2 cores, 1 GiB, y, kernel 6\n\* Node 24/);
  assert.match(page, /\* PyTorch 2[\s\S]*\* Not there: retune\+wasm \(no threads\)/);
  assert.ok(renderReport(results(true)).includes('\u2020'));
});

test('options are checked', () => {
  const read = (text: string) => readOptions(text === '' ? [] : text.split(' '));
  const options = read('--configs S,L --rounds 3');
  assert.ok(options !== 'help');
  assert.deepEqual(
    options.configs.map((config) => config.name),
    ['S', 'L'],
  );
  assert.equal(options.rounds, 3);
  const shown = read('--python /some/where/python --only /eager/none|torch');
  assert.ok(shown !== 'help');
  assert.equal(shown.shown, "npm run bench -- --python python --only '/eager/none|torch'");
  assert.equal(read('--help'), 'help');
  for (const wrong of ['--configs XL', '--rounds 0', '--sections none', '--nothing']) {
    assert.throws(() => read(wrong), /bench|--nothing/);
  }
  assert.equal(new Set(configs.map((config) => config.name)).size, configs.length);
});
