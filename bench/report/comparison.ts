/** Figures drawn from the turns: times, and ratios taken round by round. */

import { type EnvironmentName, entryName } from '../contestants.ts';
import type { Variant } from '../driver/protocol.ts';
import { allRounds, cleanRounds } from '../driver/rounds.ts';
import { ratios, type Spread, spread } from '../driver/statistics.ts';
import type { EntryResult, TrainingResult } from '../sections/training.ts';

/** A spread over rounds. */
export interface Figure extends Spread {
  /** Only disturbed rounds were there to take it from: it shows little. */
  readonly disturbed: boolean;
}

/** Milliseconds of a step. */
export function stepTime(result: EntryResult): Figure | undefined {
  const [clean, all] = [rounds(result, cleanRounds), rounds(result, allRounds)];
  return figure(clean.filter(isNumber), all.filter(isNumber));
}

/** How many times as long a step of `a` takes as one of `b`, from the rounds that have both. */
export function timeRatio(a: EntryResult, b: EntryResult): Figure | undefined {
  return figure(
    ratios(rounds(a, cleanRounds), rounds(b, cleanRounds)),
    ratios(rounds(a, allRounds), rounds(b, allRounds)),
  );
}

export function discardedTurns(result: EntryResult): number {
  return result.turns?.filter(({ disturbed }) => disturbed).length ?? 0;
}

export function findEntry(
  training: TrainingResult | undefined,
  environment: EnvironmentName,
  variant: Variant,
): EntryResult | undefined {
  const name = entryName(environment, variant);
  return training?.entries.find(({ entry }) => entry.name === name);
}

/** Largest relative difference of the losses, step by step. */
export function lossDifference(a: EntryResult, b: EntryResult): number | undefined {
  if (!a.losses || !b.losses) return undefined;
  return relativeDifference(a.losses, b.losses);
}

export function relativeDifference(a: readonly number[], b: readonly number[]): number {
  return Math.max(
    ...a.map((loss, i) => Math.abs(loss - (b[i] ?? Number.NaN)) / Math.abs(b[i] ?? 1)),
  );
}

function rounds(
  { entry, turns = [] }: EntryResult,
  pick: typeof cleanRounds,
): (number | undefined)[] {
  return pick({ name: entry.name, turns, failed: [] });
}

function figure(clean: readonly number[], all: readonly number[]): Figure | undefined {
  const own = spread(clean);
  if (own) return { ...own, disturbed: false };
  const any = spread(all);
  return any && { ...any, disturbed: true };
}

function isNumber(value: number | undefined): value is number {
  return value !== undefined;
}
