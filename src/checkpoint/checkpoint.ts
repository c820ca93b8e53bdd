/**
 * Activation checkpointing of the non-reentrant kind (torch.utils.checkpoint.checkpoint with
 * use_reentrant=False). Rules, by their ids in docs/internals/checkpointing.md:
 * C1 saved tensors become holders; only the region's inputs stay alive.
 * C2 the first unpack in a backward recomputes the region once for it.
 * C3 a saved tensor belongs to the innermost region; inner inputs are saved tensors of the outer one.
 * C4 the recompute ends between two ops once the last needed tensor exists.
 * C5 forward and recompute are compared.
 * C7 without gradients a region is inert.
 * C9 random draws are replayed.
 */

import { ArgumentError, CompileError } from '../core/errors.ts';
import { currentRegions, isGradEnabled, withRegion } from '../tensor/context.ts';
import { type Mode, currentMode, withMode } from '../tensor/mode.ts';
import {
  type SaveContext,
  type SavedTensorHooks,
  checkVersion,
  currentHooks,
  withSavedTensorHooks,
} from '../tensor/saved-tensor.ts';
import { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { savedRead } from '../ops/saved-read.ts';
import { markOutputs } from './discarded-outputs.ts';
import { Frame } from './frame.ts';
import type { Holder } from './holder.ts';
import {
  type CheckpointOptions,
  type ResolvedOptions,
  makeContexts,
  resolveOptions,
} from './options.ts';
import { RegionPolicy } from './selective/region-policy.ts';
import { TracedPolicyMode } from './selective/traced-mode.ts';

/**
 * Runs `fn(...args)` without keeping what its backward needs; backward runs it again. Tensors in `args`
 * may be nested in arrays, plain objects, maps and sets (C6). Returns what `fn` returns; every other tensor
 * made inside is released.
 *
 * Throws ArgumentError for bad options, for arguments that are no array and for an asynchronous function;
 * in backward CheckpointError when the two runs differ, AutogradError when an argument was changed in place.
 */
export function checkpoint<A extends readonly unknown[], R>(
  fn: (...args: A) => R,
  args: A,
  options: CheckpointOptions = {},
): R {
  const resolved = resolveOptions(options);
  checkCall(fn, args);
  if (!isGradEnabled() || savesEverything(resolved)) return scope(() => synchronous(fn(...args)));
  return currentMode().tracing ? tracedRegion(fn, args, resolved) : eagerRegion(fn, args, resolved);
}

function checkCall(fn: unknown, args: unknown): void {
  if (typeof fn === 'function' && Array.isArray(args)) return;
  throw new ArgumentError(
    `checkpoint: expected a function and the array of its arguments (got ${typeof fn} and ${describeValue(args)}). ` +
      'Call it as checkpoint(fn, [x, y]).',
  );
}

function describeValue(value: unknown): string {
  return value instanceof Tensor ? value.describe() : typeof value;
}

/** Refuses promises: the region would end before its function does. */
function synchronous<R>(result: R): R {
  if (!(result instanceof Promise)) return result;
  result.catch(() => {});
  throw new ArgumentError(
    'checkpoint: the function is asynchronous (got a promise from it). Make it a plain function.',
  );
}

/**
 * Runs `functions` one after another on `input`, divided into `segments` regions of equal length; the
 * last one is not checkpointed (torch.utils.checkpoint.checkpoint_sequential).
 * Throws ArgumentError unless 1 <= segments <= functions.length, and unless there is one input tensor.
 */
export function checkpointSequential(
  functions: readonly ((x: Tensor) => Tensor)[],
  segments: number,
  input: Tensor,
  options: CheckpointOptions = {},
): Tensor {
  if (!(input instanceof Tensor)) {
    throw new ArgumentError(
      `checkpointSequential: the input must be one tensor (got ${typeof input}). Pass a function that takes more to checkpoint.`,
    );
  }
  if (!Number.isInteger(segments) || segments < 1 || segments > functions.length) {
    throw new ArgumentError(
      `checkpointSequential: segments must be an integer from 1 to ${functions.length} (got ${segments}). ` +
        'Use at most one segment per function.',
      { segments, functions: functions.length },
    );
  }
  const perSegment = Math.floor(functions.length / segments);
  const runRange = (x: Tensor, from: number, to: number): Tensor =>
    functions.slice(from, to).reduce((value, fn) => fn(value), x);
  let x = input;
  for (let segment = 0; segment < segments - 1; segment++) {
    const from = segment * perSegment;
    x = checkpoint((value: Tensor) => runRange(value, from, from + perSegment), [x], options);
  }
  return runRange(x, (segments - 1) * perSegment, functions.length);
}

function eagerRegion<A extends readonly unknown[], R>(
  fn: (...args: A) => R,
  args: A,
  options: ResolvedOptions,
): R {
  const frame = new Frame(fn as (...args: readonly unknown[]) => unknown, args, options);
  const hooks: SavedTensorHooks<Holder> = {
    pack: (tensor, context) => frame.hold(tensor, context),
    unpack: (holder) => frame.take(holder),
    release: (holder) => frame.drop(holder),
    held: (holder) => frame.held(holder),
  };
  return frame.runForward(args, () =>
    withSavedTensorHooks(hooks, () => scope(() => synchronous(fn(...args)))),
  );
}

function savesEverything({ policy }: ResolvedOptions): boolean {
  return typeof policy === 'object' && policy.everything === true;
}

let regions = 0;

/** In a traced step a region is a tag: reads by backward are marked, and the compiler recomputes them. */
function tracedRegion<A extends readonly unknown[], R>(
  fn: (...args: A) => R,
  args: A,
  options: ResolvedOptions,
): R {
  const refused = currentHooks()?.wantsRegionInputs;
  if (refused !== undefined) {
    throw new CompileError(
      `checkpoint: a region in a compiled step does not ${refused}. ` +
        'Leave one of the two out, or run the step without compile.',
    );
  }
  const region = ++regions;
  const hooks: SavedTensorHooks<{ tensor: Tensor; version: number; context: SaveContext }> = {
    pack: (saved, context) => {
      const tensor = saved.detach().keep();
      return { tensor, version: tensor.version, context };
    },
    unpack: ({ tensor, version, context }) => {
      checkVersion(tensor.version, version, context);
      return savedRead(tensor, region);
    },
    release: ({ tensor }) => tensor.dispose(),
  };
  const run = (): R => {
    const result = withRegion(
      region,
      () => withSavedTensorHooks(hooks, () => scope(() => synchronous(fn(...args)))),
      options.discardOutput,
    );
    if (options.discardOutput) markOutputs(args, result, hooks);
    return result;
  };
  // Nested regions are flattened: what is kept is for the outermost one to say.
  if (currentRegions().length > 0) return run();
  const { policy } = options;
  const decide = policy && new RegionPolicy(policy);
  const modes = decide && ((inner: Mode): Mode => new TracedPolicyMode(inner, decide));
  const make = modes ?? makeContexts(options)?.[0];
  return make ? withMode(make, run) : run();
}
