/**
 * A plan as a sequence of runs (op numbers). When memory is freed follows: a storage lives from a run of
 * its op to the last reader before the next run of that op, results to the end.
 */

import { invariant } from '../core/errors.ts';
import type { Step } from './graph.ts';
import type { Problem } from './problem.ts';

/** Memory alive while each run of a sequence is under way (its inputs, outputs and workspace included). */
export interface Profile {
  readonly live: Float64Array;
  readonly peak: number;
  readonly peakAt: number;
}

/** Order of the graph as given: every op once. */
export function baseSequence(problem: Problem): Int32Array {
  return Int32Array.from({ length: problem.ops }, (_, op) => op);
}

/** Calls `visit(storage, first, last)` for each span of positions during which a storage is held. */
export function visitSpans(
  problem: Problem,
  sequence: Int32Array,
  visit: (storage: number, first: number, last: number) => void,
): void {
  const { inputStart, inputs, outputStart, storages, isResult } = problem;
  const first = new Int32Array(storages).fill(-1);
  const last = new Int32Array(storages);
  for (let i = 0; i < sequence.length; i++) {
    const op = sequence[i] as number;
    for (let j = inputStart[op] as number; j < (inputStart[op + 1] as number); j++) {
      const s = inputs[j] as number;
      invariant((first[s] as number) >= 0, () => `op ${op} runs before its input ${s}`);
      last[s] = i;
    }
    for (let s = outputStart[op] as number; s < (outputStart[op + 1] as number); s++) {
      if ((first[s] as number) >= 0) visit(s, first[s] as number, last[s] as number);
      first[s] = i;
      last[s] = i;
    }
  }
  for (let s = 0; s < storages; s++) {
    if ((first[s] as number) >= 0) {
      visit(s, first[s] as number, isResult[s] ? sequence.length : (last[s] as number));
    }
  }
}

export function profileOf(problem: Problem, sequence: Int32Array): Profile {
  const delta = new Float64Array(sequence.length + 2);
  visitSpans(problem, sequence, (s, first, last) => {
    const size = problem.bytes[s] as number;
    delta[first] = (delta[first] as number) + size;
    delta[last + 1] = (delta[last + 1] as number) - size;
  });
  const live = new Float64Array(sequence.length);
  let sum = 0;
  let peak = 0;
  let peakAt = -1;
  for (let i = 0; i < sequence.length; i++) {
    sum += delta[i] as number;
    const now = sum + (problem.workspace[sequence[i] as number] as number);
    live[i] = now;
    if (now > peak) {
      peak = now;
      peakAt = i;
    }
  }
  return { live, peak, peakAt };
}

/** Time and cost of every run that is not an op's first. */
export function extraOf(
  problem: Problem,
  sequence: Int32Array,
): { ns: number; hardNs: number; cost: number } {
  const ran = new Uint8Array(problem.ops);
  let ns = 0;
  let hardNs = 0;
  let cost = 0;
  for (const op of sequence) {
    if (ran[op]) {
      ns += problem.time[op] as number;
      cost += problem.cost[op] as number;
      if (problem.hard[op]) hardNs += problem.time[op] as number;
    }
    ran[op] = 1;
  }
  return { ns, hardNs, cost };
}

/** The explicit schedule: views run when what they show has been made, frees come as early as they can. */
export function scheduleOf(problem: Problem, sequence: Int32Array): Step[] {
  const freed: number[][] = Array.from({ length: sequence.length }, () => []);
  visitSpans(problem, sequence, (s, _, last) => {
    if (last < sequence.length) freed[last]?.push(s);
  });
  const steps: Step[] = [];
  for (const view of problem.views.get(-1) ?? []) steps.push(['run', view]);
  const ran = new Uint8Array(problem.ops);
  for (let i = 0; i < sequence.length; i++) {
    const op = sequence[i] as number;
    steps.push(['run', problem.node[op] as number]);
    if (!ran[op]) for (const view of problem.views.get(op) ?? []) steps.push(['run', view]);
    ran[op] = 1;
    for (const s of freed[i] ?? []) {
      const made = problem.producer[s] as number;
      steps.push(['free', problem.node[made] as number, problem.output[s] as number]);
    }
  }
  return steps;
}
