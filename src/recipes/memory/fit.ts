/** Choosing how to train within an amount of memory: what `activation_checkpointing: { mode: auto }` does. */

import { type ByteBudget, budgetBytes, shareOf } from '../../core/byte-budget.ts';
import { formatBytes } from '../../core/bytes.ts';
import { ConfigError } from '../../core/errors.ts';
import { automaticSetting } from '../config/checkpointing-keys.ts';
import type { TrainingConfig } from '../config/training-keys.ts';
import type { StepShape } from '../recipe.ts';
import { alternativesOf } from './alternatives.ts';
import { type AvailableMemory, availableMemory } from './available.ts';
import { type BatchSplit, type MemoryChoice, withChosen } from './choice.ts';
import { doesNotFit } from './does-not-fit.ts';
import { type Candidate, MemorySearch } from './search.ts';

export interface FitOptions {
  /** Measures what there is when the config does not say it. Default: this machine and the current backend. */
  readonly available?: () => AvailableMemory;
  /** Told before each plan. Planning takes some tenths of a second for each way to divide the batch. */
  readonly onPlan?: (split: BatchSplit) => void;
}

export interface MemoryFit {
  readonly choice: MemoryChoice;
  /** The config with what was chosen in the place of mode auto. */
  readonly training: TrainingConfig;
}

/**
 * The fastest way to train a config with mode auto within its memory, by estimated time of an optimizer step: what is
 * recomputed and, if `adapt_batch` allows it, how the batch is divided. Needs neither weights nor data nor the
 * memory it talks about (`fitMemory(await run.shape())`). Throws ConfigError for a config with another mode, and
 * InfeasibleBudgetError, with what would fit, when nothing does.
 */
export function fitMemory(shape: StepShape, options: FitOptions = {}): MemoryFit {
  const { training } = shape;
  const setting = automaticSetting(training);
  if (!setting) {
    const mode = training.activation_checkpointing?.mode ?? 'none';
    throw new ConfigError(
      `fitMemory: the config does not ask for it (got activation_checkpointing.mode: ${mode}). Set mode: auto.`,
      { key: 'activation_checkpointing.mode', value: mode },
    );
  }
  const { onPlan = () => {} } = options;
  const { adaptBatch } = setting;
  const limit = limitOf(setting.memory, options.available ?? availableMemory);
  const request = { limitBytes: limit.bytes, adaptBatch, onPlan };
  const search = new MemorySearch(shape, request);
  const found = search.fastest();
  if (!found) throw doesNotFit(limit, search.smallest(), alternativesOf(shape, request));
  const choice = choiceOf(found, training, limit, adaptBatch);
  return { choice, training: withChosen(training, choice.chosen) };
}

/** What training must stay within: what the config says, or what there is. */
export function limitOf(
  memory: ByteBudget | undefined,
  available: () => AvailableMemory,
): AvailableMemory {
  if (memory === undefined) return available();
  if (shareOf(memory) === undefined) {
    return { bytes: budgetBytes(memory, () => 0), from: 'as memory says' };
  }
  const all = available();
  return {
    bytes: budgetBytes(memory, () => all.bytes),
    from: `${memory} of ${formatBytes(all.bytes)}: ${all.from}`,
  };
}

function choiceOf(
  { chosen, step }: Candidate,
  { batch_size, gradient_accumulation_steps }: TrainingConfig,
  limit: AvailableMemory,
  adaptBatch: boolean,
): MemoryChoice {
  const { totalBytes, parameterBytes, optimizerBytes, gradientBytes, stepBytes, ns, baseNs } = step;
  return {
    asked: { batch_size, gradient_accumulation_steps, adapt_batch: adaptBatch },
    chosen,
    availableBytes: limit.bytes,
    availableFrom: limit.from,
    totalBytes,
    parameterBytes,
    optimizerBytes,
    gradientBytes,
    stepBytes,
    estimatedNs: ns,
    extraTime: ns / baseNs - 1,
  };
}
