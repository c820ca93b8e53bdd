/**
 * A training step of one config under ways of keeping what backward needs: nothing special, regions, and
 * both with the values in a file or in fewer bits. The ways take turns, step by step, so that a slow moment of the
 * machine meets all of them. Prints step memory, time, and the time as a multiple of the first way's.
 *
 * Usage: node bench/offload.ts [--config L] [--rounds 5] [--dir FOLDER] [--depth 2] [--only NAMES]
 */

import { parseArgs } from 'node:util';
import { backward } from '../src/autograd/backward.ts';
import { applyActivationCheckpointing } from '../src/checkpoint/apply.ts';
import type { CheckpointingSpec } from '../src/checkpoint/apply-spec.ts';
import { ActivationCompression } from '../src/checkpoint/compress.ts';
import type { CompressionFormat } from '../src/checkpoint/compress-store.ts';
import type { OffloadStats } from '../src/checkpoint/offload-store.ts';
import { compile } from '../src/compile/compile.ts';
import { hostTensor } from '../src/core/host-tensor.ts';
import { modelFromConfig } from '../src/models/from-config.ts';
import { AdamW } from '../src/optim/adamw.ts';
import { currentBackend } from '../src/tensor/backend.ts';
import { fromHost, item } from '../src/tensor/factory.ts';
import type { Tensor } from '../src/tensor/tensor.ts';
import { scope } from '../src/tensor/with-scope.ts';
import { findConfig, modelConfig } from './configs.ts';
import { median } from './driver/statistics.ts';

const { values: options } = parseArgs({
  options: {
    config: { type: 'string', default: 'L' },
    rounds: { type: 'string', default: '5' },
    dir: { type: 'string' },
    depth: { type: 'string', default: '2' },
    only: { type: 'string' },
  },
});

interface Way {
  readonly name: string;
  readonly spec: CheckpointingSpec;
  readonly compress?: CompressionFormat;
  readonly compiled?: boolean;
}

const offload = { depth: Number(options.depth), ...(options.dir && { dir: options.dir }) };
const formats: readonly CompressionFormat[] = ['bf16', 'fp8', 'int8'];
const allWays: readonly Way[] = [
  { name: 'none', spec: {} },
  { name: 'none+file', spec: { offload } },
  { name: 'full', spec: { mode: 'full' } },
  { name: 'full+file', spec: { mode: 'full', offload } },
  ...formats.map((compress): Way => ({ name: `none+${compress}`, spec: {}, compress })),
  { name: 'compiled', spec: {}, compiled: true },
  ...formats.map(
    (compress): Way => ({ name: `compiled+${compress}`, spec: {}, compress, compiled: true }),
  ),
];
const ways = allWays.filter(({ name }) => !options.only || options.only.split(',').includes(name));

const config = findConfig(options.config);
const model = modelFromConfig(modelConfig(config));
const optimizer = new AdamW(model.namedParameters());
const ids = Array.from(
  { length: config.batch * config.sequence },
  (_, i) => (i * 7919) % config.vocab,
);
const shape = [config.batch, config.sequence];
const tokens = fromHost(hostTensor(ids, shape, 'int32')).keep();
const targets = fromHost(
  hostTensor(
    ids.map((id) => (id * 3) % config.vocab),
    shape,
    'int32',
  ),
).keep();

/** The step of a way; applying its setting is part of it, since all ways share the model. */
function stepOf(way: Way): { run: () => number; stats: () => OffloadStats | undefined } {
  const compression = way.compress && new ActivationCompression(way.compress);
  const body = (inputs: Tensor, wanted: Tensor): Tensor => {
    const forward = (): Tensor => model.call(inputs, { targets: wanted });
    const loss = compression ? compression.run(forward) : forward();
    backward(loss);
    optimizer.step();
    optimizer.zeroGrad();
    return loss.detach();
  };
  const run = way.compiled ? compile(body) : body;
  let stats: OffloadStats | undefined;
  return {
    run: () => {
      const report = applyActivationCheckpointing(model, way.spec, { logger: () => {} });
      const loss = scope(() => item(run(tokens, targets)));
      report.offload?.assertEmpty();
      stats = report.offload?.stats;
      return loss;
    },
    stats: () => stats,
  };
}

const { allocator } = currentBackend();
const steps = ways.map((way) => ({ way, ...stepOf(way), times: [] as number[], bytes: 0 }));
for (const step of steps) {
  step.run();
  const before = allocator.stats().live;
  allocator.resetPeak();
  step.run();
  step.bytes = allocator.stats().peak - before;
}
for (let round = 0; round < Number(options.rounds); round++) {
  for (const step of steps) {
    const start = performance.now();
    step.run();
    step.times.push(performance.now() - start);
  }
}

const mebibytes = (bytes: number): string => (bytes / 2 ** 20).toFixed(1).padStart(9);
const base = median(steps[0]?.times ?? []);
console.log(`config ${config.name}, ${options.rounds} interleaved rounds, depth ${options.depth}`);
console.log('way              step MiB        ms   (least - most)   ratio   moved MiB   waited ms');
for (const { way, times, bytes, stats } of steps) {
  const ms = median(times);
  const moved = stats();
  console.log(
    `${way.name.padEnd(15)}${mebibytes(bytes)}${ms.toFixed(0).padStart(10)}   ` +
      `(${Math.min(...times).toFixed(0)} - ${Math.max(...times).toFixed(0)})`.padEnd(15) +
      `${(ms / base).toFixed(3).padStart(8)}` +
      (moved ? `   ${mebibytes(moved.bytesOut)}   ${moved.waitMs.toFixed(0).padStart(9)}` : ''),
  );
}
