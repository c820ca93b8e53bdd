/** Public entry `retune/optim`: optimizers, schedules and gradient clipping. */

export { AdamW, type AdamWSettings } from './adamw.ts';
export { type ClipOptions, clipFactor, clipGradNorm, clipGradValue } from './clip.ts';
export {
  type GroupOf,
  type LoadedOptimizerState,
  Optimizer,
  type OptimizerState,
  type ParameterGroup,
  type ParameterList,
  type UpdateOptions,
} from './optimizer.ts';
export { decayGroups } from './parameter-groups.ts';
export {
  type CosineOptions,
  constantWithWarmup,
  cosineWithWarmup,
  type DecayOptions,
  linearWithWarmup,
  LrScheduler,
  type Schedule,
  type WarmupOptions,
} from './schedule.ts';
export { Sgd, type SgdSettings } from './sgd.ts';
