/** What a recipe is given besides its config, and what it gives back. */

import type { RawConfig } from '../models/decoder/config-fields.ts';
import type { TrainingConfig } from './config/training-keys.ts';
import type { AvailableMemory } from './memory/available.ts';

export interface RecipeIo {
  /** A line for people. */
  log(line: string): void;
  /** Whether to show progress. */
  readonly progress: boolean;
  /** File for the memory trace of the second step; undefined for none. */
  readonly traceMemory?: string;
  /** What mode auto may use when the config does not say it. Default: what the machine has left. */
  readonly availableMemory?: () => AvailableMemory;
}

/** What a config's training step is made of, known without data or weights. */
export interface StepShape {
  /** As in the model's config.json. */
  readonly model: RawConfig;
  readonly training: TrainingConfig;
}

export interface RunOutcome {
  /** Steps done, those before a resume included. */
  readonly steps: number;
  /** Of the last step. */
  readonly loss: number;
  readonly validationLoss: number | undefined;
  readonly outputDir: string;
  /** 0, or that of the signal that ended the run early. */
  readonly exitCode: number;
}
