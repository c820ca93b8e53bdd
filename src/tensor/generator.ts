/**
 * Random generators. State is a 64-bit seed and a 64-bit count of draws so far; a draw is a pure
 * function of both and of the element's index (core/random.ts), so replaying means setting the count
 * back.
 */

import { ArgumentError } from '../core/errors.ts';
import { hostTensor } from '../core/host-tensor.ts';
import type { HostTensor } from '../core/host-tensor.ts';

type DrawListener = (generator: Generator, offset: number) => void;

const listeners: DrawListener[] = [];

export class Generator {
  #seed: number;
  #offset = 0;

  /** `seed`: an integer from 0 to 2^53 - 1. */
  constructor(seed = 0) {
    this.#seed = checkSeed(seed);
  }

  get seed(): number {
    return this.#seed;
  }

  /** Draws made so far. */
  get offset(): number {
    return this.#offset;
  }

  /** Starts the sequence of `seed` afresh (torch.Generator.manual_seed). */
  manualSeed(seed: number): this {
    this.#seed = checkSeed(seed);
    this.#offset = 0;
    return this;
  }

  getState(): { readonly seed: number; readonly offset: number } {
    return { seed: this.#seed, offset: this.#offset };
  }

  setState(state: { readonly seed: number; readonly offset: number }): void {
    this.#seed = checkSeed(state.seed);
    this.#offset = state.offset;
  }

  /** Takes the numbers of `count` draws; returns the first. Listeners hear of it. */
  advance(count = 1): number {
    const first = this.#offset;
    for (const listener of listeners) listener(this, first);
    this.#offset += count;
    return first;
  }

  /** The uint32[4] state tensor for a draw at `offset`. */
  stateTensor(offset: number): HostTensor {
    const words = [this.#seed, this.#seed / 2 ** 32, offset, offset / 2 ** 32];
    return hostTensor(Uint32Array.from(words.map((word) => word >>> 0)), [4], 'uint32');
  }
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
