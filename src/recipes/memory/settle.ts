/** Mode auto in a run: chooses at the start, and keeps to the choice when the run is resumed. */

import { readBytes, formatBytes } from '../../core/bytes.ts';
import { ConfigError, InfeasibleBudgetError } from '../../core/errors.ts';
import type { RawConfig } from '../../models/decoder/config-fields.ts';
import { automaticSetting, type AutomaticSetting } from '../config/checkpointing-keys.ts';
import type { TrainingConfig } from '../config/training-keys.ts';
import type { RecipeIo } from '../recipe.ts';
import { noteInConfig } from '../run/run-folder.ts';
import type { LoadedCheckpoint } from '../run/training-state.ts';
import { type AvailableMemory, availableMemory } from './available.ts';
import { type MemoryChoice, withChosen } from './choice.ts';
import { describeChoice, describeChosen, describeSplit } from './describe.ts';
import { fitMemory } from './fit.ts';

export interface Settled<C> {
  /** The config to train with; never mode auto. */
  readonly config: C;
  /** What mode auto chose; undefined for another mode. */
  readonly memory: MemoryChoice | undefined;
}

/** Planning that takes longer than this says what it does, milliseconds. */
const patience = 1000;

/**
 * The config that a run trains with: with mode auto, what fits into memory best, or what the checkpoint says was
 * chosen when the run began. Says so in the log and in the run folder's config. Throws InfeasibleBudgetError when
 * nothing fits, or no longer does, and ConfigError when the checkpoint was made for another batch.
 */
export async function settleMemory<C extends TrainingConfig>(
  model: RawConfig,
  config: C,
  checkpoint: LoadedCheckpoint | undefined,
  io: RecipeIo,
): Promise<Settled<C>> {
  const setting = automaticSetting(config);
  if (!setting) return { config, memory: undefined };
  const available = io.availableMemory ?? availableMemory;
  const recorded = checkpoint?.state.memory;
  const memory = recorded
    ? resumed(recorded, config, setting, available, io.log)
    : chosenNow(model, withoutDividing(config, checkpoint), setting, available, io.log);
  const lines = describeChoice(memory);
  if (!recorded) for (const line of lines) io.log(line);
  await noteInConfig(config.output_dir, lines);
  return { config: withChosen(config, memory.chosen), memory };
}

function chosenNow(
  model: RawConfig,
  training: TrainingConfig,
  { memory }: AutomaticSetting,
  available: () => AvailableMemory,
  log: (line: string) => void,
): MemoryChoice {
  const began = performance.now();
  const { choice } = fitMemory(
    { model, training },
    {
      available,
      onPlan: (split) => {
        if (performance.now() - began < patience) return;
        log(`planning ${describeSplit(split)} ...`);
      },
    },
  );
  if (memory !== undefined) {
    const there = available();
    if (choice.totalBytes > there.bytes) {
      log(
        `warning: ${formatBytes(choice.totalBytes)} is more than there is now, ${formatBytes(there.bytes)} (${there.from})`,
      );
    }
  }
  return choice;
}

/** A run that began in another mode goes on with the batches it has. */
function withoutDividing(
  config: TrainingConfig,
  checkpoint: LoadedCheckpoint | undefined,
): TrainingConfig {
  if (!checkpoint) return config;
  const { activation_checkpointing: group } = config;
  return { ...config, activation_checkpointing: { ...group, adapt_batch: false } };
}

function resumed(
  recorded: MemoryChoice,
  config: TrainingConfig,
  { memory }: AutomaticSetting,
  available: () => AvailableMemory,
  log: (line: string) => void,
): MemoryChoice {
  for (const key of ['batch_size', 'gradient_accumulation_steps'] as const) {
    if (config[key] === recorded.asked[key]) continue;
    throw new ConfigError(
      `resume: ${key} differs from that of the run that is resumed (got ${config[key]}, it began with ${recorded.asked[key]}). ` +
        'Use the config the run began with, or a fresh output_dir.',
      { key, value: config[key], saved: recorded.asked[key] },
    );
  }
  const { totalBytes, chosen } = recorded;
  const limit = readBytes(memory);
  if (limit !== undefined && totalBytes > limit) {
    throw new InfeasibleBudgetError(
      `resume: what the run chose when it began no longer fits into memory (got memory: ${memory}, and ${formatBytes(totalBytes)} ` +
        `for ${describeSplit(chosen)}). Give at least memory: ${totalBytes}, leave memory out, or begin afresh in another output_dir.`,
      { budgetBytes: limit, smallestBytes: totalBytes },
    );
  }
  log(`automatic: as when the run began: ${describeChosen(recorded)}`);
  const now = available();
  if (limit === undefined && totalBytes > now.bytes) {
    log(
      `warning: that is more than there is now, ${formatBytes(now.bytes)} (${now.from}); less needs a fresh run`,
    );
  }
  return recorded;
}
