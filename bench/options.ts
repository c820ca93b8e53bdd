/** The command line of `npm run bench`. */

import { parseArgs } from 'node:util';
import { type BenchConfig, configs, findConfig } from './configs.ts';
import { withoutFolders } from './driver/server.ts';

export const sectionNames = ['training', 'matmul', 'ops', 'startup'] as const;
export type SectionName = (typeof sectionNames)[number];

export interface Options {
  readonly python: string | undefined;
  readonly configs: readonly BenchConfig[];
  readonly sections: readonly SectionName[];
  readonly rounds: number;
  readonly threads: number;
  readonly pauseMs: number;
  readonly maxOtherCores: number;
  readonly retries: number;
  /** Entries to run, by name; undefined for all. */
  readonly only: RegExp | undefined;
  readonly fusedOptimizer: boolean;
  readonly quick: boolean;
  /** Of the report's files, without extension. */
  readonly name: string;
  /** What was asked for, for the report: no paths. */
  readonly shown: string;
}

export const usage = `npm run bench -- [options]

  --python PATH      a Python with torch; without it PyTorch does not take part
  --configs LIST     ${configs.map((config) => config.name).join(',')} (default: all)
  --sections LIST    ${sectionNames.join(',')} (default: all)
  --rounds N         turns of each contestant (default 7)
  --threads N        of every contestant (default 2)
  --only REGEX       contestants by name, such as torch/eager or retune.blas/compiled/none
  --fused-adamw      PyTorch's AdamW with fused=True instead of its default
  --max-other N      cores that others may use during a turn that counts (default 0.1)
  --retries N        how often a disturbed turn is repeated (default 3)
  --pause MS         before each turn (default 400)
  --name NAME        of the report (default: the date)
  --quick            one short round of everything, to see that it runs; the figures mean little`;

/** Throws RangeError for values that make no sense, and what parseArgs throws for unknown options. */
export function readOptions(argv: readonly string[]): Options | 'help' {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      help: { type: 'boolean', short: 'h', default: false },
      python: { type: 'string' },
      configs: { type: 'string' },
      sections: { type: 'string' },
      rounds: { type: 'string' },
      threads: { type: 'string' },
      only: { type: 'string' },
      'fused-adamw': { type: 'boolean', default: false },
      'max-other': { type: 'string' },
      retries: { type: 'string' },
      pause: { type: 'string' },
      name: { type: 'string' },
      quick: { type: 'boolean', default: false },
    },
  });
  if (values.help) return 'help';
  const { quick } = values;
  return {
    python: values.python,
    configs: values.configs === undefined ? configs : values.configs.split(',').map(findConfig),
    sections: readSections(values.sections),
    rounds: positive('rounds', values.rounds, quick ? 1 : 7),
    threads: positive('threads', values.threads, 2),
    pauseMs: number('pause', values.pause, quick ? 100 : 400),
    maxOtherCores: number('max-other', values['max-other'], 0.1),
    retries: number('retries', values.retries, quick ? 0 : 3),
    only: values.only === undefined ? undefined : new RegExp(values.only),
    fusedOptimizer: values['fused-adamw'],
    quick,
    name: values.name ?? new Date().toISOString().slice(0, 10),
    shown: shownCommand(argv),
  };
}

/** The interpreter without its folder; everything else as it was asked for. */
function shownCommand(argv: readonly string[]): string {
  const words = argv.map((word, i) => {
    if (argv[i - 1] === '--python' || word.startsWith('--python=')) return withoutFolders(word);
    return /[\s|*$()<>&;]/.test(word) ? `'${word}'` : word;
  });
  return ['npm run bench --', ...words].join(' ');
}

function readSections(text: string | undefined): readonly SectionName[] {
  if (text === undefined) return sectionNames;
  return text.split(',').map((name) => {
    const found = sectionNames.find((known) => known === name);
    if (found) return found;
    throw new RangeError(`bench: there is no section '${name}'. Use ${sectionNames.join(', ')}.`);
  });
}

function number(name: string, text: string | undefined, standard: number): number {
  const value = text === undefined ? standard : Number(text);
  if (Number.isFinite(value) && value >= 0) return value;
  throw new RangeError(`bench: --${name} must be a number from 0 on (got ${text}).`);
}

function positive(name: string, text: string | undefined, standard: number): number {
  const value = number(name, text, standard);
  if (Number.isInteger(value) && value > 0) return value;
  throw new RangeError(`bench: --${name} must be a positive integer (got ${text}).`);
}
