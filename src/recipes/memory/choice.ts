/** What mode auto chose for a run: JSON that its checkpoints and metrics keep. */

import type { TrainingConfig } from '../config/training-keys.ts';
import type { MemoryNeeds } from './needs.ts';

/** How the rows of an optimizer step are divided. */
export interface BatchSplit {
  /** Rows of a micro-batch. */
  readonly batch_size: number;
  readonly gradient_accumulation_steps: number;
}

type CheckpointingGroup = NonNullable<TrainingConfig['activation_checkpointing']>;

/** Config keys with the values that were chosen. */
export interface ChosenKeys extends BatchSplit {
  readonly activation_checkpointing: Pick<CheckpointingGroup, 'mode' | 'budget' | 'every'>;
}

export interface MemoryChoice extends MemoryNeeds {
  /** What the config said. */
  readonly asked: BatchSplit & { readonly adapt_batch: boolean };
  readonly chosen: ChosenKeys;
  /** What training was to stay within, and where that number came from. */
  readonly availableBytes: number;
  readonly availableFrom: string;
  /** Estimated nanoseconds of an optimizer step, to compare choices with. */
  readonly estimatedNs: number;
  /** Estimated time added by recomputing, as a share of the same step without. */
  readonly extraTime: number;
}

/** The config with what was chosen in the place of mode auto. */
export function withChosen<C extends TrainingConfig>(config: C, chosen: ChosenKeys): C {
  const { memory: _, adapt_batch: __, ...rest } = config.activation_checkpointing ?? {};
  const { activation_checkpointing, ...split } = chosen;
  return {
    ...config,
    ...split,
    activation_checkpointing: { ...rest, ...activation_checkpointing },
  };
}

/** Rows that evaluation reads at once: no more than a micro-batch, and a part of the batch that was asked for. */
export function evaluationRows(asked: BatchSplit, chosen: BatchSplit): number {
  let rows = Math.min(asked.batch_size, chosen.batch_size);
  while (asked.batch_size % rows !== 0) rows--;
  return rows;
}
