/** Square products of 1,024 on one thread and on all, with either operand transposed. */

import type { Environment } from '../contestants.ts';
import type { Forecast } from '../driver/forecast.ts';
import type { Product } from '../driver/protocol.ts';
import { allRounds, cleanRounds, runRounds, type TurnRecord } from '../driver/rounds.ts';
import { Server } from '../driver/server.ts';
import { type Spread, spread } from '../driver/statistics.ts';
import type { Options } from '../options.ts';

const size = 1024;

export const layouts: readonly (Product & { readonly name: string })[] = [
  { name: 'A B', size, transposeA: false, transposeB: false },
  { name: 'A^T B', size, transposeA: true, transposeB: false },
  { name: 'A B^T', size, transposeA: false, transposeB: true },
];

export interface MatmulRow {
  readonly environment: Environment['name'];
  readonly threads: number;
  readonly layout: string;
  /** GFLOP/s over rounds. */
  readonly rate: Spread | undefined;
  /** Whether no turn was undisturbed, so that `rate` is of disturbed ones. */
  readonly disturbed: boolean;
  readonly discarded: number;
  readonly failure: string | undefined;
}

const warmSteps = 2;

/** Tells the forecast of the section's work. */
export function planMatmul(
  list: readonly Environment[],
  options: Options,
  forecast: Forecast,
): void {
  const turns = list.length * threadCounts(options).length * layouts.length * options.rounds;
  forecast.plan('products', turns * guess(options));
}

export async function runMatmul(
  list: readonly Environment[],
  options: Options,
  forecast: Forecast,
  log: (line: string) => void,
): Promise<MatmulRow[]> {
  await using stack = new AsyncDisposableStack();
  const counts = threadCounts(options);
  const cases = list.flatMap((environment) =>
    counts.flatMap((threads) => {
      const server = stack.use(new Server(environment.command(threads)));
      return layouts.map((layout) => ({ environment, threads, layout, server }));
    }),
  );
  const records = await runRounds(
    cases.map(({ environment, threads, layout, server }) => ({
      name: `${environment.name} ${layout.name} on ${threads}`,
      turn: () => {
        const { name: _, ...product } = layout;
        return server.ask('matmul', {
          ...product,
          threads,
          warm: warmSteps,
          steps: timedSteps(options),
        });
      },
    })),
    {
      ...options,
      onDone: (_, seconds) => {
        if (seconds > 0) forecast.finish('products', guess(options), seconds);
        else forecast.drop('products', guess(options));
      },
    },
  );
  const rows = cases.map(({ environment, threads, layout }, i) =>
    summarize(environment.name, threads, layout.name, records[i]),
  );
  for (const { environment, threads, layout, rate, failure } of rows) {
    const text = rate ? `${rate.median.toFixed(1)} GFLOP/s` : (failure ?? 'no turn');
    log(`  ${environment} ${layout} on ${threads}: ${text}`);
  }
  return rows;
}

function threadCounts({ threads }: Options): number[] {
  return [...new Set([1, threads])];
}

function timedSteps({ quick }: Options): number {
  return quick ? 2 : 12;
}

/** Seconds of a turn at a hundred GFLOP/s. */
function guess(options: Options): number {
  const products = warmSteps + timedSteps(options);
  return (products * 2 * size ** 3) / 1e11 + options.pauseMs / 1000;
}

function summarize(
  environment: Environment['name'],
  threads: number,
  layout: string,
  record: TurnRecord | undefined,
): MatmulRow {
  const clean = record ? cleanRounds(record).filter((ms) => ms !== undefined) : [];
  const all = record ? allRounds(record).filter((ms) => ms !== undefined) : [];
  const times = clean.length > 0 ? clean : all;
  return {
    environment,
    threads,
    layout,
    rate: spread(times.map((ms) => (2e-6 * size ** 3) / ms)),
    disturbed: clean.length === 0,
    discarded: record?.turns.filter((turn) => turn.disturbed).length ?? 0,
    failure: record?.failed.at(-1)?.reason,
  };
}
