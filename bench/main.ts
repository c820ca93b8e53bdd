/**
 * `npm run bench`: times Retune's training steps, matrix products, ops and start-up, beside PyTorch
 * when a Python that has it is given, and writes reports/<name>.md and .json. See README.md.
 */

import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Environment, environments } from './contestants.ts';
import { durationText, Forecast } from './driver/forecast.ts';
import { machineFacts } from './driver/machine.ts';
import { ContestantError, Server, withoutFolders } from './driver/server.ts';
import { type Options, readOptions, usage } from './options.ts';
import { renderReport } from './report/markdown.ts';
import type { Results } from './report/results.ts';
import { planMatmul, runMatmul } from './sections/matmul.ts';
import { planStartup, runStartup } from './sections/startup.ts';
import { emptyTraining, planTraining, runTraining, type TrainingRun } from './sections/training.ts';

const here = path.dirname(fileURLToPath(import.meta.url));

const options = readOptions(process.argv.slice(2));
if (options === 'help') console.log(usage);
else await runBench(options);

async function runBench(chosen: Options): Promise<void> {
  const began = performance.now();
  const folder = temporaryFolder();
  const results: Results = {
    name: chosen.name,
    command: chosen.shown,
    machine: machineFacts(),
    software: {},
    absent: [],
    retune: ownVersion(),
    threads: chosen.threads,
    rounds: chosen.rounds,
    maxOtherCores: chosen.maxOtherCores,
    quick: chosen.quick,
    minutes: 0,
    training: [],
    matmul: [],
    ops: undefined,
    startup: [],
  };
  const forecast = new Forecast();
  const log = (line: string): void => {
    const left = forecast.secondsLeft;
    console.log(left ? `${line}  [about ${durationText(left)} left]` : line);
  };
  // After each turn, so that a long run that is broken off leaves what it found.
  const save = (): void => {
    results.minutes = (performance.now() - began) / 60_000;
    writeReport(results);
  };
  const list = await present(environments(chosen.python), chosen.threads, results);
  const run: TrainingRun = { environments: list, options: chosen, folder, forecast, log, save };
  const wants = new Set(chosen.sections);
  const configs = wants.has('training') ? chosen.configs : [];
  if (wants.has('startup')) planStartup(startupRuns(chosen), forecast);
  if (wants.has('matmul')) planMatmul(list, chosen, forecast);
  if (wants.has('ops')) forecast.plan('ops', opsGuess(chosen));
  for (const config of configs) planTraining(config, run);
  if (wants.has('startup')) {
    log('start-up');
    results.startup = runStartup(startupRuns(chosen), forecast);
    save();
  }
  if (wants.has('matmul')) {
    log('matrix products');
    results.matmul = await runMatmul(list, chosen, forecast, log);
    save();
  }
  if (wants.has('ops')) {
    log('ops');
    const opsBegan = performance.now();
    results.ops = await runOps(list, chosen, log);
    forecast.finish('ops', opsGuess(chosen), (performance.now() - opsBegan) / 1000);
    save();
  }
  for (const config of configs) {
    const result = emptyTraining(config, run);
    results.training.push(result);
    await runTraining(result, run);
    save();
  }
  console.log(`\n${renderReport(results)}`);
}

/** The contestants that start and can say what they are; the others are noted and left out. */
async function present(
  list: readonly Environment[],
  threads: number,
  { software, absent }: Results,
): Promise<Environment[]> {
  const found: Environment[] = [];
  for (const environment of list) {
    try {
      await using server = new Server(environment.command(threads));
      const facts = Object.entries(await server.ask('facts', { threads }));
      software[environment.name] = Object.fromEntries(
        facts.map(([key, value]) => [key, withoutFolders(value)]),
      );
      found.push(environment);
    } catch (error) {
      if (!(error instanceof ContestantError)) throw error;
      absent.push({ environment: environment.name, reason: error.message });
      console.log(`${environment.title} does not take part: ${error.message}`);
    }
  }
  return found;
}

function startupRuns({ quick }: Options): number {
  return quick ? 1 : 7;
}

function opMilliseconds({ quick }: Options): number {
  return quick ? 20 : 200;
}

/** Seconds for about a hundred ops, each warmed up half as long as it is timed. */
function opsGuess(options: Options): number {
  return 100 * 1.5 * (opMilliseconds(options) / 1000);
}

async function runOps(
  list: readonly Environment[],
  chosen: Options,
  log: (line: string) => void,
): Promise<Results['ops']> {
  // Where there is no BLAS the generated multiply does.
  for (const name of ['retune+blas', 'retune+wasm'] as const) {
    const environment = list.find((one) => one.name === name);
    if (!environment) continue;
    try {
      await using server = new Server(environment.command(chosen.threads));
      return await server.ask('ops', { milliseconds: opMilliseconds(chosen) });
    } catch (error) {
      if (!(error instanceof ContestantError)) throw error;
      log(`  ${name}: ${error.message}`);
    }
  }
  return undefined;
}

/** Removed when this process ends, by a signal too. */
function temporaryFolder(): string {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'retune-bench-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => process.exit(128 + os.constants.signals[signal]));
  }
  return folder;
}

function writeReport(results: Results): void {
  const folder = path.join(here, 'reports');
  mkdirSync(folder, { recursive: true });
  const file = path.join(folder, results.name);
  // The old report stays whole if this process ends while it writes.
  for (const [target, text] of [
    [`${file}.json`, `${JSON.stringify(results, undefined, 1)}\n`],
    [`${file}.md`, renderReport(results)],
  ] as const) {
    writeFileSync(`${target}.partial`, text);
    renameSync(`${target}.partial`, target);
  }
}

function ownVersion(): string {
  const text = readFileSync(path.join(here, '..', 'package.json'), 'utf8');
  return (JSON.parse(text) as { readonly version: string }).version;
}
