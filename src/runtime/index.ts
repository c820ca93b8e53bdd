/** Public entry `retune/runtime`: backends, their memory, and which one is used. */

export {
  type Allocator,
  type Block,
  type MemoryCategory,
  type MemoryEvent,
  type MemoryStats,
  memoryCategories,
} from './allocator.ts';
export type {
  Backend,
  BlockRef,
  Executable,
  Lowered,
  Program,
  ProgramStep,
} from './backend.ts';
export type { CpuBackend, CpuBackendOptions } from './cpu/backend.ts';
export type { NullBackend } from './null/backend.ts';
export type { ReferenceBackend } from './reference/backend.ts';
export type { BlockTransfer, Parcel, TransferPlace } from './transfer.ts';
export {
  createCpuBackend,
  createNullBackend,
  createReferenceBackend,
  defaultBackend,
  setDefaultBackend,
} from './registry.ts';
