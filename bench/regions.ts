/**
 * What checkpointed regions cost beyond the work they do: a region around a function that does nothing, and
 * layers whose policy saves everything, eager.
 *
 *   node bench/regions.ts [--rounds <n>]
 *
 * Variants take turns within a round; a figure is the minimum over rounds, a ratio that of minima, with the
 * median of the ratios of single rounds beside it. The machine should be idle. Takes about a minute.
 */

import { parseArgs } from 'node:util';
import {
  type CheckpointingSpec,
  type Tensor,
  add,
  applyActivationCheckpointing,
  backward,
  checkpoint,
  createNullBackend,
  currentBackend,
  fromHost,
  hostTensor,
  manualSeed,
  noGrad,
  saveEverything,
  scope,
  setBackend,
  tensor,
} from '../src/index.ts';
import { byteLlama } from '../src/models/byte-llama.ts';

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '15' } } });
const rounds = Number(values.rounds);

/** Goals of the project; exceeded ones are marked. */
const goals = { regionUs: 5, policyShare: 0.02 };

/** Microseconds of a region call over those of the plain call. */
function regions(): void {
  const calls = 200;
  const x = tensor([1, 2, 3, 4], { requiresGrad: true });
  const same = (v: Tensor): Tensor => v;
  const plus = (v: Tensor): Tensor => add(v, 1);
  const cases: readonly [name: string, plain: () => unknown, region: () => unknown][] = [
    ['returns its argument', () => same(x), () => checkpoint(same, [x])],
    ['one op that saves nothing', () => plus(x), () => checkpoint(plus, [x])],
    [
      'one op, without gradients',
      () => noGrad(() => plus(x)),
      () => noGrad(() => checkpoint(plus, [x])),
    ],
  ];
  console.log('region around an inert function, us per call');
  for (const [name, plain, region] of cases) {
    const bodies = [plain, region].map((body) => () => repeat(body, calls));
    const times = turns(bodies, 20 * rounds);
    const [without = 0, within = 0] = times.map((list) => (1000 * Math.min(...list)) / calls);
    row(
      name,
      `${without.toFixed(2)} plain, ${(within - without).toFixed(2)} more`,
      within - without > goals.regionUs,
    );
  }
  x.dispose();
}

function repeat(body: () => unknown, calls: number): void {
  scope(() => {
    for (let i = 0; i < calls; i++) body();
  });
}

const settings: readonly [name: string, spec: CheckpointingSpec][] = [
  ['no checkpointing', { mode: 'none' }],
  ['a function that saves everything', { mode: 'selective', selective: () => true }],
  ['saveEverything', { mode: 'selective', selective: saveEverything() }],
  ['nothing saved (full)', { mode: 'full' }],
];

/**
 * Forward and backward of a small model under policies that save everything: on the CPU, and on the null
 * backend, which computes nothing, so that what is left is the machinery.
 */
function policies(): void {
  const steps = policyTimes(rounds);
  const before = currentBackend();
  const none = createNullBackend();
  setBackend(none);
  const bare = policyTimes(4 * rounds);
  setBackend(before);
  none.dispose();
  const best = (times: readonly number[]): number => Math.min(...times);
  const [plain = [], plainBare = []] = [steps[0], bare[0]];
  console.log('\nforward and backward of 4 layers, 256 wide, 512 tokens');
  console.log(
    `  ${''.padEnd(36)}ms, and more than without  machinery alone, and its share of the step`,
  );
  settings.forEach(([name], i) => {
    const [own = [], ownBare = []] = [steps[i], bare[i]];
    const share = best(own) / best(plain) - 1;
    const typical = median(own.map((time, round) => time / (plain[round] ?? time))) - 1;
    const machinery = best(ownBare) - best(plainBare);
    const text =
      `${best(own).toFixed(1).padStart(7)}  ${percent(share)} (median ${percent(typical)})`.padEnd(
        36,
      ) + `${machinery.toFixed(2)} ms  ${percent(machinery / best(plain))}`;
    const missed = i > 0 && i < 3 && machinery / best(plain) > goals.policyShare;
    row(name, text, missed);
  });
}

function policyTimes(count: number): number[][] {
  manualSeed(1);
  const model = byteLlama({ hidden: 256, layers: 4, heads: 4 });
  const ids = Array.from({ length: 512 }, (_, i) => (i * 37) % 256);
  const tokens = fromHost(hostTensor(ids, [4, 128], 'int32'));
  const step = (): void =>
    scope(() => {
      backward(model.call(tokens, { targets: tokens }) as Tensor);
      model.zeroGrad();
    });
  const times = turns(
    settings.map(([, spec]) => () => {
      applyActivationCheckpointing(model, spec, { logger: () => {} });
      step();
    }),
    count,
  );
  model.dispose();
  tokens.dispose();
  return times;
}

/** Milliseconds of each body in each round, after one untimed turn each. */
function turns(bodies: readonly (() => void)[], count = rounds): number[][] {
  const times: number[][] = bodies.map(() => []);
  for (let round = -1; round < count; round++) {
    const order = [...bodies.keys()];
    if (round % 2 === 0) order.reverse();
    for (const i of order) {
      const start = performance.now();
      bodies[i]?.();
      if (round >= 0) times[i]?.push(performance.now() - start);
    }
  }
  return times;
}

function row(name: string, text: string, missed: boolean): void {
  console.log(`  ${name.padEnd(36)}${text}${missed ? '   above the goal' : ''}`);
}

function median(list: readonly number[]): number {
  const sorted = list.toSorted((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}

function percent(share: number): string {
  return `${share < 0 ? '' : '+'}${(100 * share).toFixed(1)} %`;
}

regions();
policies();
