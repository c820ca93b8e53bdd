/** Passing the first failure of a command from any thread to the main one. */

import { ArgumentError } from '../../core/errors.ts';
import { failureStart, maxFailureLength, word } from './control.ts';

export interface Failure {
  /** What was thrown, and on which thread. */
  readonly text: string;
  /** The step of the program; -1 for a single kernel. */
  readonly step: number;
}

/** The error of a kernel that trapped because of the values it was given; undefined for other failures. */
export function trapError(
  executable: { readonly trap?: string | undefined } | undefined,
  failure: Failure,
): ArgumentError | undefined {
  const trapped = executable?.trap !== undefined && failure.text.includes('unreachable');
  return trapped ? new ArgumentError(executable.trap) : undefined;
}

/** Notes a failure; only the first of a command is kept. */
export function reportFailure(
  control: Int32Array,
  thread: number,
  step: number,
  error: unknown,
): void {
  if (Atomics.compareExchange(control, word.failed, 0, 1) !== 0) return;
  const reason = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  const text = `${reason} (on thread ${thread})`.slice(0, maxFailureLength);
  const start = failureStart / 4;
  control[start] = text.length;
  for (let i = 0; i < text.length; i++) control[start + 1 + i] = text.charCodeAt(i);
  control[word.failedStep] = step;
}

/** Main thread, after all are done: the failure, which is cleared; undefined when all went well. */
export function takeFailure(control: Int32Array): Failure | undefined {
  if (Atomics.load(control, word.failed) === 0) return undefined;
  const start = failureStart / 4;
  let text = '';
  for (let i = 0; i < control[start]!; i++) text += String.fromCharCode(control[start + 1 + i]!);
  Atomics.store(control, word.failed, 0);
  return { text, step: control[word.failedStep]! };
}
