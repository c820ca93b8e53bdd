/**
 * What applying checkpointing to a model needs of its modules, without knowing their classes. Wrapping
 * changes how a call runs, never the module tree, so names and state dicts stay as they are (W2).
 */

import type { Tensor } from '../tensor/tensor.ts';

/** Runs `run(...args)`, in whatever way the wrapper is for, and returns what it returns. */
export interface CallWrapper {
  <A extends readonly unknown[], R>(run: (...args: A) => R, args: A): R;
  /** Wrappers with one key do the same: a step compiled under one is good for the other. */
  readonly key?: string;
}

/** What a compiled step that ran under `wrapper` depends on. */
export function wrapperImage(wrapper: CallWrapper | undefined): string | CallWrapper | undefined {
  return wrapper?.key ?? wrapper;
}

export interface CheckpointableModule {
  callWrapper: CallWrapper | undefined;
  /** The module itself under '' and everything below it, parents first. */
  namedModules(): Iterable<readonly [string, CheckpointableModule]>;
  parameters(): Iterable<Tensor>;
}

/** Layers [from, to) of a stack that run as one call. */
export interface StackRegion {
  readonly from: number;
  readonly to: number;
  readonly wrapper: CallWrapper | undefined;
}

/** A module that runs a list of layers in order. */
export interface CheckpointableStack extends CheckpointableModule {
  readonly layers: readonly CheckpointableModule[];
  regions: readonly StackRegion[] | undefined;
}

export function isStack(module: CheckpointableModule): module is CheckpointableStack {
  return 'regions' in module && 'layers' in module && Array.isArray(module.layers);
}
