/**
 * The folder a run leaves behind:
 *
 *     config.yaml      the config with defaults and overrides filled in; at its end, what mode auto chose
 *     metrics.jsonl    a line for each logged step
 *     checkpoints/     what a resumed run starts from
 *     tokenizer/       files of the tokenizer
 *     model/           the trained model in Hugging Face format, at the end
 */

import { existsSync } from 'node:fs';
import { appendFile, copyFile, mkdir, readdir, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ConfigError } from '../../core/errors.ts';
import { fileErrorFrom } from '../../core/file-error.ts';
import { writeFileAtomic } from '../../data/files/atomic.ts';
import type { CausalLm } from '../../models/decoder/causal-lm.ts';
import { saveModel } from '../../models/save.ts';
import { formatYaml } from '../config/load.ts';
import { latestCheckpoint, type LoadedCheckpoint, readCheckpoint } from './training-state.ts';

export interface RunFolderConfig {
  readonly output_dir: string;
  readonly resume_from_checkpoint: boolean | string;
  readonly overwrite: boolean;
}

/**
 * Prepares the folder for a run and reads the checkpoint it resumes from, if it does. Throws ConfigError
 * when there is an earlier run that would be lost.
 */
export async function openRunFolder(
  config: RunFolderConfig,
  log: (line: string) => void,
): Promise<LoadedCheckpoint | undefined> {
  const { output_dir: folder, resume_from_checkpoint: resume } = config;
  const holdsRun = ['metrics.jsonl', 'checkpoints', 'model'].some((name) =>
    existsSync(join(folder, name)),
  );
  const from = resume === true ? await latestCheckpoint(folder) : resume || undefined;
  if (from === undefined && holdsRun && resume === false) {
    if (!config.overwrite) {
      throw new ConfigError(
        `run: output_dir holds an earlier run (got ${folder}). Choose another one, continue it with ` +
          'resume_from_checkpoint=true, or replace it with overwrite=true.',
        { key: 'output_dir', value: folder },
      );
    }
    for (const name of ['metrics.jsonl', 'checkpoints', 'model']) {
      await rm(join(folder, name), { recursive: true, force: true });
    }
  }
  await mkdir(folder, { recursive: true });
  await writeFileAtomic(join(folder, 'config.yaml'), await formatYaml(config));
  if (from === undefined) {
    if (resume === true) log(`no checkpoint in ${folder}: starting from the beginning`);
    return undefined;
  }
  const checkpoint = await readCheckpoint(from);
  log(`resuming from ${checkpoint.folder}, step ${checkpoint.state.step}`);
  return checkpoint;
}

/** Adds lines to the end of the folder's config.yaml, as comments. */
export async function noteInConfig(outputDir: string, lines: readonly string[]): Promise<void> {
  const path = join(outputDir, 'config.yaml');
  try {
    await appendFile(path, lines.map((line) => `# ${line}\n`).join(''));
  } catch (cause) {
    throw fileErrorFrom('run', path, cause);
  }
}

/** Where the tokenizer's files are. */
export function tokenizerFolder(outputDir: string): string {
  return join(outputDir, 'tokenizer');
}

/** Writes the trained model, with its tokenizer, to `model/`. Returns that folder. */
export async function saveFinalModel(model: CausalLm, outputDir: string): Promise<string> {
  const target = join(outputDir, 'model');
  await saveModel(model, target, { copyFrom: tokenizerFolder(outputDir) });
  return target;
}

/**
 * Puts the tokenizer's files into `tokenizer/`, from where they are copied beside every saved model: files
 * with their contents, or those found in a folder.
 */
export async function saveTokenizer(
  outputDir: string,
  source: Readonly<Record<string, object>> | string,
): Promise<void> {
  const target = tokenizerFolder(outputDir);
  await mkdir(target, { recursive: true });
  if (typeof source === 'string') {
    const folder = (await stat(source)).isDirectory() ? source : dirname(source);
    for (const name of await readdir(folder)) {
      if (/token|vocab|merges|chat_template/.test(name) && !name.endsWith('.safetensors')) {
        await copyFile(join(folder, name), join(target, name));
      }
    }
    return;
  }
  for (const [name, content] of Object.entries(source)) {
    await writeFileAtomic(join(target, name), `${JSON.stringify(content, null, 1)}\n`);
  }
}
