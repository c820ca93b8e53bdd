/**
 * The seam for host state that shapes what a step does: whether a module trains, how its calls are
 * wrapped, whether a leaf wants or has a gradient. Owners announce reads and writes here. Nobody listens
 * in eager mode; while a step is traced a journal does, and what was read becomes a condition for using
 * the trace again, what was written becomes part of every run.
 */

/** One kind of host state: what objects of type `O` keep under one name. */
export interface HostState<O extends object, V> {
  /** As in a message: `requiresGrad of float32[2] 'w'`. */
  readonly describe: (owner: O) => string;
  /** The present value, without announcing the read. */
  readonly get: (owner: O) => V;
  /** Sets it back, or again; absent for state that a step may only read. */
  readonly set?: (owner: O, value: V) => void;
  /** A step's change of it ends with the step: runs do not repeat it. */
  readonly endsWithStep?: boolean;
  /**
   * What a trace depended on in a value: all of it by default. Two values with the same image are
   * traced alike. Images are compared with Object.is, or with `sameImage`.
   */
  readonly image?: (value: V) => unknown;
  readonly sameImage?: (value: V, image: unknown) => boolean;
  /** An image in a message. */
  readonly show?: (image: unknown) => string;
}

export interface StateListener {
  /** `owner` is about to be asked for `state`. */
  onRead<O extends object, V>(owner: O, state: HostState<O, V>): void;
  /** `state` of `owner` is about to be set. */
  onWrite<O extends object, V>(owner: O, state: HostState<O, V>): void;
  /** Whether the listener will put `value` back: then it must not be disposed on being replaced. */
  keeps(value: unknown): boolean;
}

let listener: StateListener | undefined;

export function noteRead<O extends object, V>(owner: O, state: HostState<O, V>): void {
  listener?.onRead(owner, state);
}

export function noteWrite<O extends object, V>(owner: O, state: HostState<O, V>): void {
  listener?.onWrite(owner, state);
}

/** Whether a value that is being replaced is still somebody's. */
export function isKept(value: unknown): boolean {
  return listener?.keeps(value) ?? false;
}

/** Runs `body` with `listens` hearing of all reads and writes, or with nobody for undefined. */
export function withStateListener<T>(listens: StateListener | undefined, body: () => T): T {
  const before = listener;
  listener = listens;
  try {
    return body();
  } finally {
    listener = before;
  }
}
