/**
 * Config keys that the training recipes share: torchtune's names where it has one. A recipe spreads the
 * groups it takes into its own schema.
 */

import * as v from 'valibot';
import { ConfigError } from '../../core/errors.ts';
import { automaticSetting, checkpointingKeys, checkpointingSpec } from './checkpointing-keys.ts';
import {
  atLeastZero,
  betas,
  count,
  countOrZero,
  flag,
  fraction,
  key,
  oneOf,
  positive,
  text,
} from './key.ts';
import { contradiction } from './load.ts';

const optimizerSchema = v.strictObject({
  type: v.optional(key(oneOf(['adamw', 'sgd']), 'The optimizer.'), 'adamw'),
  lr: key(positive, 'Learning rate before the schedule.'),
  weight_decay: v.optional(key(atLeastZero, 'Decoupled weight decay.'), 0.01),
  decay_norms: v.optional(
    key(flag, 'Whether norm weights and biases decay too. PyTorch decays everything.'),
    true,
  ),
  betas: v.optional(key(betas, 'AdamW: decay of the two moment averages. Default [0.9, 0.999].')),
  eps: v.optional(key(positive, 'AdamW: added to the denominator. Default 1e-8.')),
  momentum: v.optional(key(fraction, 'SGD: momentum. Default 0.')),
  nesterov: v.optional(key(flag, "SGD: Nesterov's momentum. Default false.")),
});

const schedulerSchema = v.strictObject({
  type: v.optional(
    key(
      oneOf(['constant', 'cosine', 'linear']),
      'How the learning rate falls after the warm-up, until the last step.',
    ),
    'cosine',
  ),
  num_warmup_steps: v.optional(
    key(countOrZero, 'Steps over which the learning rate rises from 0.'),
    0,
  ),
  min_factor: v.optional(
    key(fraction, 'Factor of the learning rate that a falling schedule ends at.'),
    0,
  ),
});

/** Keys about the training loop; every recipe that trains takes them. */
export const trainingKeys = {
  optimizer: key(optimizerSchema, 'How parameters are updated.'),
  lr_scheduler: v.optional(key(schedulerSchema, 'How the learning rate changes over the run.'), {}),
  batch_size: key(count, 'Rows in a micro-batch.'),
  sequence_length: key(count, 'Tokens in a row.'),
  gradient_accumulation_steps: v.optional(
    key(count, 'Micro-batches whose gradients make one step.'),
    1,
  ),
  max_steps: v.optional(key(count, 'Steps to train for. Give this or epochs.')),
  epochs: v.optional(key(positive, 'Passes over the training rows. Give this or max_steps.')),
  clip_grad_norm: v.optional(
    key(
      v.pipe(v.nullable(positive), v.title('a number above 0, or null')),
      'Gradients are scaled down to at most this norm; null leaves them as they are.',
    ),
    1,
  ),
  seed: v.optional(
    key(countOrZero, 'Decides initial weights, dropout and the order of the data.'),
    0,
  ),
  compile: v.optional(key(flag, 'Whether the training step is compiled into one plan.'), true),
  dtype: v.optional(
    key(oneOf(['fp32', 'bf16']), 'What parameters are stored in; sums are always in fp32.'),
    'fp32',
  ),
  ...checkpointingKeys,
  log_every_n_steps: v.optional(key(count, 'Steps between lines of metrics.jsonl.'), 1),
  eval_every_n_steps: v.optional(
    key(countOrZero, 'Steps between evaluations; 0 evaluates only at the end.'),
    0,
  ),
  eval_batches: v.optional(
    key(count, 'Batches of validation data that one evaluation reads, spread evenly.'),
    20,
  ),
  save_every_n_steps: v.optional(
    key(countOrZero, 'Steps between checkpoints; 0 saves only when interrupted.'),
    0,
  ),
  keep_last_n_checkpoints: v.optional(
    key(count, 'Older checkpoints are removed once a later one is whole.'),
    2,
  ),
  output_dir: key(text, 'The run folder: config, metrics, checkpoints, and the model at the end.'),
  overwrite: v.optional(key(flag, 'Whether an earlier run in output_dir may be replaced.'), false),
  resume_from_checkpoint: v.optional(
    key(
      v.pipe(v.union([v.boolean(), v.string()]), v.title('true, false or a checkpoint folder')),
      'true continues from the latest checkpoint in output_dir (from the start if there is none); a path from that one.',
    ),
    false,
  ),
};

const trainingSchema = v.strictObject(trainingKeys);
export type TrainingConfig = v.InferOutput<typeof trainingSchema>;
export type OptimizerConfig = v.InferOutput<typeof optimizerSchema>;
export type SchedulerConfig = v.InferOutput<typeof schedulerSchema>;

/** What parameters are stored in. */
export function dtypeOf(config: Pick<TrainingConfig, 'dtype'>): 'float32' | 'bfloat16' {
  return config.dtype === 'bf16' ? 'bfloat16' : 'float32';
}

/** What the schema cannot say: keys that exclude or need each other. Throws ConfigError. */
export function checkTraining(config: TrainingConfig): void {
  const { max_steps, epochs, optimizer, lr_scheduler } = config;
  if (config.overwrite && config.resume_from_checkpoint === true) {
    throw contradiction(
      ['overwrite', true],
      ['resume_from_checkpoint', true],
      'A run is either continued or replaced.',
    );
  }
  if (max_steps !== undefined && epochs !== undefined) {
    throw contradiction(
      ['max_steps', max_steps],
      ['epochs', epochs],
      'Both say when to stop; keep one of them.',
    );
  }
  if (max_steps === undefined && epochs === undefined) {
    throw new ConfigError(
      'config: nothing says when to stop (got neither max_steps nor epochs). Give one of them.',
      { key: 'max_steps', keys: ['max_steps', 'epochs'] },
    );
  }
  const foreign = { adamw: ['momentum', 'nesterov'], sgd: ['betas', 'eps'] } as const;
  for (const name of foreign[optimizer.type]) {
    if (optimizer[name] === undefined) continue;
    throw contradiction(
      ['optimizer.type', optimizer.type],
      [`optimizer.${name}`, optimizer[name]],
      'That key belongs to the other optimizer; remove it or change the type.',
    );
  }
  if (optimizer.nesterov === true && (optimizer.momentum ?? 0) === 0) {
    throw contradiction(
      ['optimizer.nesterov', true],
      ['optimizer.momentum', optimizer.momentum ?? 0],
      'Give a momentum above 0.',
    );
  }
  if (max_steps !== undefined && lr_scheduler.num_warmup_steps > max_steps) {
    throw contradiction(
      ['lr_scheduler.num_warmup_steps', lr_scheduler.num_warmup_steps],
      ['max_steps', max_steps],
      'The warm-up must end before the run does.',
    );
  }
  if (!automaticSetting(config)) checkpointingSpec(config);
}
