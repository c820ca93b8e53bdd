/** Further runs of a sequence, and sequences without some of them. */

import { polish } from './polish.ts';
import type { Problem } from './problem.ts';
import { type SearchWork, repair } from './repair.ts';
import { Timeline } from './timeline.ts';

/** What may run instead of a run that is taken out, in units of its cost, before it is polished. */
const exchangeLimit = 8;

/** The sequence with the runs at some positions taken out, and repaired; undefined when that does not work. */
export function without(
  problem: Problem,
  sequence: Int32Array,
  positions: readonly number[],
  budget: number,
  work: SearchWork,
  blur?: () => number,
): Int32Array | undefined {
  const { outputStart, ops, mustDrop, cost } = problem;
  const time = new Timeline(problem, sequence);
  work.left -= sequence.length;
  const blocked = new Set<number>();
  let most = 0;
  for (const at of positions) {
    const op = sequence[at] as number;
    most += exchangeLimit * (cost[op] as number);
    for (let s = outputStart[op] as number; s < (outputStart[op + 1] as number); s++) {
      if (mustDrop[s]) return undefined;
      const gap = time.gapAt(s, at + 1);
      if (gap >= 0) blocked.add(s * ops + (sequence[time.to[gap] as number] ?? ops - 1));
    }
  }
  const shorter = sequence.filter((_, i) => !positions.includes(i));
  const options = { blocked, mostCost: most, ...(blur && { blur }) };
  const repaired = repair(problem, useful(problem, shorter), budget, work, options);
  return repaired && polish(problem, repaired, budget).sequence;
}

/** The sequence without further runs that nothing reads. */
export function useful(problem: Problem, sequence: Int32Array): Int32Array {
  const { inputStart, inputs, outputStart, isResult, storages } = problem;
  const needed = isResult.slice();
  const first = new Int32Array(problem.ops).fill(-1);
  sequence.forEach((op, i) => {
    if ((first[op] as number) < 0) first[op] = i;
  });
  const keep = new Uint8Array(sequence.length);
  for (let i = sequence.length - 1; i >= 0; i--) {
    const op = sequence[i] as number;
    let isRead = first[op] === i;
    for (let s = outputStart[op] as number; s < (outputStart[op + 1] as number); s++) {
      if (needed[s]) isRead = true;
    }
    if (!isRead) continue;
    keep[i] = 1;
    needed.fill(0, outputStart[op], outputStart[op + 1]);
    for (let j = inputStart[op] as number; j < (inputStart[op + 1] as number); j++)
      needed[inputs[j] as number] = 1;
  }
  return storages === 0 ? sequence : sequence.filter((_, i) => keep[i] === 1);
}

/** Positions of further runs, dearest first. */
export function furtherRuns(problem: Problem, sequence: Int32Array): number[] {
  const ran = new Uint8Array(problem.ops);
  const list: number[] = [];
  sequence.forEach((op, i) => {
    if (ran[op]) list.push(i);
    ran[op] = 1;
  });
  const price = (at: number) => problem.cost[sequence[at] as number] as number;
  return list.sort((a, b) => price(b) - price(a) || a - b);
}
