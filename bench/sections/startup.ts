/** How long it takes until something happens: the command's help, and the library's import. */

import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { Forecast } from '../driver/forecast.ts';
import { type Spread, spread } from '../driver/statistics.ts';

export interface StartupResult {
  readonly what: string;
  /** Seconds; undefined when it failed. */
  readonly seconds: Spread | undefined;
  readonly failure?: string;
}

const root = path.dirname(path.dirname(path.dirname(fileURLToPath(import.meta.url))));

/** Seconds that a Node process takes, at a guess. */
const guess = 0.2;

/** Tells the forecast of the section's work: four things, each once more than is timed. */
export function planStartup(runs: number, forecast: Forecast): void {
  forecast.plan('start-up', 4 * (runs + 1) * guess);
}

export function runStartup(runs: number, forecast: Forecast): StartupResult[] {
  const began = performance.now();
  const results = measureAll(runs);
  forecast.finish('start-up', 4 * (runs + 1) * guess, (performance.now() - began) / 1000);
  return results;
}

function measureAll(runs: number): StartupResult[] {
  return [
    measure('retune --help', runs, () => {
      const began = performance.now();
      runNode([path.join(root, 'bin', 'retune.mjs'), '--help']);
      return performance.now() - began;
    }),
    ...['src/index.ts', 'dist/index.js']
      .filter((entry) => existsSync(path.join(root, entry)))
      .map((entry) => measure(`import of the library (${entry})`, runs, () => importTime(entry))),
    measure('an empty script, for comparison', runs, () => {
      const began = performance.now();
      runNode(['-e', '0']);
      return performance.now() - began;
    }),
  ];
}

/** Inside a fresh process: milliseconds from before the import until it is done. */
function importTime(entry: string): number {
  const url = pathToFileURL(path.join(root, entry)).href;
  const script =
    'const began = performance.now();' +
    `await import(${JSON.stringify(url)});` +
    'process.stdout.write(String(performance.now() - began));';
  return Number(runNode(['--input-type=module', '-e', script]));
}

function runNode(args: readonly string[]): string {
  return execFileSync(process.execPath, [...args], {
    encoding: 'utf8',
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

function measure(what: string, runs: number, once: () => number): StartupResult {
  try {
    // The first run reads files from the disk and fills caches.
    once();
    const seconds = Array.from({ length: runs }, () => once() / 1000);
    return { what, seconds: spread(seconds) };
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    const line = text
      .split('\n')
      .find((part) => /error/i.test(part) && !part.startsWith('Command'));
    return { what, seconds: undefined, failure: (line ?? text).trim().slice(0, 200) };
  }
}
