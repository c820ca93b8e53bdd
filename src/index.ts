/**
 * Public entry of Retune: tensors, ops, gradients, checkpointing, compilation. Models, data and recipes
 * have entries of their own (`retune/nn`, `retune/optim`, `retune/data`, `retune/models`,
 * `retune/recipes`).
 */

export * from './core/index.ts';
export * from './ops/index.ts';
export * from './autograd/index.ts';
export * from './checkpoint/index.ts';
export * from './compile/index.ts';
export { recordMemory } from './observe/memory-recorder.ts';
export type {
  MemoryTrace,
  TraceBlock,
  TraceCategory,
  TraceEvent,
  TracePhase,
} from './observe/schema.ts';
export {
  type SavedTensorEntry,
  type SavedTensorReport,
  formatSavedTensors,
  savedTensors,
} from './observe/saved-tensors.ts';
export { setBackend, withBackend, currentBackend, liveBytes } from './tensor/backend.ts';
export {
  type NestedNumbers,
  type TensorOptions,
  fromHost,
  item,
  tensor,
  toArray,
  toHost,
  toHostAsync,
} from './tensor/factory.ts';
export { Generator, defaultGenerator, manualSeed } from './tensor/generator.ts';
export { Tensor } from './tensor/tensor.ts';
export { asyncScope, scope } from './tensor/with-scope.ts';
export { writeTensor } from './tensor/write.ts';
export {
  createCpuBackend,
  createNullBackend,
  createReferenceBackend,
} from './runtime/registry.ts';
export { formatBytes, parseBytes } from './core/bytes.ts';
