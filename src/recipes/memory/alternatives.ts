/** Changes of a config that make it fit into memory. Each one that is returned was planned and fits. */

import { definite } from '../../core/errors.ts';
import type { TrainingConfig } from '../config/training-keys.ts';
import type { StepShape } from '../recipe.ts';
import { type Candidate, MemorySearch, type SearchRequest } from './search.ts';

/** A changed config that fits. */
export interface Alternative {
  /** As in a config: `dtype: bf16`. */
  readonly change: string;
  readonly batch_size: number;
  readonly gradient_accumulation_steps: number;
  readonly totalBytes: number;
}

interface Change {
  readonly text: string;
  readonly training: (config: TrainingConfig) => TrainingConfig;
  readonly adaptsBatch?: boolean;
}

/** How often a batch or a sequence is halved. */
const halvings = 4;
const shortestSequence = 8;

/** Single changes that help, or else the first sum of several that does; the mildest first. */
export function alternativesOf(shape: StepShape, request: SearchRequest): Alternative[] {
  const { training } = shape;
  const fitting = (changes: readonly Change[]): Alternative[] => {
    const candidate = changes.length > 0 && fits(shape, request, changes);
    if (!candidate) return [];
    const { batch_size, gradient_accumulation_steps } = candidate.chosen;
    const change = changes.map(({ text }) => text).join(', ');
    const { totalBytes } = candidate.step;
    return [{ change, batch_size, gradient_accumulation_steps, totalBytes }];
  };
  /** Of changes that take less and less memory the first that fits, found by halving. */
  const mildest = (list: readonly Change[][]): Alternative[] => {
    let found: Alternative[] = [];
    let [low, high] = [0, list.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      const here = fitting(definite(list[middle]));
      if (here.length > 0) [found, high] = [here, middle];
      else low = middle + 1;
    }
    return found;
  };
  const divided = dividing(training, request);
  const others = otherKeys(training);
  const batch = fitting(divided);
  const single = [
    ...(batch.length > 0 ? batch : mildest(smallerBatches(training))),
    ...mildest(shorterSequences(training)),
    ...others.flatMap((change) => fitting([change])),
  ];
  if (single.length > 0) return single;
  const all = [...divided, ...others];
  const sums = all.map((_, i) => all.slice(0, i + 1)).slice(1);
  return mildest([...sums, ...shorterSequences(training).map((last) => [...all, ...last])]);
}

function fits(
  { model, training }: StepShape,
  request: SearchRequest,
  changes: readonly Change[],
): Candidate | undefined {
  const changed = changes.reduce((config, change) => change.training(config), training);
  const divides = changes.some((change) => change.adaptsBatch);
  const adaptBatch = request.adaptBatch || divides;
  const search = new MemorySearch({ model, training: changed }, { ...request, adaptBatch });
  return divides && changes.length === 1 ? search.fastest() : search.any();
}

/** The same rows in smaller micro-batches, where the config does not allow that yet. */
function dividing(training: TrainingConfig, { adaptBatch }: SearchRequest): Change[] {
  const rows = training.batch_size * training.gradient_accumulation_steps;
  if (adaptBatch || rows === 1) return [];
  const text = 'activation_checkpointing.adapt_batch: true';
  return [{ text, training: (config) => config, adaptsBatch: true }];
}

function smallerBatches({ batch_size: rows }: TrainingConfig): Change[][] {
  return halvesOf(rows, 1).map((batch_size) => [
    { text: `batch_size: ${batch_size}`, training: (config) => ({ ...config, batch_size }) },
  ]);
}

function shorterSequences({ sequence_length: length }: TrainingConfig): Change[][] {
  return halvesOf(length, shortestSequence).map((sequence_length) => [
    {
      text: `sequence_length: ${sequence_length}`,
      training: (config) => ({ ...config, sequence_length }),
    },
  ]);
}

/** Compiling costs nothing; then what changes how well a model trains, the least of it first. */
function otherKeys({ compile, dtype, optimizer }: TrainingConfig): Change[] {
  const changes: Change[] = [];
  if (!compile) {
    changes.push({ text: 'compile: true', training: (config) => ({ ...config, compile: true }) });
  }
  if (dtype === 'fp32') {
    changes.push({ text: 'dtype: bf16', training: (config) => ({ ...config, dtype: 'bf16' }) });
  }
  if (optimizer.type === 'adamw' || (optimizer.momentum ?? 0) > 0) {
    const { lr, weight_decay, decay_norms } = optimizer;
    const sgd = { type: 'sgd', lr, weight_decay, decay_norms } as const;
    changes.push({
      text: 'optimizer.type: sgd without momentum',
      training: (config) => ({ ...config, optimizer: sgd }),
    });
  }
  return changes;
}

function halvesOf(value: number, least: number): number[] {
  return Array.from({ length: halvings }, (_, i) => Math.floor(value / 2 ** (i + 1))).filter(
    (half) => half >= least,
  );
}
