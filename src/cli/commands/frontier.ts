/** `retune frontier`: how much time each amount of step memory costs, estimated and measured. */

import type { FrontierPoint } from '../../compile/frontier.ts';
import type { MeasuredPoint } from '../../recipes/frontier.ts';
import type { StepShape } from '../../recipes/recipe.ts';
import { type CliCommand, listOf, numberOption } from '../command.ts';
import { configOptions, overridesArgument, stepRequestOf } from '../step-config.ts';

const whole = (least: number) => (value: number) => Number.isInteger(value) && value >= least;

export const frontier: CliCommand = {
  name: 'frontier',
  summary: 'show what time each amount of step memory costs',
  arguments: [overridesArgument],
  options: [
    ...configOptions,
    {
      flags: '-n, --points <number>',
      doc: 'budgets to estimate (default 20)',
      parse: numberOption('points', 'a whole number of at least 2', whole(2)),
    },
    {
      flags: '-m, --measure <number>',
      doc: 'of those, how many to run and time; 0 for none (default 6)',
      parse: numberOption('measure', 'a whole number of at least 0', whole(0)),
    },
    {
      flags: '--rounds <number>',
      doc: 'timed steps of each measured point (default 5)',
      parse: numberOption('rounds', 'a whole number of at least 1', whole(1)),
    },
    { flags: '-o, --output <file>', doc: 'writes FILE.json and FILE.svg (default frontier)' },
  ],
  examples: [
    {
      command: 'retune frontier --config my.yaml',
      doc: 'a table, frontier.json and the picture frontier.svg',
    },
    {
      command: 'retune frontier --config pretrain/byte_llama --measure 0',
      doc: 'estimated only: needs neither the memory nor the time of a step',
    },
  ],
  run: async ([overrides], options) => {
    const { shape } = await stepRequestOf('frontier', options, listOf(overrides));
    const { withPlannedStep } = await import('../../recipes/step-plan.ts');
    const { formatBytes } = await import('../../core/bytes.ts');
    const points = (options.points as number | undefined) ?? 20;
    const { Wait } = await import('../wait.ts');
    const wait = new Wait();
    const estimated = withPlannedStep(shape, ({ plan }) =>
      plan.frontier(points, (done) => wait.show('planning', done)),
    );
    wait.stop();
    console.log('step memory  time added  at least');
    for (const { peakBytes, extraTime, extraTimeBound } of estimated) {
      const shares = [extraTime, extraTimeBound].map((share) => `${(100 * share).toFixed(2)} %`);
      console.log(
        `${formatBytes(peakBytes).padStart(11)}  ${shares.map((text) => text.padStart(9)).join(' ')}`,
      );
    }
    const count = (options.measure as number | undefined) ?? 6;
    const measured = count === 0 ? [] : await measure(shape, estimated, count, options);
    for (const { peakBytes, ms, extraTime } of measured) {
      console.log(
        `measured: ${formatBytes(peakBytes)}  ${ms.toFixed(1)} ms  ${(100 * extraTime).toFixed(1)} % added`,
      );
    }
    await write(options, shape, estimated, measured);
    return 0;
  },
};

async function measure(
  shape: StepShape,
  estimated: readonly FrontierPoint[],
  points: number,
  options: Readonly<Record<string, unknown>>,
): Promise<readonly MeasuredPoint[]> {
  const { measureFrontier } = await import('../../recipes/frontier.ts');
  const { Wait } = await import('../wait.ts');
  const wait = new Wait();
  const measured = measureFrontier(shape, estimated, {
    points,
    rounds: (options.rounds as number | undefined) ?? 5,
    onProgress: (done, of) => wait.show(`measuring: step ${done} of ${of}`, done / of),
  });
  wait.stop();
  return measured;
}

async function write(
  options: Readonly<Record<string, unknown>>,
  { training }: StepShape,
  estimated: readonly FrontierPoint[],
  measured: readonly MeasuredPoint[],
): Promise<void> {
  const { frontierSvg } = await import('../../recipes/frontier-svg.ts');
  const { writeFileAtomic } = await import('../../data/files/atomic.ts');
  const base = String(options.output ?? 'frontier').replace(/\.(json|svg)$/, '');
  const title = `${String(options.config)}: ${training.batch_size} x ${training.sequence_length} tokens a step`;
  const json = { config: options.config, training, estimated, measured };
  await writeFileAtomic(`${base}.json`, `${JSON.stringify(json, undefined, 2)}\n`);
  await writeFileAtomic(`${base}.svg`, frontierSvg(title, estimated, measured));
  console.log(`written: ${base}.json and ${base}.svg`);
}
