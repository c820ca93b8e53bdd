/** A proven lower bound on the peak of every schedule. */

import type { Problem } from './problem.ts';

export interface LeastBytes {
  readonly bytes: number;
  /** The op that makes the bound; -1 when nothing runs. */
  readonly op: number;
  /** Storages that are alive while it runs. */
  readonly alive: readonly number[];
  /** Whether the bound is that of the last result to be made. */
  readonly isLast: boolean;
}

/**
 * No peak is below the largest working set. Nor below all results together with what the op reads whose run
 * makes the last of them: every other result has been made for good by then, whichever op that is.
 */
export function leastBytes(problem: Problem): LeastBytes {
  const { workingSet, workspace, isResult, bytes, ops, inputStart, inputs, outputStart } = problem;
  const results: number[] = [];
  isResult.forEach((flag, s) => flag && results.push(s));
  const sum = (list: Iterable<number>): number => {
    let total = 0;
    for (const s of list) total += bytes[s] as number;
    return total;
  };
  const setOf = (op: number): Set<number> => {
    const set = new Set<number>(inputs.subarray(inputStart[op], inputStart[op + 1]));
    for (let s = outputStart[op] as number; s < (outputStart[op + 1] as number); s++) set.add(s);
    return set;
  };
  let most = { bytes: 0, op: -1 };
  let last = { bytes: Number.POSITIVE_INFINITY, op: -1 };
  const all = sum(results);
  for (let op = 0; op < ops; op++) {
    if (most.op < 0 || (workingSet[op] as number) > most.bytes)
      most = { bytes: workingSet[op] as number, op };
    if (!isResult.subarray(outputStart[op], outputStart[op + 1]).includes(1)) continue;
    const others = [...setOf(op)].filter((s) => !isResult[s]);
    const size = all + sum(others) + (workspace[op] as number);
    if (size < last.bytes) last = { bytes: size, op };
  }
  if (last.op >= 0 && last.bytes > most.bytes) {
    return { ...last, alive: [...new Set([...results, ...setOf(last.op)])], isLast: true };
  }
  return { ...most, alive: most.op < 0 ? [] : [...setOf(most.op)], isLast: false };
}
