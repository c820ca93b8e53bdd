/**
 * `npm run bench`: times Retune's training steps, matrix products, ops and start-up, beside PyTorch
 * when a Python that has it is given, and writes reports/<name>.md and .json. See README.md.
 */

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { environments } from './contestants.ts';
import { machineFacts } from './driver/machine.ts';
import { ContestantError, Server } from './driver/server.ts';
import { type Options, readOptions, usage } from './options.ts';
import { renderReport } from './report/markdown.ts';
import type { Results } from './report/results.ts';
import { runMatmul } from './sections/matmul.ts';
import { runStartup } from './sections/startup.ts';
import { runTraining } from './sections/training.ts';

const here = path.dirname(fileURLToPath(import.meta.url));

const options = readOptions(process.argv.slice(2));
if (options === 'help') console.log(usage);
else await runBench(options);

async function runBench(chosen: Options): Promise<void> {
  const began = performance.now();
  const folder = mkdtempSync(path.join(os.tmpdir(), 'retune-bench-'));
  const list = environments(chosen.python);
  const results: Results = {
    name: chosen.name,
    command: chosen.shown,
    machine: machineFacts(),
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
  const wants = new Set(chosen.sections);
  // After each part, so that a long run that is broken off leaves what it found.
  const save = (): void => {
    results.minutes = (performance.now() - began) / 60_000;
    writeReport(results);
  };
  try {
    if (wants.has('startup')) {
      console.log('start-up');
      results.startup = runStartup(chosen.quick ? 1 : 7);
      save();
    }
    if (wants.has('matmul')) {
      console.log('matrix products');
      results.matmul = await runMatmul(list, chosen, console.log);
      save();
    }
    if (wants.has('training')) {
      for (const config of chosen.configs) {
        results.training.push(await runTraining(config, list, chosen, folder, console.log));
        save();
      }
    }
    if (wants.has('ops')) {
      console.log('ops');
      results.ops = await runOps(chosen);
      save();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  console.log(`\n${renderReport(results)}`);
}

async function runOps({ python, threads, quick }: Options): Promise<Results['ops']> {
  // Where there is no BLAS the generated multiply does.
  for (const name of ['retune+blas', 'retune+wasm'] as const) {
    const environment = environments(python).find((one) => one.name === name);
    if (!environment) continue;
    await using server = new Server(environment.command(threads));
    try {
      return await server.ask('ops', { milliseconds: quick ? 20 : 200 });
    } catch (error) {
      if (!(error instanceof ContestantError)) throw error;
      console.log(`  ${name}: ${error.message}`);
    }
  }
  return undefined;
}

function writeReport(results: Results): void {
  const folder = path.join(here, 'reports');
  mkdirSync(folder, { recursive: true });
  const file = path.join(folder, results.name);
  writeFileSync(`${file}.json`, `${JSON.stringify(results, undefined, 1)}\n`);
  writeFileSync(`${file}.md`, renderReport(results));
}

function ownVersion(): string {
  const text = readFileSync(path.join(here, '..', 'package.json'), 'utf8');
  return (JSON.parse(text) as { readonly version: string }).version;
}
