/**
 * Interleaved rounds: every contestant has one turn a round, in an order that is reversed from round
 * to round, with a pause before each turn so that threads of the one before have stopped spinning.
 *
 * A turn during which other processes used the processor is disturbed. It is repeated a few times; the
 * disturbed ones are kept for the record and count in no figure. A turn that fails is noted; a
 * contestant that fails in two rounds in a row has no more turns.
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

export interface FailedTurn {
  readonly round: number;
  readonly reason: string;
}

export interface TurnRecord {
  readonly name: string;
  readonly turns: Turn[];
  readonly failed: FailedTurn[];
}

export interface RoundOptions {
  readonly rounds: number;
  /** Before each turn. */
  readonly pauseMs: number;
  /** Above this many cores used by others a turn is disturbed. */
  readonly maxOtherCores: number;
  /** How often a disturbed turn is repeated. */
  readonly retries: number;
  /** Told after each try. */
  readonly onTurn?: (record: TurnRecord, turn: Turn | FailedTurn) => void;
  /** Told when a contestant is through with a round, after how many seconds; 0 when it has no more turns. */
  readonly onDone?: (record: TurnRecord, seconds: number) => void;
  /** CPU seconds used on the whole machine so far; for tests. */
  readonly busy?: () => number;
}

export async function runRounds(
  contestants: readonly Contestant[],
  options: RoundOptions,
): Promise<TurnRecord[]> {
  const order = contestants.map((contestant) => {
    const record: TurnRecord = { name: contestant.name, turns: [], failed: [] };
    return { contestant, record };
  });
  for (let round = 0; round < options.rounds; round++) {
    for (const { contestant, record } of round % 2 === 0 ? order : order.toReversed()) {
      const began = performance.now();
      const out = isOut(record, round);
      if (!out) await playTurn(contestant, record, round, options);
      options.onDone?.(record, out ? 0 : (performance.now() - began) / 1000);
    }
  }
  return order.map(({ record }) => record);
}

/** Whether a contestant has failed so often that it has no turn in `round`. */
function isOut({ failed }: TurnRecord, round: number): boolean {
  const [before, last] = failed.slice(-2);
  if (!before || !last) return false;
  return last.round === before.round + 1 && last.round < round;
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
      const turn = { round, reason: error.message };
      record.failed.push(turn);
      options.onTurn?.(record, turn);
      return;
    }
    const seconds = (performance.now() - began) / 1000;
    const others = busy() - busyBefore - timing.cpuSeconds;
    const otherCores = Math.max(0, others / seconds);
    const disturbed = otherCores > options.maxOtherCores;
    const turn = { round, ms: timing.ms, otherCores, disturbed };
    record.turns.push(turn);
    options.onTurn?.(record, turn);
    if (!disturbed) return;
  }
}
