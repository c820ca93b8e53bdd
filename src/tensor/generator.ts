/**
 * Random generators. State is a 64-bit seed and a 64-bit count of draws so far; a draw is a pure
 * function of both and of the element's index (core/random.ts), so replaying means setting the count
 * back.
 */

import { ArgumentError } from '../core/errors.ts';
import { hostTensor } from '../core/host-tensor.ts';
import type { HostTensor } from '../core/host-tensor.ts';
import { type HostState, noteRead, noteWrite } from './host-state.ts';

type DrawListener = (generator: Generator, offset: number) => void;

const listeners: DrawListener[] = [];

export interface GeneratorState {
  readonly seed: number;
  /** Draws made so far. */
  readonly offset: number;
}

export class Generator {
  /** Replaced whole, never changed. */
  #state: GeneratorState;
  /** Draws that the step being traced has asked for: each run makes them. */
  #ahead = 0;

  /** `seed`: an integer from 0 to 2^53 - 1. */
  constructor(seed = 0) {
    this.#state = { seed: checkSeed(seed), offset: 0 };
    noteWrite(this, Generator.position);
  }

  get seed(): number {
    return this.getState().seed;
  }

  /** Draws made so far. */
  get offset(): number {
    return this.getState().offset;
  }

  /** Starts the sequence of `seed` afresh (torch.Generator.manual_seed). */
  manualSeed(seed: number): this {
    this.setState({ seed, offset: 0 });
    return this;
  }

  getState(): GeneratorState {
    noteRead(this, Generator.position);
    const { seed, offset } = this.#state;
    return { seed, offset: offset + this.#ahead };
  }

  setState({ seed, offset }: GeneratorState): void {
    noteWrite(this, Generator.position);
    this.#state = { seed: checkSeed(seed), offset };
    this.#ahead = 0;
  }

  /** Takes the numbers of `count` draws; returns the first. Listeners hear of it. */
  advance(count = 1): number {
    const { seed, offset } = this.#state;
    for (const listener of listeners) listener(this, offset);
    this.#state = { seed, offset: offset + count };
    return offset;
  }

  /** Counts a draw that runs of the step being traced will make; the position as it is shown includes it. */
  foresee(): number {
    noteWrite(this, Generator.foreseen);
    return this.#ahead++;
  }

  /** The uint32[4] state tensor for a draw at `offset`. */
  stateTensor(offset: number): HostTensor {
    const { seed } = this.#state;
    const words = [seed, seed / 2 ** 32, offset, offset / 2 ** 32];
    return hostTensor(Uint32Array.from(words.map((word) => word >>> 0)), [4], 'uint32');
  }

  /** Where the sequence stands. A step that sets it draws the same numbers in each run. */
  static readonly position: HostState<Generator, GeneratorState> = {
    describe: () => 'the position of a random generator',
    get: (generator) => generator.#state,
    set: (generator, state) => {
      generator.#state = state;
    },
    image: ({ seed, offset }) => `seed ${seed}, offset ${offset}`,
    sameImage: ({ seed, offset }, image) => `seed ${seed}, offset ${offset}` === image,
  };

  static readonly foreseen: HostState<Generator, number> = {
    describe: () => 'the draws of the step',
    get: (generator) => generator.#ahead,
    set: (generator, ahead) => {
      generator.#ahead = ahead;
    },
    endsWithStep: true,
  };
}

/** The generator used when none is given. */
export const defaultGenerator: Generator = new Generator(0);

/** Seeds the default generator (torch.manual_seed). */
export function manualSeed(seed: number): void {
  defaultGenerator.manualSeed(seed);
}

/** Runs `body`; `listener` hears of every draw inside, before it happens. */
export function withDrawListener<T>(listener: DrawListener, body: () => T): T {
  listeners.push(listener);
  try {
    return body();
  } finally {
    listeners.splice(listeners.lastIndexOf(listener), 1);
  }
}

/** Runs `body`, whose draws the listeners outside it do not hear: it repeats draws that were made before. */
export function withoutDrawListeners<T>(body: () => T): T {
  const outer = listeners.splice(0);
  try {
    return body();
  } finally {
    listeners.splice(0, listeners.length, ...outer);
  }
}

function checkSeed(seed: number): number {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new ArgumentError(
      `Generator: the seed must be an integer from 0 to 2^53 - 1 (got ${seed}). Choose another seed.`,
      { seed },
    );
  }
  return seed;
}
