/**
 * A program as a code: a list of steps that all threads walk in lock-step, with a barrier between
 * steps and no other communication. A step for one thread runs on the main thread; between two such
 * steps there is no barrier. Between segments the main thread does other things.
 */

import { word } from './control.ts';
import { reportFailure } from './failure.ts';
import type { Thread, ThreadCode } from './thread.ts';
import { barrier } from './waiting.ts';

export interface CodeStep {
  readonly code: number;
  /** Address of the step's argument slots. */
  readonly args: number;
  /** Threads that work on the step. */
  readonly threads: number;
}

/** Steps and the segments they are run in: the first step of each, in order. */
export interface SegmentedSteps {
  readonly steps: readonly CodeStep[];
  readonly starts: readonly number[];
}

export function encodeProgram(program: SegmentedSteps): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(JSON.stringify(program));
}

export function decodeProgram(bytes: Uint8Array<ArrayBuffer>): SegmentedSteps {
  return JSON.parse(new TextDecoder().decode(bytes)) as SegmentedSteps;
}

/** The function that runs a thread's share of one segment; what it gets for `args` is the segment's number. */
export function programCode({ steps, starts }: SegmentedSteps, host: Thread): ThreadCode {
  const { control } = host.memory;
  const count = steps.length;
  const meets = steps.map(({ threads }, i) => threads > 1 || (steps[i + 1]?.threads ?? 1) > 1);
  const codes = new Array<ThreadCode | undefined>(count).fill(undefined);
  const checkWorkers = (): void => host.checkWorkers();

  const runStep = (i: number, thread: number, threads: number): boolean => {
    const step = steps[i]!;
    const own = step.threads < threads ? step.threads : threads;
    if (thread >= own) return true;
    try {
      let code = codes[i];
      if (code === undefined) {
        code = host.code(step.code);
        codes[i] = code;
      }
      code(step.args, thread, own);
      return true;
    } catch (error) {
      reportFailure(control, thread, i, error);
      return false;
    }
  };

  return (segment, thread, threads) => {
    const stepwise = control[word.commandStepwise] !== 0;
    const end = starts[segment + 1] ?? count;
    let sound = true;
    for (let i = starts[segment] ?? 0; i < end; i++) {
      // A thread that failed goes on to meet the others, so that nobody waits for it forever.
      sound = sound && runStep(i, thread, threads);
      if (threads > 1 && (stepwise || (meets[i] && i + 1 < end))) {
        barrier(control, threads, checkWorkers);
      }
      if (stepwise) host.stepDone(i);
    }
  };
}
