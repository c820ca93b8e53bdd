/** Replaying a region's random draws: where each generator stood when the region first drew from it. */

import { type Generator, withDrawListener, withoutDrawListeners } from '../tensor/generator.ts';

export type DrawRecord = Map<Generator, { readonly seed: number; readonly offset: number }>;

/** Runs `body` and notes the state of every generator just before the region's first draw from it. */
export function recordDraws<T>(record: DrawRecord, body: () => T): T {
  return withDrawListener((generator) => {
    if (!record.has(generator)) record.set(generator, generator.getState());
  }, body);
}

/**
 * Runs `body` with the recorded generators set back, and returns them to where they were after it. A region
 * around the replay, whose forward runs a backward, must not take these draws for its own.
 */
export function replayDraws<T>(record: DrawRecord, body: () => T): T {
  const present = [...record.keys()].map((generator) => ({
    generator,
    state: generator.getState(),
  }));
  for (const [generator, state] of record) generator.setState(state);
  try {
    return withoutDrawListeners(body);
  } finally {
    for (const { generator, state } of present) generator.setState(state);
  }
}
