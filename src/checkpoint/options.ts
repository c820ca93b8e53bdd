/** Options of `checkpoint` and the process-wide settings that override them. */

import { ArgumentError, nearest } from '../core/errors.ts';
import type { Mode } from '../tensor/mode.ts';
import { Tensor } from '../tensor/tensor.ts';
import type { AnyPolicy } from './selective/region-policy.ts';

export type DeterminismCheck = 'default' | 'values' | 'none';

/** Makes a mode over the one that is current. */
export type ModeMaker = (inner: Mode) => Mode;

/**
 * Modes for the two runs of a region (C10). `release`, where there is one, is called when a recompute is
 * done and when the region is no longer in a graph: the modes then free what they hold.
 */
export type CheckpointContexts = readonly [forward: ModeMaker, recompute: ModeMaker] & {
  readonly release?: () => void;
};

export interface CheckpointOptions {
  /** Which op outputs are kept (S1, S4). Default: none, but for what every region keeps (S8). */
  readonly policy?: AnyPolicy;
  /** Called for each region call: the modes to enter around its two runs (torch's context_fn). */
  readonly contextFn?: () => CheckpointContexts;
  /**
   * What the region returns is not kept either by those who save it: backward makes it again with the
   * rest of the region (S7). For cheap functions whose result the next layer saves, such as norms and
   * activations. Default false.
   */
  readonly discardOutput?: boolean;
  /** Replay the region's random draws in the recompute. Default true. */
  readonly preserveRngState?: boolean;
  /**
   * What to compare between forward and recompute: shapes and dtypes ('default'), also values
   * ('values', reads every saved tensor back: for debugging), or only counts ('none').
   */
  readonly determinismCheck?: DeterminismCheck;
  /** Stop the recompute once the last needed tensor exists. Default true. */
  readonly earlyStop?: boolean;
  /** On a mismatch, show the op logs of both runs side by side with source lines. */
  readonly debug?: boolean;
  /** Name of the region in errors and reports. */
  readonly name?: string;
  /** Refused when true: only the non-reentrant kind exists (checkpointing.md C11). */
  readonly useReentrant?: boolean;
}

export interface ResolvedOptions {
  readonly policy: AnyPolicy | undefined;
  readonly contextFn: (() => CheckpointContexts) | undefined;
  readonly discardOutput: boolean;
  readonly preserveRngState: boolean;
  readonly determinismCheck: DeterminismCheck;
  readonly earlyStop: boolean;
  readonly debug: boolean;
  readonly name: string;
}

const legalKeys = [
  'policy',
  'contextFn',
  'discardOutput',
  'preserveRngState',
  'determinismCheck',
  'earlyStop',
  'debug',
  'name',
  'useReentrant',
];
const checks: readonly DeterminismCheck[] = ['default', 'values', 'none'];

let earlyStopOverride: boolean | undefined;
let debugOverride: boolean | undefined;

/** Runs `body` with early stop forced on or off, whatever calls say. Nests; the inner one counts. */
export function setCheckpointEarlyStop<T>(enabled: boolean, body: () => T): T {
  const before = earlyStopOverride;
  earlyStopOverride = enabled;
  try {
    return body();
  } finally {
    earlyStopOverride = before;
  }
}

/** Runs `body` with debug forced on or off, whatever calls say. Nests; the inner one counts. */
export function setCheckpointDebug<T>(enabled: boolean, body: () => T): T {
  const before = debugOverride;
  debugOverride = enabled;
  try {
    return body();
  } finally {
    debugOverride = before;
  }
}

/** Checks options and fills defaults; throws ArgumentError for unknown keys and illegal values. */
export function resolveOptions(options: CheckpointOptions): ResolvedOptions {
  if (options instanceof Tensor) {
    throw new ArgumentError(
      `checkpoint: the options are a tensor (got ${options.describe()}). Tensors go into the array of arguments.`,
    );
  }
  for (const key of Object.keys(options)) {
    if (legalKeys.includes(key)) continue;
    throw new ArgumentError(
      `checkpoint: unknown option '${key}'. Did you mean ${nearest(key, legalKeys, 2).join(' or ')}?`,
      { key },
    );
  }
  if (options.useReentrant) {
    throw new ArgumentError(
      'checkpoint: useReentrant: true is not supported (got true). The reentrant kind cannot serve grad(), nested ' +
        'structures, keyword arguments or detached parts. Leave useReentrant out: every region is non-reentrant.',
    );
  }
  const check = options.determinismCheck ?? 'default';
  if (!checks.includes(check)) {
    throw new ArgumentError(
      `checkpoint: determinismCheck must be one of ${checks.join(', ')} (got '${check}').`,
      { determinismCheck: check },
    );
  }
  const { policy, contextFn } = options;
  if (policy !== undefined && typeof policy !== 'function' && typeof policy.start !== 'function') {
    throw new ArgumentError(
      `checkpoint: policy must be a policy function or a declared policy (got ${typeof policy}). ` +
        'Use a function of a PolicyContext, or one of saveOps, saveModules and the like.',
    );
  }
  if (options.discardOutput && typeof policy === 'object' && policy.everything) {
    throw new ArgumentError(
      `checkpoint: discardOutput needs a region that recomputes (got the policy '${policy.label}', which keeps everything). ` +
        'Leave one of the two out.',
    );
  }
  if (contextFn !== undefined && policy !== undefined) {
    throw new ArgumentError(
      'checkpoint: policy and contextFn both say what the region keeps (got both). Give one of them.',
    );
  }
  if (contextFn !== undefined && typeof contextFn !== 'function') {
    throw new ArgumentError(
      `checkpoint: contextFn must be a function that makes a pair of modes (got ${typeof contextFn}). ` +
        'Wrap the pair: () => [forward, recompute].',
    );
  }
  return {
    policy,
    contextFn,
    discardOutput: options.discardOutput ?? false,
    preserveRngState: options.preserveRngState ?? true,
    determinismCheck: check,
    earlyStop: earlyStopOverride ?? options.earlyStop ?? true,
    debug: debugOverride ?? options.debug ?? false,
    name: options.name ?? '',
  };
}

/** The pair that `contextFn` makes, checked; undefined when there is none. */
export function makeContexts({ contextFn }: ResolvedOptions): CheckpointContexts | undefined {
  if (!contextFn) return undefined;
  const pair: unknown = contextFn();
  if (Array.isArray(pair) && pair.length === 2 && pair.every((f) => typeof f === 'function')) {
    return pair as unknown as CheckpointContexts;
  }
  throw new ArgumentError(
    `checkpoint: contextFn must generate a tuple of two functions that make modes (got ${String(pair)}). ` +
      'Return [(inner) => forwardMode, (inner) => recomputeMode].',
  );
}
