/** Training steps: losses agree, then interleaved rounds, then the memory of one step of each. */

import { type BenchConfig, stepFlops, tokensPerStep } from '../configs.ts';
import { type Entry, type Environment, type EnvironmentName, entriesOf } from '../contestants.ts';
import type { Forecast } from '../driver/forecast.ts';
import { LastingServer } from '../driver/lasting-server.ts';
import type { AnswerOf } from '../driver/protocol.ts';
import { type FailedTurn, runRounds, type Turn, type TurnRecord } from '../driver/rounds.ts';
import { ContestantError } from '../driver/server.ts';
import { type Materials, writeMaterials } from '../materials.ts';
import type { Options } from '../options.ts';

/** Steps whose losses are compared. */
export const comparedSteps = 4;

export interface EntryResult {
  readonly entry: Entry;
  /** Why it did not run. */
  failure?: string;
  /** Of the first steps, from the stored weights. */
  losses?: readonly number[];
  /** The first step, compilation included. */
  firstStepSeconds?: number;
  memory?: AnswerOf<'memory'>;
  turns?: TurnRecord['turns'];
  failedTurns?: TurnRecord['failed'];
}

export interface TrainingResult {
  readonly config: BenchConfig;
  readonly tokensPerStep: number;
  readonly flopsPerStep: number;
  parameters: number;
  readonly entries: EntryResult[];
}

/** What the section needs of the run around it. */
export interface TrainingRun {
  readonly environments: readonly Environment[];
  readonly options: Options;
  /** For files that contestants read. */
  readonly folder: string;
  readonly forecast: Forecast;
  readonly log: (line: string) => void;
  /** Called whenever there is more in a result. */
  readonly save: () => void;
}

interface Config extends TrainingRun {
  readonly result: TrainingResult;
  readonly materials: Materials;
  readonly servers: ReadonlyMap<EnvironmentName, LastingServer>;
}

/** Tells the forecast of the config's work. */
export function planTraining(
  config: BenchConfig,
  { environments, options, forecast }: TrainingRun,
) {
  for (const { name, variant } of chosenEntries(environments, options)) {
    for (const [stage, guess] of Object.entries(guesses(config, options, variant.checkpointing))) {
      const times = stage === 'turn' ? options.rounds : 1;
      forecast.plan(`${stage} of ${name}`, times * guess);
    }
  }
}

/** An empty result, to be filled by `runTraining`. */
export function emptyTraining(config: BenchConfig, run: TrainingRun): TrainingResult {
  return {
    config,
    tokensPerStep: tokensPerStep(config),
    flopsPerStep: stepFlops(config),
    parameters: 0,
    entries: chosenEntries(run.environments, run.options).map((entry) => ({ entry })),
  };
}

export async function runTraining(result: TrainingResult, run: TrainingRun): Promise<void> {
  const { config, entries } = result;
  run.log(`${config.name}: ${config.about}`);
  const { environments, options, folder } = run;
  const materials = writeMaterials(config, folder);
  await using stack = new AsyncDisposableStack();
  const servers = new Map<EnvironmentName, LastingServer>();
  for (const environment of environments) {
    if (!entries.some(({ entry }) => entry.environment === environment.name)) continue;
    const server = new LastingServer(environment.command(options.threads), async (fresh) => {
      await fresh.ask('facts', { threads: options.threads });
      const { fusedOptimizer } = options;
      const loaded = await fresh.ask('load', { config, materials, fusedOptimizer });
      result.parameters = loaded.parameters;
    });
    servers.set(environment.name, stack.use(server));
  }
  const all = { ...run, result, materials, servers };
  // One after the other: compilers of two of them at a time would only get in each other's way.
  for (const one of inEnvironmentOrder(entries, environments)) await startEntry(one, all);
  await race(all);
  for (const one of entries) {
    if (one.failure === undefined) await measureMemory(one, all);
  }
}

async function startEntry(one: EntryResult, run: Config): Promise<void> {
  const { name, variant } = one.entry;
  await stage('start', one, run, async (server) => {
    const started = await server.ask('start', { variant, steps: comparedSteps });
    one.losses = started.losses;
    one.firstStepSeconds = started.firstStepSeconds;
  });
  const losses = one.losses?.map((loss) => loss.toFixed(5)).join(' ');
  run.log(`  ${name}: ${losses ? `losses ${losses}` : `failed: ${one.failure}`}`);
  if (one.failure === undefined) return;
  const { turn, memory } = guesses(run.result.config, run.options, variant.checkpointing);
  run.forecast.drop(`turn of ${name}`, run.options.rounds * turn);
  run.forecast.drop(`memory of ${name}`, memory);
}

async function race({ result, servers, options, forecast, log, save }: Config): Promise<void> {
  const { config } = result;
  const steps = options.quick ? 1 : config.stepsPerTurn;
  const running = new Map(
    result.entries.flatMap((one) => (one.failure === undefined ? [[one.entry.name, one]] : [])),
  );
  await runRounds(
    [...running.values()].flatMap(({ entry: { name, environment, variant } }) => {
      const server = servers.get(environment);
      const turn = { variant, warm: 1, steps };
      return server ? [{ name, turn: () => server.ask('steps', turn) }] : [];
    }),
    {
      ...options,
      onTurn: ({ name }, turn) => log(`  round ${turn.round + 1} ${name}: ${turnText(turn)}`),
      onDone: ({ name, turns, failed }, seconds) => {
        const one = running.get(name);
        if (!one) return;
        one.turns = turns;
        one.failedTurns = failed;
        const { turn } = guesses(config, options, one.entry.variant.checkpointing);
        if (seconds > 0) forecast.finish(`turn of ${name}`, turn, seconds);
        else forecast.drop(`turn of ${name}`, turn);
        save();
      },
    },
  );
}

async function measureMemory(one: EntryResult, run: Config): Promise<void> {
  const failure = await stage('memory', one, run, async (server) => {
    one.memory = await server.ask('memory', { variant: one.entry.variant });
  });
  // The times stand all the same.
  if (failure === undefined) return;
  run.log(`  ${one.entry.name}: memory not measured: ${failure}`);
}

type Stage = 'start' | 'memory';

/** Runs `work`; what a contestant cannot do is returned, and noted in `one` if it could not even start. */
async function stage(
  name: Stage,
  one: EntryResult,
  { result, servers, options, forecast, save }: Config,
  work: (server: LastingServer) => Promise<void>,
): Promise<string | undefined> {
  const server = servers.get(one.entry.environment);
  const began = performance.now();
  let failure: string | undefined;
  try {
    if (server) await work(server);
  } catch (error) {
    if (!(error instanceof ContestantError)) throw error;
    failure = error.message;
    if (name === 'start') one.failure = failure;
  }
  const guess = guesses(result.config, options, one.entry.variant.checkpointing)[name];
  const seconds = (performance.now() - began) / 1000;
  forecast.finish(`${name} of ${one.entry.name}`, guess, seconds);
  save();
  return failure;
}

/** Seconds that each stage of one entry would take at a hundred GFLOP/s. */
function guesses(
  config: BenchConfig,
  { quick, pauseMs }: Options,
  checkpointing: 'none' | 'full',
): { readonly start: number; readonly turn: number; readonly memory: number } {
  const step = (stepFlops(config) * (checkpointing === 'full' ? 4 / 3 : 1)) / 1e11;
  const timed = quick ? 1 : config.stepsPerTurn;
  return { start: comparedSteps * step, turn: (1 + timed) * step + pauseMs / 1000, memory: step };
}

function chosenEntries(environments: readonly Environment[], { only }: Options): Entry[] {
  return entriesOf(environments).filter(({ name }) => only?.test(name) ?? true);
}

function inEnvironmentOrder(
  entries: readonly EntryResult[],
  environments: readonly Environment[],
): EntryResult[] {
  return environments.flatMap(({ name }) =>
    entries.filter(({ entry }) => entry.environment === name),
  );
}

function turnText(turn: Turn | FailedTurn): string {
  if ('reason' in turn) return `failed: ${turn.reason}`;
  const times = turn.ms.map((value) => value.toFixed(1)).join(' ');
  const note = turn.disturbed ? ', discarded' : '';
  return `${times} ms (others ${turn.otherCores.toFixed(2)}${note})`;
}
