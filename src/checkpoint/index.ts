/** Public entry of checkpoint: regions, and wrapping the layers of a model. */

export { checkpoint, checkpointSequential } from './checkpoint.ts';
export {
  type CheckpointContexts,
  type CheckpointOptions,
  type ModeMaker,
  type DeterminismCheck,
  setCheckpointDebug,
  setCheckpointEarlyStop,
} from './options.ts';
export { ActivationOffload, type OffloadOptions, offloadActivations } from './offload.ts';
export type { OffloadStats } from './offload-store.ts';
export {
  ActivationCompression,
  type CompressionOptions,
  compressActivations,
} from './compress.ts';
export type { CompressionFormat, CompressionStats } from './compress-store.ts';
export type { CompressionError } from './compression-error.ts';
export type { ValueStore } from './value-store.ts';
export { recomputeGroup } from '../autograd/backward-id.ts';
export {
  type ApplyOptions,
  type ApplyReport,
  applyActivationCheckpointing,
  type ModuleClass,
  type ModulePredicate,
  setActivationCheckpointing,
} from './apply.ts';
export type { OffloadSpec } from './apply-offload.ts';
export type { CheckpointingSpec, CheckpointMode, EveryLayers } from './apply-spec.ts';
export type { SelectiveSpec } from './selective/spec.ts';
export type {
  CallWrapper,
  CheckpointableModule,
  CheckpointableStack,
  StackRegion,
} from './wrapping.ts';
export { isRecomputing } from '../tensor/context.ts';
export { runOnce } from './run-once.ts';
export {
  CheckpointPolicy,
  type PolicyContext,
  type PolicyFunction,
} from './selective/policy.ts';
export {
  type SelectiveContextOptions,
  createSelectiveCheckpointContexts,
} from './selective/contexts.ts';
export type { AnyPolicy, DeclaredPolicy } from './selective/region-policy.ts';
export {
  compressModules,
  either,
  offloadModules,
  offloadNames,
  recomputeModules,
  recomputeOps,
  saveAttention,
  saveByOp,
  saveEverything,
  saveEverythingExceptNames,
  saveMatmulsExceptEvery,
  saveModules,
  saveNames,
  saveNothing,
  saveOps,
} from './selective/declared.ts';
