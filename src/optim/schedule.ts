/**
 * Learning-rate schedules: functions from the step, counted from 0, to a factor on the base rate
 * (transformers.get_*_schedule_with_warmup), and the scheduler that applies one.
 */

import { ConfigError } from '../core/errors.ts';
import type { HostState } from '../tensor/host-state.ts';
import { onEveryRun } from '../tensor/host-work.ts';

export type Schedule = (step: number) => number;

export interface WarmupOptions {
  /** Steps over which the factor rises from 0 to 1. Default 0. */
  readonly warmupSteps?: number;
}

export interface DecayOptions extends WarmupOptions {
  /** Step at which the decay ends. */
  readonly totalSteps: number;
  /** Factor at the end of the decay, from 0 to 1. Default 0. */
  readonly minRate?: number;
}

export interface CosineOptions extends DecayOptions {
  /** Waves of the cosine over the decay; default 0.5, which falls once. */
  readonly cycles?: number;
}

/** 1 after the warm-up. */
export function constantWithWarmup(options: WarmupOptions = {}): Schedule {
  const warmup = checkedSteps('constantWithWarmup', 'warmupSteps', options.warmupSteps ?? 0);
  return (step) => (step < warmup ? step / warmup : 1);
}

/** Falls in a straight line from 1 after the warm-up to `minRate` at `totalSteps`. */
export function linearWithWarmup(options: DecayOptions): Schedule {
  const { warmup, total, floor } = checkedDecay('linearWithWarmup', options);
  return (step) => {
    if (step < warmup) return step / warmup;
    return floor + (1 - floor) * Math.max(0, (total - step) / Math.max(1, total - warmup));
  };
}

/** Falls along a cosine from 1 after the warm-up to `minRate` at `totalSteps`. */
export function cosineWithWarmup(options: CosineOptions): Schedule {
  const { warmup, total, floor } = checkedDecay('cosineWithWarmup', options);
  const cycles = options.cycles ?? 0.5;
  return (step) => {
    if (step < warmup) return step / warmup;
    const progress = (step - warmup) / Math.max(1, total - warmup);
    const wave = 0.5 * (1 + Math.cos(Math.PI * cycles * 2 * progress));
    return Math.max(0, floor + (1 - floor) * wave);
  };
}

/** What a scheduler sets: an optimizer. */
export interface Scheduled {
  readonly groups: readonly { readonly settings: { lr: number } }[];
}

/**
 * Sets the learning rate of every group to its base rate times the schedule's factor
 * (torch.optim.lr_scheduler.LambdaLR). The base rates are those the groups have when it is made. Call
 * `step` after each optimizer step.
 */
export class LrScheduler {
  readonly #optimizer: Scheduled;
  readonly #schedule: Schedule;
  readonly #baseRates: readonly number[];
  #step = 0;

  constructor(optimizer: Scheduled, schedule: Schedule) {
    this.#optimizer = optimizer;
    this.#schedule = schedule;
    this.#baseRates = optimizer.groups.map(({ settings }) => settings.lr);
    this.#moveTo(0);
  }

  /** Steps taken. */
  get lastStep(): number {
    return this.#step;
  }

  step(): void {
    onEveryRun(this, LrScheduler.position, () => this.#moveTo(this.#step + 1));
  }

  stateDict(): { readonly step: number } {
    return { step: this.#step };
  }

  loadStateDict(state: { readonly step: number }): void {
    this.#moveTo(checkedSteps('LrScheduler.loadStateDict', 'step', state.step));
  }

  static readonly position: HostState<LrScheduler, number> = {
    describe: () => 'the step of the scheduler',
    get: (scheduler) => scheduler.#step,
    set: (scheduler, step) => scheduler.#moveTo(step),
    endsWithStep: true,
  };

  #moveTo(step: number): void {
    this.#step = step;
    const factor = this.#schedule(this.#step);
    this.#optimizer.groups.forEach(({ settings }, i) => {
      settings.lr = (this.#baseRates[i] ?? 0) * factor;
    });
  }
}

function checkedDecay(
  who: string,
  options: DecayOptions,
): { warmup: number; total: number; floor: number } {
  const warmup = checkedSteps(who, 'warmupSteps', options.warmupSteps ?? 0);
  const total = checkedSteps(who, 'totalSteps', options.totalSteps);
  const floor = options.minRate ?? 0;
  if (!(floor >= 0 && floor <= 1)) {
    throw new ConfigError(`${who}: 'minRate' must be from 0 to 1 (got ${floor}).`, {
      key: 'minRate',
      value: floor,
    });
  }
  if (warmup > total) {
    throw new ConfigError(
      `${who}: 'warmupSteps' is larger than 'totalSteps' (got ${warmup} and ${total}). Warm up for fewer steps.`,
      { key: 'warmupSteps', value: warmup },
    );
  }
  return { warmup, total, floor };
}

function checkedSteps(who: string, key: string, value: number): number {
  if (Number.isInteger(value) && value >= 0) return value;
  throw new ConfigError(`${who}: '${key}' must be an integer of at least 0 (got ${value}).`, {
    key,
    value,
  });
}
