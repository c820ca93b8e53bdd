/**
 * Finding what trains fastest within an amount of memory. Every candidate is measured on paper before it
 * counts (needs.ts). Compiled steps recompute what a budget says; eager ones choose among whole layers.
 */

import { InfeasibleBudgetError, definite } from '../../core/errors.ts';
import { readConfig } from '../../models/from-config.ts';
import type { StepShape } from '../recipe.ts';
import { type BatchSplit, type ChosenKeys, evaluationRows, withChosen } from './choice.ts';
import { type MeasuredStep, measureStep } from './needs.ts';

/** A way to train that was measured. */
export interface Candidate {
  readonly chosen: ChosenKeys;
  readonly step: MeasuredStep;
}

export interface SearchRequest {
  /** All that training may hold. */
  readonly limitBytes: number;
  /** Whether the rows of an optimizer step may be divided otherwise. */
  readonly adaptBatch: boolean;
  /** Told before each plan. */
  readonly onPlan: (split: BatchSplit) => void;
}

type Setting = ChosenKeys['activation_checkpointing'];

/** How often a budget is lowered by what a plan takes too much. */
const maxTrials = 4;
/** Larger micro-batches that are tried with recomputing, besides those that need none. */
const maxRecomputing = 4;

export class MemorySearch {
  readonly #shape: StepShape;
  readonly #request: SearchRequest;
  readonly #asked: BatchSplit;
  /** Fewest micro-batches first. */
  readonly #splits: readonly BatchSplit[];
  readonly #measured = new Map<string, Candidate>();

  constructor(shape: StepShape, request: SearchRequest) {
    this.#shape = shape;
    this.#request = request;
    const { batch_size, gradient_accumulation_steps } = shape.training;
    this.#asked = { batch_size, gradient_accumulation_steps };
    this.#splits = request.adaptBatch
      ? splitsOf(batch_size * gradient_accumulation_steps)
      : [this.#asked];
  }

  /** Whether there is more than one way to divide the rows. */
  get hasSplits(): boolean {
    return this.#splits.length > 1;
  }

  /**
   * The fastest candidate found that fits, of equally fast ones that with fewer micro-batches; undefined when none
   * fits. Of many divisions only some are looked at: the one without accumulation, the largest micro-batch that
   * needs no recomputing, found by halving, and the next larger ones.
   */
  fastest(): Candidate | undefined {
    const [first, ...rest] = this.#splits;
    const whole = first && this.#within(first);
    if (whole?.chosen.activation_checkpointing.mode === 'none') return whole;
    const plain = this.#largestPlain(rest);
    const found = whole ? [whole] : [];
    if (plain) found.push(this.#plain(definite(rest[plain.at])));
    const from = plain ? plain.at - 1 : rest.length - 1;
    for (let at = from; at >= 0 && at > from - maxRecomputing; at--) {
      const candidate = this.#within(definite(rest[at]));
      if (!candidate) break;
      found.push(candidate);
    }
    return found
      .toSorted(
        (a, b) => a.chosen.gradient_accumulation_steps - b.chosen.gradient_accumulation_steps,
      )
      .reduce<Candidate | undefined>((best, next) => {
        return best && best.step.ns <= next.step.ns ? best : next;
      }, undefined);
  }

  /** Some candidate that fits; undefined when none does. */
  any(): Candidate | undefined {
    for (const split of this.#leastSplits()) {
      const candidate = this.#within(split);
      if (candidate) return candidate;
    }
    return undefined;
  }

  /** The candidate of least memory. */
  smallest(): Candidate {
    return this.#leastSplits()
      .map((split) => this.#smallestOf(split))
      .reduce((a, b) => (b.step.totalBytes < a.step.totalBytes ? b : a));
  }

  /** Memory falls with the micro-batch, but for the gradients that accumulation keeps. */
  #leastSplits(): BatchSplit[] {
    const first = definite(this.#splits[0]);
    const last = definite(this.#splits.at(-1));
    return first === last ? [first] : [last, first];
  }

  /** Where the largest micro-batch stands that fits with nothing recomputed. */
  #largestPlain(splits: readonly BatchSplit[]): { readonly at: number } | undefined {
    let low = 0;
    let high = splits.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#fits(this.#plain(definite(splits[middle])))) high = middle;
      else low = middle + 1;
    }
    return low < splits.length ? { at: low } : undefined;
  }

  #within(split: BatchSplit): Candidate | undefined {
    const plain = this.#plain(split);
    if (this.#fits(plain)) return plain;
    if (!this.#shape.training.compile) return this.#eagerWithin(split);
    let budget = this.#request.limitBytes - plain.step.besideBytes;
    for (let trial = 0; trial < maxTrials && budget > 0; trial++) {
      const candidate = this.#budgeted(split, budget);
      if (!candidate || this.#fits(candidate)) return candidate;
      budget -= candidate.step.totalBytes - this.#request.limitBytes;
    }
    return undefined;
  }

  /** Settings that recompute less come first, so the first that fits is the fastest. */
  #eagerWithin(split: BatchSplit): Candidate | undefined {
    for (const setting of this.#eagerSettings()) {
      const candidate = this.#measure({ ...split, activation_checkpointing: setting });
      if (this.#fits(candidate)) return candidate;
    }
    return undefined;
  }

  #smallestOf(split: BatchSplit): Candidate {
    if (!this.#shape.training.compile) {
      return this.#eagerSettings()
        .map((setting) => this.#measure({ ...split, activation_checkpointing: setting }))
        .reduce((a, b) => (b.step.totalBytes < a.step.totalBytes ? b : a), this.#plain(split));
    }
    const plain = this.#plain(split);
    const { gradientBytes } = plain.step;
    try {
      // A byte for what is planned is never enough: the refusal names what is.
      return this.#measure({
        ...split,
        activation_checkpointing: { mode: 'budget', budget: gradientBytes + 1 },
      });
    } catch (error) {
      if (!(error instanceof InfeasibleBudgetError)) throw error;
      const least = Number(error.details.smallestBytes);
      return this.#budgeted(split, gradientBytes + least) ?? plain;
    }
  }

  #plain(split: BatchSplit): Candidate {
    return this.#measure({ ...split, activation_checkpointing: { mode: 'none' } });
  }

  #budgeted(split: BatchSplit, budget: number): Candidate | undefined {
    try {
      return this.#measure({ ...split, activation_checkpointing: { mode: 'budget', budget } });
    } catch (error) {
      if (!(error instanceof InfeasibleBudgetError)) throw error;
      return undefined;
    }
  }

  #measure(chosen: ChosenKeys): Candidate {
    const key = JSON.stringify(chosen);
    const known = this.#measured.get(key);
    if (known) return known;
    this.#request.onPlan(chosen);
    const { model, training } = this.#shape;
    const step = measureStep(
      { model, training: withChosen(training, chosen) },
      evaluationRows(this.#asked, chosen),
    );
    const candidate = { chosen, step };
    this.#measured.set(key, candidate);
    return candidate;
  }

  #fits(candidate: Candidate): boolean {
    return candidate.step.totalBytes <= this.#request.limitBytes;
  }

  /** Whole layers that an eager step can recompute, fewest first. */
  #eagerSettings(): Setting[] {
    const layers = readConfig(this.#shape.model).windows.length;
    const some = [4, 3, 2].filter((k) => k <= layers);
    return [...some.map((k) => ({ mode: 'every', every: k }) as const), { mode: 'full' }];
  }
}

/** All ways to divide so many rows into equal micro-batches, fewest first. */
function splitsOf(rows: number): BatchSplit[] {
  const counts = Array.from({ length: rows }, (_, i) => i + 1).filter((n) => rows % n === 0);
  return counts.map((n) => ({ batch_size: rows / n, gradient_accumulation_steps: n }));
}
