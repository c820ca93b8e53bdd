/**
 * Checkpoints of a run: folders `checkpoints/step-<n>` that hold everything a run needs to go on as if it
 * had never stopped.
 *
 *     model/                   Hugging Face format, in the dtype of training
 *     optimizer.safetensors    optimizer state, `<slot>.<parameter>`
 *     state.json               step, place in the data, random state, learning-rate schedule
 *
 * A folder appears whole or not at all (writeFolderAtomic), so the one before survives a full disk or a
 * killed process.
 */

import { readdir, readFile, rm } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { ConfigError, FileError } from '../../core/errors.ts';
import type { HostTensor } from '../../core/host-tensor.ts';
import type { BatchState } from '../../data/corpus/batches.ts';
import { recoverFolder, writeFileAtomic, writeFolderAtomic } from '../../data/files/atomic.ts';
import type { FileSystem } from '../../data/files/file-system.ts';
import { openSafetensors } from '../../data/safetensors/reader.ts';
import { saveSafetensors } from '../../data/safetensors/writer.ts';
import type { LoadedOptimizerState, OptimizerState } from '../../optim/optimizer.ts';
import { toHost } from '../../tensor/factory.ts';
import type { MemoryChoice } from '../memory/choice.ts';

/** What is kept besides tensors; JSON. */
export interface RunState {
  /** Optimizer steps done. */
  readonly step: number;
  /** The batches that follow. */
  readonly data: BatchState;
  /** Random state by name. */
  readonly generators: Readonly<Record<string, { readonly seed: number; readonly offset: number }>>;
  readonly schedule: { readonly step: number };
  /** Settings that decide the numbers; a resumed run must have the same. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** What mode auto chose when the run began; a resumed run keeps to it. */
  readonly memory?: MemoryChoice;
}

export interface CheckpointParts {
  readonly state: RunState;
  readonly optimizer: OptimizerState;
  /** Writes the model into the folder it is given. */
  saveModel(folder: string): Promise<void>;
}

export interface SaveCheckpointOptions {
  /** How many checkpoints to keep, this one included. */
  readonly keepLast: number;
  /** The file operations to use; tests pass one that fails. */
  readonly fs?: FileSystem;
}

export interface LoadedCheckpoint {
  readonly folder: string;
  readonly modelFolder: string;
  readonly state: RunState;
  readonly optimizer: LoadedOptimizerState;
}

/** Writes `checkpoints/step-<n>` in the run folder; then removes the oldest ones. Returns its path. */
export async function saveCheckpoint(
  outputDir: string,
  parts: CheckpointParts,
  options: SaveCheckpointOptions,
): Promise<string> {
  const { state, optimizer } = parts;
  const folder = join(outputDir, 'checkpoints', folderName(state.step));
  const io = options.fs === undefined ? {} : { fs: options.fs };
  await writeFolderAtomic(
    folder,
    async (partial) => {
      await parts.saveModel(join(partial, 'model'));
      const entries = [...optimizer.tensors].map(([name, tensor]) => ({
        name,
        dtype: tensor.dtype,
        shape: tensor.shape,
        load: () => toHost(tensor),
      }));
      await saveSafetensors(join(partial, 'optimizer.safetensors'), entries, io);
      const { steps, groups } = optimizer;
      const json = JSON.stringify({ format: 1, ...state, optimizer: { steps, groups } }, null, 1);
      await writeFileAtomic(join(partial, 'state.json'), `${json}\n`, io);
    },
    { ...io, who: 'saveCheckpoint' },
  );
  await removeOldest(outputDir, options.keepLast);
  return folder;
}

/** The latest whole checkpoint of a run folder; undefined when there is none. */
export async function latestCheckpoint(outputDir: string): Promise<string | undefined> {
  const root = join(outputDir, 'checkpoints');
  for (const step of await interruptedReplacements(root)) await recoverFolder(join(root, step));
  const step = (await stepsIn(root)).at(-1);
  return step === undefined ? undefined : join(root, folderName(step));
}

/** Reads a checkpoint but for its model. Throws FileError for one that is missing or damaged. */
export async function readCheckpoint(path: string): Promise<LoadedCheckpoint> {
  const folder = resolve(path);
  const file = join(folder, 'state.json');
  let json: SavedState;
  try {
    json = JSON.parse(await readFile(file, 'utf8')) as SavedState;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new FileError(
      `readCheckpoint: ${folder} is not a checkpoint (got: ${reason}). Name a folder such as runs/name/checkpoints/step-000100.`,
      { path: file },
      cause,
    );
  }
  if (json.format !== 1) {
    throw new FileError(
      `readCheckpoint: ${file} has an unknown format (got ${json.format}, known is 1). Use the version of Retune that wrote it.`,
      { path: file },
    );
  }
  const tensors = new Map<string, HostTensor>();
  await using optimizer = await openSafetensors(join(folder, 'optimizer.safetensors'));
  for (const name of optimizer.names) tensors.set(name, await optimizer.read(name));
  const { optimizer: rest, format: _, ...state } = json;
  return {
    folder,
    modelFolder: join(folder, 'model'),
    state,
    optimizer: { tensors, steps: rest.steps, groups: rest.groups },
  };
}

/** Throws ConfigError when a setting that decides the numbers differs from the checkpoint's. */
export function checkSettings(
  saved: RunState,
  settings: RunState['settings'],
  folder: string,
): void {
  for (const [key, value] of Object.entries(settings)) {
    const before = saved.settings[key];
    if (JSON.stringify(before) === JSON.stringify(value)) continue;
    throw new ConfigError(
      `resume: ${key} differs from the checkpoint's (got ${JSON.stringify(value)}, ` +
        `${basename(folder)} has ${JSON.stringify(before)}). Use the config the run began with, or a fresh output_dir.`,
      { key, value, saved: before },
    );
  }
}

interface SavedState extends RunState {
  readonly format: number;
  readonly optimizer: Pick<LoadedOptimizerState, 'steps' | 'groups'>;
}

function folderName(step: number): string {
  return `step-${String(step).padStart(6, '0')}`;
}

/** Steps of the checkpoints in a folder, ascending; none when there is no folder. */
async function stepsIn(root: string): Promise<number[]> {
  const names = await namesIn(root);
  return names
    .flatMap((name) => /^step-(\d{6,})$/.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((a, b) => a - b);
}

/** Checkpoints whose replacement was cut off between two renames. */
async function interruptedReplacements(root: string): Promise<string[]> {
  const names = await namesIn(root);
  return names.flatMap((name) => /^\.(step-\d{6,})\.previous$/.exec(name)?.[1] ?? []);
}

async function namesIn(root: string): Promise<string[]> {
  try {
    return await readdir(root);
  } catch {
    return [];
  }
}

async function removeOldest(outputDir: string, keep: number): Promise<void> {
  const root = join(outputDir, 'checkpoints');
  const steps = await stepsIn(root);
  for (const step of steps.slice(0, Math.max(0, steps.length - keep))) {
    await rm(join(root, folderName(step)), { recursive: true, force: true });
  }
}
