/** Public entry of checkpoint: regions, and wrapping the layers of a model. */

export { checkpoint, checkpointSequential } from './checkpoint.ts';
export {
  type CheckpointOptions,
  type DeterminismCheck,
  setCheckpointDebug,
  setCheckpointEarlyStop,
} from './options.ts';
export { recomputeGroup } from '../autograd/backward-id.ts';
export {
  type ApplyOptions,
  type ApplyReport,
  applyActivationCheckpointing,
  type ModuleClass,
  type ModulePredicate,
  setActivationCheckpointing,
} from './apply.ts';
export type { CheckpointingSpec, CheckpointMode, EveryLayers } from './apply-spec.ts';
export type {
  CallWrapper,
  CheckpointableModule,
  CheckpointableStack,
  StackRegion,
} from './wrapping.ts';
