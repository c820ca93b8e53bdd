/**
 * Finding what trains fastest within an amount of memory. Every candidate is measured on paper before it
 * counts (needs.ts). Compiled steps recompute what a budget says; eager ones choose among whole layers.
 */

import { bytesPerElement } from '../../core/dtype.ts';
import { InfeasibleBudgetError, definite } from '../../core/errors.ts';
import { parameterCount, readConfig } from '../../models/from-config.ts';
import { dtypeOf } from '../config/training-keys.ts';
import type { StepShape } from '../recipe.ts';
import { type BatchSplit, type ChosenKeys, evaluationRows, withChosen } from './choice.ts';
import { type MeasuredStep, measureStep } from './needs.ts';

/** A way to train that was measured. */
export interface Candidate {
  readonly chosen: ChosenKeys;
  readonly step: MeasuredStep;
}

/** What takes the least memory. */
export interface SmallestCandidate extends Candidate {
  /** Memory that is enough to find it. */
  readonly enoughBytes: number;
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
  /** Smallest budgets that are kept, accumulated gradients aside, as far as they were asked for. */
  readonly #leastBudgets = new Map<string, number>();

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
    if (this.#isHopeless) return undefined;
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
    if (this.#isHopeless) return undefined;
    for (const split of this.#leastSplits()) {
      const candidate = this.#within(split);
      if (candidate) return candidate;
    }
    return undefined;
  }

  /** The candidate of least memory. */
  smallest(): SmallestCandidate {
    return this.#leastSplits()
      .map((split) => this.#smallestOf(split))
      .reduce((a, b) => (b.enoughBytes < a.enoughBytes ? b : a));
  }

  /** Whether what lasts for the whole run takes too much already, which needs no plan to see. */
  get #isHopeless(): boolean {
    const { model, training } = this.#shape;
    const { type, momentum = 0 } = training.optimizer;
    const states = type === 'adamw' ? 2 : momentum > 0 ? 1 : 0;
    const bytes = parameterCount(model) * bytesPerElement(dtypeOf(training));
    return bytes * (1 + states) > this.#request.limitBytes;
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

  #smallestOf(split: BatchSplit): SmallestCandidate {
    if (!this.#shape.training.compile) {
      const all = this.#eagerSettings().map((setting) =>
        this.#measure({ ...split, activation_checkpointing: setting }),
      );
      const least = all.reduce(
        (a, b) => (b.step.totalBytes < a.step.totalBytes ? b : a),
        this.#plain(split),
      );
      return { ...least, enoughBytes: least.step.totalBytes };
    }
    // A byte for what is planned is never enough: the refusal says what is.
    const { gradientBytes } = this.#plain(split).step;
    if (!this.#leastBudgets.has(keyOf(split))) this.#budgeted(split, gradientBytes + 1);
    const least = definite(this.#leastBudgets.get(keyOf(split)));
    const budget = gradientBytes + least;
    const candidate = definite(this.#budgeted(split, budget));
    // A plan may take less than its budget, and still not be found under a smaller one.
    const { totalBytes, besideBytes } = candidate.step;
    return { ...candidate, enoughBytes: Math.max(totalBytes, besideBytes + budget) };
  }

  #plain(split: BatchSplit): Candidate {
    return this.#measure({ ...split, activation_checkpointing: { mode: 'none' } });
  }

  /** Undefined for a budget that no plan keeps; then it is known which one is kept. */
  #budgeted(split: BatchSplit, budget: number): Candidate | undefined {
    if (budget <= this.#plain(split).step.gradientBytes) return undefined;
    try {
      return this.#measure({ ...split, activation_checkpointing: { mode: 'budget', budget } });
    } catch (error) {
      if (!(error instanceof InfeasibleBudgetError)) throw error;
      const key = keyOf(split);
      const least = this.#leastBudgets.get(key) ?? Number.POSITIVE_INFINITY;
      this.#leastBudgets.set(key, Math.min(least, Number(error.details.smallestBytes)));
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

function keyOf({ batch_size, gradient_accumulation_steps }: BatchSplit): string {
  return `${batch_size} x ${gradient_accumulation_steps}`;
}

/** All ways to divide so many rows into equal micro-batches, fewest first. */
function splitsOf(rows: number): BatchSplit[] {
  const counts = Array.from({ length: rows }, (_, i) => i + 1).filter((n) => rows % n === 0);
  return counts.map((n) => ({ batch_size: rows / n, gradient_accumulation_steps: n }));
}
