/**
 * Every error a user can see. One base class with a stable `code` and structured `details`; a
 * subclass exists only where a caller can act on the difference. Text form:
 * `<function>: <what was wrong> (got <values>). <what to do>.`
 */

export type ErrorDetails = Readonly<Record<string, unknown>>;

export class RetuneError extends Error {
  readonly code: string;
  readonly details: ErrorDetails;
  constructor(code: string, message: string, details: ErrorDetails = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    this.code = code;
    this.details = details;
  }
}

/** Shapes, axes or dtypes that do not fit together. */
export class ShapeError extends RetuneError {
  constructor(message: string, details: ErrorDetails = {}) {
    super('shape', message, details);
  }
}

/** A dtype that the function does not take. */
export class DTypeError extends RetuneError {
  constructor(message: string, details: ErrorDetails = {}) {
    super('dtype', message, details);
  }
}

/** An argument outside its legal values. */
export class ArgumentError extends RetuneError {
  constructor(message: string, details: ErrorDetails = {}) {
    super('argument', message, details);
  }
}

/** A tensor used after it was disposed or after its scope ended. */
export class DisposedError extends RetuneError {
  constructor(message: string, details: ErrorDetails = {}) {
    super('disposed', message, details);
  }
}

/** Autograd misuse: backward twice, a saved tensor changed in place, nothing to differentiate. */
export class AutogradError extends RetuneError {
  constructor(message: string, details: ErrorDetails = {}) {
    super('autograd', message, details);
  }
}

/** Forward and recompute of a checkpointed region disagree (torch.utils.checkpoint.CheckpointError). */
export class CheckpointError extends RetuneError {
  constructor(message: string, details: ErrorDetails = {}, cause?: unknown) {
    super('checkpoint', message, details, cause);
  }
}

/** A compiled step did something that cannot be traced, such as reading a value on the host. */
export class CompileError extends RetuneError {
  constructor(message: string, details: ErrorDetails = {}) {
    super('compile', message, details);
  }
}

/** The backend lacks something that was asked for. */
export class UnsupportedError extends RetuneError {
  constructor(message: string, details: ErrorDetails = {}) {
    super('unsupported', message, details);
  }
}

/** An allocation did not fit. `details`: requested, live, limit (bytes) and byCategory. */
export class OutOfMemoryError extends RetuneError {
  constructor(message: string, details: ErrorDetails = {}) {
    super('out-of-memory', message, details);
  }
}

/**
 * A memory budget that no plan keeps. `details`: budgetBytes, smallestBytes (the least that was reached),
 * lowerBoundBytes (proven), the op and the bytes alive at it.
 */
export class InfeasibleBudgetError extends RetuneError {
  constructor(message: string, details: ErrorDetails = {}) {
    super('infeasible', message, details);
  }
}

/** A configuration that is unknown, contradictory or out of range. `details.key` names the key. */
export class ConfigError extends RetuneError {
  constructor(message: string, details: ErrorDetails = {}) {
    super('config', message, details);
  }
}

/** A file that is missing, truncated, malformed or cannot be written. `details.path` names it. */
export class FileError extends RetuneError {
  constructor(message: string, details: ErrorDetails = {}, cause?: unknown) {
    super('file', message, details, cause);
  }
}

/** A bug in Retune itself. */
export class InternalError extends RetuneError {
  constructor(message: string, details: ErrorDetails = {}) {
    super('internal', `internal error, please report it: ${message}`, details);
  }
}

/** Throws InternalError unless `condition` holds. */
export function invariant(condition: unknown, message: () => string): asserts condition {
  if (!condition) throw new InternalError(message());
}

/** `value`, which must not be undefined: for list elements that exist by construction. */
export function definite<T>(value: T | undefined): T {
  if (value === undefined) throw new InternalError('a value that must exist is missing');
  return value;
}

/** The legal values closest to `value` (edit distance), for "did you mean" in errors. */
export function nearest(value: string, legal: Iterable<string>, count = 3): string[] {
  const scored = [...legal].map((name) => ({ name, distance: editDistance(value, name) }));
  scored.sort((a, b) => a.distance - b.distance || (a.name < b.name ? -1 : 1));
  return scored.slice(0, count).map((entry) => entry.name);
}

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      current.push(Math.min(substitution, (previous[j] ?? 0) + 1, (current[j - 1] ?? 0) + 1));
    }
    previous = current;
  }
  return previous[b.length] ?? 0;
}
