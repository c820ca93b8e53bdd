/**
 * Config keys that say what backward recomputes instead of keeping: Retune's own group and torchtune's
 * names, and how they become one setting.
 */

import * as v from 'valibot';
import { type CheckpointingSpec, resolveSpec } from '../../checkpoint/apply-spec.ts';
import { type ByteBudget, budgetForms, isByteBudget } from '../../core/byte-budget.ts';
import { byteForms, readBytes } from '../../core/bytes.ts';
import { count, countOrZero, flag, key, oneOf, positive, text } from './key.ts';
import { contradiction } from './load.ts';

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
      oneOf(['none', 'full', 'every', 'segments', 'selective', 'budget', 'auto']),
      'Which layers are recomputed in backward: none, each one (full), each k-th one (every), all of them in a few pieces (segments), each one but for what selective says, whatever keeps the step within a budget, or what is fastest in the memory there is (auto).',
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
  memory: v.optional(
    key(
      v.pipe(
        v.union([count, text]),
        v.check((value) => isByteBudget(value)),
        v.title(budgetForms),
      ),
      'With mode auto: all that training may hold, that is parameters, gradients, optimizer state and step memory. A share is of what there is. Default: what the system and the backend have left, less a tenth.',
    ),
  ),
  adapt_batch: v.optional(
    key(
      flag,
      'With mode auto: whether batch_size and gradient_accumulation_steps may be changed too; their product, and so the rows of an optimizer step, stays. Default false.',
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

/** Keys of every recipe that trains. */
export const checkpointingKeys = {
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
};

const configSchema = v.strictObject({ ...checkpointingKeys, compile: flag });
export type CheckpointingConfig = v.InferOutput<typeof configSchema>;

/** The checkpointing keys of a config as one setting, checked. Throws ConfigError. */
export function checkpointingSpec(config: CheckpointingConfig): CheckpointingSpec {
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

/** The setting of mode auto. */
export interface AutomaticSetting {
  /** All that training may hold; undefined: what there is. */
  readonly memory: ByteBudget | undefined;
  /** Whether batch_size and gradient_accumulation_steps may be changed, but not their product. */
  readonly adaptBatch: boolean;
}

/** What mode auto decides itself. */
const decidedByAuto = [
  'every',
  'segments',
  'selective',
  'budget',
  'cost',
  'offload',
  'compress',
] as const;

/** The setting of mode auto, which `memory` implies; undefined for another mode. Throws ConfigError for keys that do not go together. */
export function automaticSetting(config: CheckpointingConfig): AutomaticSetting | undefined {
  const group = config.activation_checkpointing ?? {};
  const { memory, adapt_batch } = group;
  const own = Object.entries({ memory, adapt_batch }).find(([, value]) => value !== undefined);
  const mode = group.mode ?? (own ? 'auto' : 'none');
  if (mode !== 'auto') {
    if (!own) return undefined;
    throw contradiction(
      [`activation_checkpointing.${own[0]}`, own[1]],
      ['activation_checkpointing.mode', mode],
      'That key belongs to mode auto; remove it or change the mode.',
    );
  }
  for (const key of decidedByAuto) {
    if (group[key] === undefined) continue;
    throw contradiction(
      ['activation_checkpointing.mode', mode],
      [`activation_checkpointing.${key}`, group[key]],
      'Mode auto decides that itself; remove one of them.',
    );
  }
  const { enable_activation_checkpointing, ac_mode, ac_option } = config;
  const { enable_activation_offloading } = config;
  const torchtune = {
    enable_activation_checkpointing,
    ac_mode,
    ac_option,
    enable_activation_offloading,
  };
  for (const [key, value] of Object.entries(torchtune)) {
    if (value === undefined || value === null) continue;
    throw contradiction(
      ['activation_checkpointing.mode', mode],
      [key, value],
      'Mode auto decides that itself; remove one of them.',
    );
  }
  return { memory, adaptBatch: adapt_batch ?? false };
}
