/**
 * From decisions to a sequence of runs. A decision says which storages are held at one instant; every
 * other is gone then. The sequence runs the graph in order and, before each op, runs again what is missing,
 * in graph order and no earlier than needed.
 */

import type { Problem } from './problem.ts';

/** What is held while `op` runs, `op` being `before` itself or an op run again ahead of `before`. */
export interface Decision {
  readonly before: number;
  readonly op: number;
  readonly hold: Uint8Array;
}

export interface Realization {
  readonly sequence: Int32Array;
  /** Per position: the op of the graph's order that is being served. */
  readonly serving: Int32Array;
}

export function inOrder(a: Decision, b: Decision): number {
  return a.before - b.before || a.op - b.op;
}

/** Runs the graph under `decisions`, which are in order. */
export function realize(
  problem: Problem,
  decisions: readonly Decision[],
  stopBefore = Number.POSITIVE_INFINITY,
): Realization & { available: Uint8Array } {
  const { ops, inputStart, inputs, outputStart, producer, once, mustDrop, boundary, isResult } =
    problem;
  const available = new Uint8Array(problem.storages);
  const marked = new Int32Array(ops).fill(-1);
  const sequence: number[] = [];
  const serving: number[] = [];
  let round = 0;
  let next = 0;

  /** Missing ops for `target` below its own, in graph order. */
  const missing = (target: number): number[] => {
    round++;
    const list: number[] = [];
    const stack: number[] = [];
    const need = (s: number) => {
      const made = producer[s] as number;
      if (available[s] || marked[made] === round) return;
      marked[made] = round;
      list.push(made);
      stack.push(made);
    };
    const needInputs = (op: number) => {
      for (let i = inputStart[op] as number; i < (inputStart[op + 1] as number); i++) {
        need(inputs[i] as number);
      }
    };
    if (target < ops) needInputs(target);
    else for (let s = 0; s < problem.storages; s++) if (isResult[s]) need(s);
    for (let op = stack.pop(); op !== undefined; op = stack.pop()) needInputs(op);
    return list.sort((a, b) => a - b);
  };
  const run = (op: number, target: number) => {
    sequence.push(op);
    serving.push(target);
    available.fill(1, outputStart[op], outputStart[op + 1]);
  };
  const apply = (decision: Decision, op: number) => {
    const had = available.slice();
    for (let s = 0; s < available.length; s++) {
      // What cannot be made again stays in reach; it is held only as long as something reads it.
      if (!decision.hold[s] && !once[producer[s] as number]) available[s] = 0;
    }
    for (let i = inputStart[op] as number; i < (inputStart[op + 1] as number); i++) {
      const s = inputs[i] as number;
      if (had[s]) available[s] = 1;
    }
  };

  // The last round makes results again that were given up.
  for (let target = 0; target <= ops; target++) {
    if (target === boundary && boundary < ops) {
      for (let s = 0; s < available.length; s++) if (mustDrop[s]) available[s] = 0;
    }
    let list = missing(target);
    for (let i = 0; i < list.length; i++) {
      const op = list[i] as number;
      const decision = decisions[next];
      if (decision && decision.before === target && decision.op <= op) {
        next++;
        apply(decision, decision.op);
        if (decision.op === op) run(op, target);
        list = missing(target);
        i = -1;
        continue;
      }
      if (sequence.length >= stopBefore) break;
      run(op, target);
    }
    if (target === ops || sequence.length >= stopBefore) break;
    const decision = decisions[next];
    if (decision && decision.before === target && decision.op === target) {
      next++;
      apply(decision, target);
    } else {
      while (decisions[next] && (decisions[next] as Decision).before <= target) next++;
    }
    run(target, target);
  }
  return { sequence: Int32Array.from(sequence), serving: Int32Array.from(serving), available };
}
