/** Optimizer and learning-rate schedule from a config. */

import type { OptimizerConfig, SchedulerConfig } from '../config/training-keys.ts';
import type { CausalLm } from '../../models/decoder/causal-lm.ts';
import { AdamW } from '../../optim/adamw.ts';
import { decayGroups } from '../../optim/parameter-groups.ts';
import {
  constantWithWarmup,
  cosineWithWarmup,
  linearWithWarmup,
  type Schedule,
} from '../../optim/schedule.ts';
import { Sgd } from '../../optim/sgd.ts';

/** The optimizer over all trainable parameters; with `decay_norms: false` vectors do not decay. */
export function makeOptimizer(model: CausalLm, config: OptimizerConfig): AdamW | Sgd {
  const named = [...model.namedParameters()].filter(([, tensor]) => tensor.requiresGrad);
  const groups = config.decay_norms ? [{ params: named }] : decayGroups(named, config.weight_decay);
  const { lr, weight_decay: weightDecay } = config;
  if (config.type === 'sgd') {
    const { momentum = 0, nesterov = false } = config;
    return new Sgd(groups, { lr, weightDecay, momentum, nesterov });
  }
  const { betas = [0.9, 0.999], eps = 1e-8 } = config;
  return new AdamW(groups, { lr, weightDecay, betas, eps });
}

/** The factor on the learning rate over `totalSteps` steps. */
export function makeSchedule(config: SchedulerConfig, totalSteps: number): Schedule {
  const warmupSteps = Math.min(config.num_warmup_steps, totalSteps);
  const decay = { warmupSteps, totalSteps, minRate: config.min_factor };
  if (config.type === 'linear') return linearWithWarmup(decay);
  if (config.type === 'cosine') return cosineWithWarmup(decay);
  return constantWithWarmup({ warmupSteps });
}
