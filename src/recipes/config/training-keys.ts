/**
 * Config keys that the training recipes share: torchtune's names where it has one. A recipe spreads the
 * groups it takes into its own schema.
 */

import * as v from 'valibot';
import {
  type CheckpointingSpec,
  type ResolvedSpec,
  resolveSpec,
} from '../../checkpoint/apply-spec.ts';
import { budgetForms, isByteBudget } from '../../core/byte-budget.ts';
import { byteForms, readBytes } from '../../core/bytes.ts';
import { ConfigError } from '../../core/errors.ts';
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

const everySchema = v.pipe(
  v.union([count, v.strictObject({ k: count, offset: v.optional(countOrZero) })]),
  v.title('a whole number of at least 1, or { k, offset }'),
);

const targets = v.pipe(v.union([text, v.array(text)]), v.title('ops, module patterns or name:x'));

const selectiveSchema = v.strictObject({
  save: v.optional(
    key(
      targets,
      'What is kept if backward needs it: ops or their classes (matmul, attention, norm), modules by a pattern over their paths (layers.*.mlp.up_proj, or q_proj), values that checkpointName marks (name:x).',
    ),
  ),
  recompute: v.optional(
    key(
      targets,
      'What is recomputed all the same. Modules count before ops, longer patterns before shorter ones.',
    ),
  ),
  offload: v.optional(key(targets, 'What is moved out of memory until backward.')),
  compress: v.optional(
    key(
      v.pipe(
        v.record(text, v.picklist(['bf16', 'fp8', 'int8'])),
        v.title('module patterns with bf16, fp8 or int8'),
      ),
      'What is kept in fewer bits; backward then reads rounded values.',
    ),
  ),
  alternate_matmuls: v.optional(
    key(
      v.pipe(v.number(), v.integer(), v.minValue(2), v.title('a whole number of at least 2')),
      'Keeps matrix products but for every k-th one of a layer.',
    ),
  ),
});

const offloadSchema = v.strictObject({
  to: v.optional(
    key(
      oneOf(['file', 'host']),
      'file on the cpu backend; host for devices with memory of their own.',
    ),
  ),
  dir: v.optional(
    key(
      text,
      "Folder for the file; default RETUNE_OFFLOAD_DIR, or the system's for temporary files.",
    ),
  ),
  min_bytes: v.optional(
    key(
      v.pipe(
        v.union([countOrZero, text]),
        v.check((value) => readBytes(value) !== undefined),
        v.title(byteForms),
      ),
      'Smaller tensors stay in memory. Default 64KiB.',
    ),
  ),
  bytes_per_second: v.optional(
    key(
      positive,
      'With mode budget: the assumed speed of the place. Default: that of memory, or measured.',
    ),
  ),
  depth: v.optional(
    key(countOrZero, 'How many ops or regions are on the way out, or fetched ahead. Default 2.'),
  ),
});

const checkpointingSchema = v.strictObject({
  mode: v.optional(
    key(
      oneOf(['none', 'full', 'every', 'segments', 'selective', 'budget']),
      'Which layers are recomputed in backward: none, each one (full), each k-th one (every), all of them in a few pieces (segments), each one but for what selective says, or whatever keeps the step within a budget.',
    ),
  ),
  selective: v.optional(
    key(selectiveSchema, 'With mode selective: what the layers keep; the rest is recomputed.'),
  ),
  every: v.optional(
    key(everySchema, 'With mode every: k, for layers k, 2k, ...; or { k, offset }.'),
  ),
  segments: v.optional(key(count, 'With mode segments: the number of pieces.')),
  budget: v.optional(
    key(
      v.pipe(
        v.union([count, text]),
        v.check((value) => isByteBudget(value)),
        v.title(budgetForms),
      ),
      'With mode budget: step memory, all that a step holds besides parameters and optimizer state. The compiler decides for each value what is kept. Needs compile: true.',
    ),
  ),
  cost: v.optional(
    key(
      oneOf(['flops', 'measured']),
      'With mode budget: how recomputing is priced, by arithmetic and memory traffic (default) or timed on this machine.',
    ),
  ),
  preserve_rng_state: v.optional(
    key(flag, 'Whether recomputing repeats the random draws of the forward pass. Default true.'),
  ),
  determinism_check: v.optional(
    key(
      oneOf(['default', 'values', 'none']),
      'What is compared between forward and recompute: shapes (default), values too, or counts only. Eager only.',
    ),
  ),
  early_stop: v.optional(
    key(flag, 'Whether a recompute ends when it has what backward needs. Default true.'),
  ),
  offload: v.optional(
    key(
      offloadSchema,
      'Where what layers save, or recomputed ones start from, waits for backward; needs compile: false. With mode budget (and compile: true): that values may wait in a file; {} for defaults, or dir and bytes_per_second.',
    ),
  ),
  compress: v.optional(
    key(
      oneOf(['bf16', 'fp8', 'int8']),
      'With mode budget: the format in which values may wait in fewer bits. Backward then reads rounded values. Default: none may.',
    ),
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
  activation_checkpointing: v.optional(
    key(checkpointingSchema, 'What backward recomputes instead of keeping.'),
  ),
  enable_activation_checkpointing: v.optional(
    key(flag, "torchtune's switch: true recomputes every layer."),
  ),
  ac_mode: v.optional(
    key(
      v.pipe(
        v.nullable(v.picklist(['none', 'full', 'selective'])),
        v.title('one of none, full, selective, or null'),
      ),
      "torchtune's choice of layers; selective takes those that ac_option says.",
    ),
  ),
  ac_option: v.optional(
    key(
      v.pipe(
        v.nullable(v.union([count, v.literal('op')])),
        v.title('a whole number of at least 1, op, or null'),
      ),
      'With ac_mode selective: n recomputes layers n, 2n, ...; op keeps attention and matmuls but for every second.',
    ),
  ),
  enable_activation_offloading: v.optional(
    key(
      flag,
      "torchtune's switch: true moves the inputs of recomputed layers out of memory. Needs compile: false.",
    ),
  ),
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

/** The checkpointing keys of a config as one setting, checked. Throws ConfigError. */
export function checkpointingSpec(config: TrainingConfig): CheckpointingSpec {
  const { activation_checkpointing, enable_activation_checkpointing, ac_mode, ac_option } = config;
  const { enable_activation_offloading } = config;
  const spec = {
    ...activation_checkpointing,
    ...(enable_activation_checkpointing === undefined ? {} : { enable_activation_checkpointing }),
    ...(ac_mode === undefined ? {} : { ac_mode }),
    ...(ac_option === undefined ? {} : { ac_option }),
    ...(enable_activation_offloading === undefined ? {} : { enable_activation_offloading }),
  };
  const own = activation_checkpointing?.mode;
  const enabled = enable_activation_checkpointing;
  if (own !== undefined && enabled !== undefined && enabled !== (own !== 'none')) {
    throw contradiction(
      ['activation_checkpointing.mode', own],
      ['enable_activation_checkpointing', enabled],
      'Keep one of them.',
    );
  }
  const { offload, mode } = resolveSpec(spec as CheckpointingSpec);
  if (mode === 'budget' && !config.compile) {
    throw contradiction(
      ['compile', false],
      ['activation_checkpointing.mode', mode],
      'A budget is kept by a compiled step; set compile: true, or choose another mode.',
    );
  }
  if (offload && config.compile) {
    throw contradiction(
      ['compile', true],
      activation_checkpointing?.offload
        ? ['activation_checkpointing.offload', activation_checkpointing.offload]
        : ['enable_activation_offloading', true],
      'In a compiled step it is the planner that offloads: use mode: budget with offload: {}, set compile: false, or leave offload out.',
    );
  }
  return spec as CheckpointingSpec;
}

/** The setting of a config in words, for a run's first lines. */
export function resolvedCheckpointing(config: TrainingConfig): ResolvedSpec {
  return resolveSpec(checkpointingSpec(config));
}

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
  checkpointingSpec(config);
}
