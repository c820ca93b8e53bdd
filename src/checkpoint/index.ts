/** Public entry of checkpoint: regions, and wrapping the layers of a model. */

export { checkpoint, checkpointSequential } from './checkpoint.ts';
export {
  type CheckpointOptions,
  type DeterminismCheck,
  setCheckpointDebug,
  setCheckpointEarlyStop,
} from './options.ts';
export { recomputeGroup } from '../autograd/backward-id.ts';
