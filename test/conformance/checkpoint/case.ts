/**
 * One case of PyTorch's test suite for activation checkpointing, and what becomes of it here. The table
 * of cases is the source of the tests and of docs/conformance.md.
 */

import type { Execution } from '../../support/executions.ts';

export type Outcome =
  /** The claim is tested. */
  | { readonly kind: 'holds'; readonly check: (execution: Execution) => void }
  /** Why the case says nothing about this library in this execution. */
  | { readonly kind: 'absent'; readonly why: string };

export interface ConformanceCase {
  /** Place in our catalogue of PyTorch's tests; see docs/conformance.md. */
  readonly number: number;
  /** Name of PyTorch's test. */
  readonly torch: string;
  /** What holds, in a sentence. */
  readonly claim: string;
  readonly eager: Outcome;
  readonly compiled: Outcome;
}

export function holds(check: (execution: Execution) => void): Outcome {
  return { kind: 'holds', check };
}

export function absent(why: string): Outcome {
  return { kind: 'absent', why };
}

/** A case that is the same program with the same expectation in both executions. */
export function both(
  number: number,
  torch: string,
  claim: string,
  check: (execution: Execution) => void,
): ConformanceCase {
  return { number, torch, claim, eager: holds(check), compiled: holds(check) };
}

/** A case that says nothing about this library. */
export function neither(number: number, torch: string, why: string): ConformanceCase {
  return { number, torch, claim: '', eager: absent(why), compiled: absent(why) };
}
