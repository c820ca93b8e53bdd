/** Training steps: losses agree, then interleaved rounds, then the memory of one step of each. */

import { type BenchConfig, stepFlops, tokensPerStep } from '../configs.ts';
import { type Entry, type Environment, type EnvironmentName, entriesOf } from '../contestants.ts';
import type { AnswerOf } from '../driver/protocol.ts';
import { runRounds, type TurnRecord } from '../driver/rounds.ts';
import { ContestantError, Server } from '../driver/server.ts';
import { writeMaterials } from '../materials.ts';
import type { Options } from '../options.ts';

/** Steps whose losses are compared. */
export const comparedSteps = 4;

export interface EntryResult {
  readonly entry: Entry;
  /** Why it did not run, or gave up. */
  failure?: string;
  /** Of the first steps, from the stored weights. */
  losses?: readonly number[];
  /** The first step, compilation included. */
  firstStepSeconds?: number;
  memory?: AnswerOf<'memory'>;
  turns?: TurnRecord['turns'];
}

export interface TrainingResult {
  readonly config: BenchConfig;
  readonly tokensPerStep: number;
  readonly flopsPerStep: number;
  parameters: number;
  readonly facts: Partial<{ [E in EnvironmentName]: Readonly<Record<string, string>> }>;
  readonly entries: EntryResult[];
}

export async function runTraining(
  config: BenchConfig,
  list: readonly Environment[],
  options: Options,
  folder: string,
  log: (line: string) => void,
): Promise<TrainingResult> {
  log(`${config.name}: ${config.about}`);
  const materials = writeMaterials(config, folder);
  const { only, threads, fusedOptimizer } = options;
  const entries = entriesOf(list)
    .filter(({ name }) => only?.test(name) ?? true)
    .map((entry): EntryResult => ({ entry }));
  const result: TrainingResult = {
    config,
    tokensPerStep: tokensPerStep(config),
    flopsPerStep: stepFlops(config),
    parameters: 0,
    facts: {},
    entries,
  };
  await using stack = new AsyncDisposableStack();
  const servers = new Map<EnvironmentName, Server>();
  for (const environment of list) {
    const own = entries.filter(({ entry }) => entry.environment === environment.name);
    if (own.length === 0) continue;
    const server = stack.use(new Server(environment.command(threads)));
    servers.set(environment.name, server);
    await attempt(own, async () => {
      result.facts[environment.name] = await server.ask('facts', { threads });
      const loaded = await server.ask('load', { config, materials, fusedOptimizer });
      result.parameters = loaded.parameters;
    });
    // One after the other: compilers of two of them at a time would only get in each other's way.
    for (const one of own) await startEntry(one, server, log);
  }
  await race(result, servers, options, log);
  for (const one of entries) {
    const server = servers.get(one.entry.environment);
    if (!server || one.failure !== undefined) continue;
    await attempt([one], async () => {
      one.memory = await server.ask('memory', { variant: one.entry.variant });
    });
  }
  return result;
}

async function startEntry(
  one: EntryResult,
  server: Server,
  log: (line: string) => void,
): Promise<void> {
  if (one.failure !== undefined) return;
  await attempt([one], async () => {
    const { variant } = one.entry;
    const started = await server.ask('start', { variant, steps: comparedSteps });
    one.losses = started.losses;
    one.firstStepSeconds = started.firstStepSeconds;
  });
  const losses = one.losses?.map((loss) => loss.toFixed(5)).join(' ');
  log(`  ${one.entry.name}: ${losses ? `losses ${losses}` : `failed: ${one.failure}`}`);
}

async function race(
  { config, entries }: TrainingResult,
  servers: ReadonlyMap<EnvironmentName, Server>,
  options: Options,
  log: (line: string) => void,
): Promise<void> {
  const steps = options.quick ? 1 : config.stepsPerTurn;
  const running = entries.filter(({ failure }) => failure === undefined);
  const records = await runRounds(
    running.flatMap(({ entry: { name, environment, variant } }) => {
      const server = servers.get(environment);
      const turn = { variant, warm: 1, steps };
      return server ? [{ name, turn: () => server.ask('steps', turn) }] : [];
    }),
    {
      ...options,
      onTurn: (name, { round, ms, otherCores, disturbed }) => {
        const times = ms.map((value) => value.toFixed(1)).join(' ');
        const note = disturbed ? ', discarded' : '';
        log(`  round ${round + 1} ${name}: ${times} ms (others ${otherCores.toFixed(2)}${note})`);
      },
    },
  );
  for (const [i, one] of running.entries()) {
    const record = records[i];
    if (!record) continue;
    one.turns = record.turns;
    if (record.failure !== undefined) one.failure = record.failure;
  }
}

/** Runs `work`; what a contestant cannot do is noted in `results`. */
async function attempt(results: readonly EntryResult[], work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof ContestantError)) throw error;
    for (const result of results) result.failure = error.message;
  }
}
