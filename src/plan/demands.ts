/** What later ops of the graph's order read of what was made before an instant. */

import type { Problem } from './problem.ts';

/** Storages made by ops below `executed` that the ops from there to `end` read, and results where asked for. */
export function demandsAfter(
  problem: Problem,
  executed: number,
  end: number,
  results: boolean,
): Set<number> {
  const { inputStart, inputs, outputStart, isResult } = problem;
  const made = outputStart[executed] as number;
  const demands = new Set<number>();
  for (let i = inputStart[executed] as number; i < (inputStart[end] as number); i++) {
    const s = inputs[i] as number;
    if (s < made) demands.add(s);
  }
  if (results) for (let s = 0; s < made; s++) if (isResult[s]) demands.add(s);
  return demands;
}
