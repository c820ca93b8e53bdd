/**
 * Interleaved rounds: every contestant has one turn a round, in an order that is reversed from round
 * to round, with a pause before each turn so that threads of the one before have stopped spinning.
 *
 * A turn during which other processes used the processor is disturbed. It is repeated a few times; the
 * disturbed ones are kept for the record and count in no figure.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { busySeconds } from './machine.ts';
import type { Timing } from './protocol.ts';
import { ContestantError } from './server.ts';
import { median } from './statistics.ts';

export interface Contestant {
  readonly name: string;
  turn(): Promise<Timing>;
}

export interface Turn {
  readonly round: number;
  readonly ms: readonly number[];
  /** Cores that other processes used, on average. */
  readonly otherCores: number;
  readonly disturbed: boolean;
}

export interface TurnRecord {
  readonly name: string;
  readonly turns: Turn[];
  /** Why the contestant gave up. */
  failure?: string;
}

export interface RoundOptions {
  readonly rounds: number;
  /** Before each turn. */
  readonly pauseMs: number;
  /** Above this many cores used by others a turn is disturbed. */
  readonly maxOtherCores: number;
  /** How often a disturbed turn is repeated. */
  readonly retries: number;
  /** Told after each turn. */
  readonly onTurn?: (name: string, turn: Turn) => void;
  /** CPU seconds used on the whole machine so far; for tests. */
  readonly busy?: () => number;
}

export async function runRounds(
  contestants: readonly Contestant[],
  options: RoundOptions,
): Promise<TurnRecord[]> {
  const records = contestants.map(({ name }): TurnRecord => ({ name, turns: [] }));
  const order = contestants.map((contestant, i) => ({ contestant, record: records[i] }));
  for (let round = 0; round < options.rounds; round++) {
    for (const { contestant, record } of round % 2 === 0 ? order : order.toReversed()) {
      if (!record || record.failure !== undefined) continue;
      await playTurn(contestant, record, round, options);
    }
  }
  return records;
}

/** Median milliseconds of a step in each round; undefined where no turn was undisturbed. */
export function cleanRounds(record: TurnRecord): (number | undefined)[] {
  const rounds: (number | undefined)[] = [];
  for (const turn of record.turns) {
    if (!turn.disturbed) rounds[turn.round] = median(turn.ms);
  }
  return rounds;
}

/** As cleanRounds with every round's last turn, disturbed or not. */
export function allRounds(record: TurnRecord): (number | undefined)[] {
  const rounds: (number | undefined)[] = [];
  for (const turn of record.turns) rounds[turn.round] = median(turn.ms);
  return rounds;
}

async function playTurn(
  contestant: Contestant,
  record: TurnRecord,
  round: number,
  options: RoundOptions,
): Promise<void> {
  const busy = options.busy ?? busySeconds;
  for (let attempt = 0; attempt <= options.retries; attempt++) {
    await sleep(options.pauseMs * (attempt + 1));
    const busyBefore = busy();
    const began = performance.now();
    let timing: Timing;
    try {
      timing = await contestant.turn();
    } catch (error) {
      if (!(error instanceof ContestantError)) throw error;
      record.failure = error.message;
      return;
    }
    const seconds = (performance.now() - began) / 1000;
    const others = busy() - busyBefore - timing.cpuSeconds;
    const otherCores = Math.max(0, others / seconds);
    const disturbed = otherCores > options.maxOtherCores;
    const turn = { round, ms: timing.ms, otherCores, disturbed };
    record.turns.push(turn);
    options.onTurn?.(contestant.name, turn);
    if (!disturbed) return;
  }
}
