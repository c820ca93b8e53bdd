/** A tiny run for tests: a corpus, and overrides that make pretrain/byte_llama train on it in a second. */

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { prepareRun } from '../../src/recipes/prepare.ts';
import type { RecipeIo, RunOutcome } from '../../src/recipes/recipe.ts';
import type { MetricsLine } from '../../src/recipes/run/metrics.ts';
import { findRecipe } from '../../src/recipes/registry.ts';

/** A folder that is removed when the test is over, with `corpus.txt` in it. */
export async function workFolder(): Promise<{ path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), 'retune-recipes-'));
  const sentence = 'the quick brown fox jumps over the lazy dog, and the dog sleeps on.\n';
  const lines = Array.from({ length: 160 }, (_, i) => `${(i * 7919) % 1000} ${sentence}`);
  await writeFile(join(path, 'corpus.txt'), lines.join(''));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/** Overrides for a run in `folder` that leaves its results in `folder/<name>`. */
export function tinyRun(folder: string, name: string, ...more: string[]): string[] {
  return [
    `dataset.files=${join(folder, 'corpus.txt')}`,
    'dataset.validation_fraction=0.1',
    `output_dir=${join(folder, name)}`,
    'model.hidden_size=32',
    'model.num_hidden_layers=2',
    'model.num_attention_heads=2',
    'model.num_key_value_heads=1',
    'batch_size=2',
    'sequence_length=16',
    'max_steps=6',
    'lr_scheduler.num_warmup_steps=1',
    'eval_every_n_steps=0',
    'eval_batches=2',
    'save_every_n_steps=0',
    ...more,
  ];
}

export interface FinishedRun {
  readonly outcome: RunOutcome;
  readonly lines: readonly string[];
}

/** Runs pretrain in this process. */
export async function pretrain(
  overrides: readonly string[],
  more: Partial<RecipeIo> = {},
): Promise<FinishedRun> {
  const lines: string[] = [];
  const prepared = await prepareRun(findRecipe('pretrain'), 'pretrain/byte_llama', overrides);
  const outcome = await prepared.main({
    log: (line) => lines.push(line),
    progress: false,
    ...more,
  });
  return { outcome, lines };
}

export async function readMetrics(outputDir: string): Promise<MetricsLine[]> {
  const text = await readFile(join(outputDir, 'metrics.jsonl'), 'utf8');
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
}

/** The losses of the training lines, exactly. */
export async function readLosses(outputDir: string): Promise<(number | undefined)[]> {
  return (await readMetrics(outputDir)).flatMap(({ loss }) => (loss === undefined ? [] : [loss]));
}

/** Bytes of the weights of a finished run, as hex. */
export async function weightsOf(outputDir: string): Promise<string> {
  return (await readFile(join(outputDir, 'model', 'model.safetensors'))).toString('hex');
}
