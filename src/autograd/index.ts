/** Public entry of autograd: gradients, gradient modes, hooks. */

export { type BackwardOptions, type GradOptions, backward, grad } from './backward.ts';
export { recomputeGroup } from './backward-id.ts';
export { registerHook, registerPostAccumulateGradHook, retainGrad } from './leaf.ts';
export { enableGrad, isGradEnabled, noGrad, setGradEnabled } from '../tensor/context.ts';
export {
  type SaveContext,
  type SavedTensorHooks,
  withSavedTensorHooks,
} from '../tensor/saved-tensor.ts';
