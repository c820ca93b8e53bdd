/**
 * Choosing the next token from logits, on the host and in float64. Filters apply in the order of
 * transformers: repetition penalty, temperature, top-k, top-p, min-p.
 */

import { ArgumentError } from '../core/errors.ts';
import { philox, unitFloat } from '../core/random.ts';
import type { Generator } from '../tensor/generator.ts';

export interface SamplingOptions {
  /** 0 takes the most likely token; default 1. */
  readonly temperature?: number;
  /** Keep the k most likely tokens (and those tied with the last of them). */
  readonly topK?: number;
  /** Keep the fewest most likely tokens whose probabilities reach this sum. */
  readonly topP?: number;
  /** Keep tokens at least this share as likely as the most likely one. */
  readonly minP?: number;
  /** Above 1 makes tokens that occurred before less likely (arXiv 1909.05858). Default 1. */
  readonly repetitionPenalty?: number;
}

/** Throws ArgumentError for options out of range. */
export function checkSampling(options: SamplingOptions): void {
  const { temperature = 1, topK = 1, topP = 1, minP = 0, repetitionPenalty = 1 } = options;
  const check = (name: string, legal: boolean, value: number, expected: string): void => {
    if (legal) return;
    throw new ArgumentError(`generate: ${name} must be ${expected} (got ${value}).`, {
      [name]: value,
    });
  };
  check('temperature', temperature >= 0, temperature, 'at least 0');
  check('topK', Number.isInteger(topK) && topK >= 1, topK, 'a positive integer');
  check('topP', topP > 0 && topP <= 1, topP, 'above 0 and at most 1');
  check('minP', minP >= 0 && minP <= 1, minP, 'from 0 to 1');
  check('repetitionPenalty', repetitionPenalty > 0, repetitionPenalty, 'above 0');
}

/** Logits with those of the tokens in `seen` divided, or when negative multiplied, by `penalty`. */
export function penalizeRepetition(
  logits: Float64Array,
  seen: Iterable<number>,
  penalty: number,
): Float64Array {
  const out = logits.slice();
  for (const token of new Set(seen)) {
    const value = logits[token];
    if (value !== undefined) out[token] = value < 0 ? value * penalty : value / penalty;
  }
  return out;
}

/** Probabilities [V] after temperature and filters; those filtered out are 0. */
export function filteredProbabilities(
  logits: Float64Array,
  options: SamplingOptions = {},
): Float64Array {
  const { temperature = 1, topK, topP, minP } = options;
  let scores = temperature === 1 ? logits : logits.map((value) => value / temperature);
  if (topK !== undefined) scores = keepTopK(scores, topK);
  if (topP !== undefined && topP < 1) scores = keepTopP(scores, topP);
  if (minP !== undefined && minP > 0) scores = keepMinP(scores, minP);
  return softmax(scores);
}

/** The next token. Temperature 0 takes the first of the largest; otherwise one draw of `generator`. */
export function sampleToken(
  logits: Float64Array,
  options: SamplingOptions,
  generator: Generator,
): number {
  if (options.temperature === 0) return argmax(logits);
  const probabilities = filteredProbabilities(logits, options);
  const threshold = uniformNumber(generator);
  let sum = 0;
  let last = 0;
  for (const [token, probability] of probabilities.entries()) {
    if (probability === 0) continue;
    sum += probability;
    last = token;
    if (threshold < sum) return token;
  }
  return last;
}

const removed = Number.NEGATIVE_INFINITY;

function keepTopK(scores: Float64Array, k: number): Float64Array {
  if (k >= scores.length) return scores;
  const smallest = scores.toSorted()[scores.length - k] ?? removed;
  return scores.map((value) => (value < smallest ? removed : value));
}

function keepTopP(scores: Float64Array, p: number): Float64Array {
  const probabilities = softmax(scores);
  const order = Array.from(scores.keys()).sort(
    (a, b) => (scores[a] ?? 0) - (scores[b] ?? 0) || a - b,
  );
  const out = scores.slice();
  let sum = 0;
  // From the least likely up; the most likely one always stays.
  for (const token of order.slice(0, -1)) {
    sum += probabilities[token] ?? 0;
    if (sum > 1 - p) break;
    out[token] = removed;
  }
  return out;
}

function keepMinP(scores: Float64Array, p: number): Float64Array {
  const probabilities = softmax(scores);
  const bound = p * probabilities.reduce((a, b) => Math.max(a, b), 0);
  return scores.map((value, token) => ((probabilities[token] ?? 0) < bound ? removed : value));
}

function softmax(scores: Float64Array): Float64Array {
  const largest = scores.reduce((a, b) => Math.max(a, b), removed);
  const exponentials = scores.map((value) => Math.exp(value - largest));
  const sum = exponentials.reduce((a, b) => a + b, 0);
  return exponentials.map((value) => value / sum);
}

function argmax(scores: Float64Array): number {
  let best = 0;
  for (const [i, value] of scores.entries()) if (value > (scores[best] ?? removed)) best = i;
  return best;
}

/** One number in [0, 1): word 0 of the generator's next draw. */
function uniformNumber(generator: Generator): number {
  const offset = generator.advance();
  const words = new Uint32Array(4);
  const { seed } = generator;
  philox(0, 0, offset >>> 0, (offset / 2 ** 32) >>> 0, seed >>> 0, (seed / 2 ** 32) >>> 0, words);
  return unitFloat(words[0] ?? 0);
}
