/**
 * Takes further runs out of a plan while the peak stays within the budget. Without a run, its outputs are
 * held on from the run before; runs that only served it go with it.
 */

import type { Problem } from './problem.ts';
import { profileOf } from './sequence.ts';

export interface Polished {
  readonly sequence: Int32Array;
  readonly tried: number;
  readonly kept: number;
}

/** How often all runs are looked at; each pass continues from what the last one saved. */
const passes = 3;

/** `isKept`: positions of runs that stay. */
export function polish(
  problem: Problem,
  sequence: Int32Array,
  budget: number,
  isKept: (at: number) => boolean = () => false,
): Polished {
  const state = new Editable(problem, sequence, budget);
  let tried = 0;
  let kept = 0;
  for (let pass = 0; pass < passes; pass++) {
    let changed = false;
    for (const at of state.candidates()) {
      if (!state.isRun(at) || isKept(at)) continue;
      tried++;
      if (state.remove(at)) {
        kept++;
        changed = true;
      }
    }
    if (!changed) break;
  }
  return { sequence: state.sequence(), tried, kept };
}

/** A sequence with its positions fixed; a position whose run was taken out stays empty. */
class Editable {
  readonly #problem: Problem;
  readonly #budget: number;
  readonly #at: Int32Array;
  /** Bytes held at a position, workspace not included. */
  readonly #live: Float64Array;
  /** Positions that run an op, and that read a storage, ascending. */
  readonly #runs: number[][];
  readonly #reads: number[][];

  constructor(problem: Problem, sequence: Int32Array, budget: number) {
    this.#problem = problem;
    this.#budget = budget;
    this.#at = sequence.slice();
    this.#live = profileOf(problem, sequence).live;
    this.#runs = Array.from({ length: problem.ops }, () => []);
    this.#reads = Array.from({ length: problem.storages }, () => []);
    sequence.forEach((op, i) => {
      this.#live[i] = (this.#live[i] as number) - (problem.workspace[op] as number);
      this.#runs[op]?.push(i);
      for (
        let j = problem.inputStart[op] as number;
        j < (problem.inputStart[op + 1] as number);
        j++
      ) {
        this.#reads[problem.inputs[j] as number]?.push(i);
      }
    });
  }

  isRun(at: number): boolean {
    return (this.#at[at] as number) >= 0;
  }

  sequence(): Int32Array {
    return this.#at.filter((op) => op >= 0);
  }

  /** Positions of further runs, the one that saves most time per byte first. */
  candidates(): number[] {
    const { cost, bytes, outputStart } = this.#problem;
    const list: { at: number; worth: number }[] = [];
    this.#runs.forEach((runs, op) => {
      for (const at of runs.slice(1)) {
        let size = 1;
        for (let s = outputStart[op] as number; s < (outputStart[op + 1] as number); s++) {
          const [, last] = this.#span(s, at);
          if (last > at) size += bytes[s] as number;
        }
        list.push({ at, worth: (cost[op] as number) / size });
      }
    });
    list.sort((a, b) => b.worth - a.worth || b.at - a.at);
    return list.map((entry) => entry.at);
  }

  /** Takes the run out if everything still fits; says whether it did. */
  remove(at: number): boolean {
    const { outputStart, bytes } = this.#problem;
    const op = this.#at[at] as number;
    const runs = this.#runs[op] as number[];
    const index = runs.indexOf(at);
    if (index <= 0) return false;
    const before = runs[index - 1] as number;
    if (this.#wouldHoldDropped(op, before, at)) return false;
    // Spans that grow, to be undone when they do not fit.
    const grown: { size: number; from: number; to: number }[] = [];
    for (let s = outputStart[op] as number; s < (outputStart[op + 1] as number); s++) {
      const size = bytes[s] as number;
      const [, last] = this.#span(s, at);
      if (last === at) continue;
      const [, held] = this.#span(s, before);
      if (size > 0) grown.push({ size, from: held + 1, to: at - 1 });
    }
    for (const { size, from, to } of grown) this.#add(from, to, size);
    if (!grown.every(({ from, to }) => this.#fits(from, to))) {
      // What the run itself held on to may make the room.
      const shrunk = this.#inputsOnlyFor(op, at);
      for (const { size, from, to } of shrunk) this.#add(from, to, -size);
      const fits = grown.every(({ from, to }) => this.#fits(from, to));
      for (const { size, from, to } of shrunk) this.#add(from, to, size);
      if (!fits) {
        for (const { size, from, to } of grown) this.#add(from, to, -size);
        return false;
      }
    }
    for (let s = outputStart[op] as number; s < (outputStart[op + 1] as number); s++) {
      const [, last] = this.#span(s, at);
      if (last === at) this.#add(at, at, -(bytes[s] as number));
    }
    for (const { size, from, to } of this.#inputsOnlyFor(op, at)) this.#add(from, to, -size);
    runs.splice(index, 1);
    this.#at[at] = -1;
    this.#forgetReads(op, at);
    return true;
  }

  /** Whether an output that must not be held between forward and backward would be, without the run at `at`. */
  #wouldHoldDropped(op: number, before: number, at: number): boolean {
    const { boundary, ops, outputStart, mustDrop } = this.#problem;
    const forwardEnds = boundary < ops ? (this.#runs[boundary - 1]?.[0] ?? -1) : -1;
    if (before > forwardEnds || at <= forwardEnds) return false;
    for (let s = outputStart[op] as number; s < (outputStart[op + 1] as number); s++) {
      if (mustDrop[s] && this.#span(s, at)[1] > at) return true;
    }
    return false;
  }

  /** First and last position of the span of `s` that begins with the run at `from`. */
  #span(s: number, from: number): [number, number] {
    const runs = this.#runs[this.#problem.producer[s] as number] as number[];
    const next = runs[upper(runs, from)] ?? Number.POSITIVE_INFINITY;
    if (next === Number.POSITIVE_INFINITY && this.#problem.isResult[s])
      return [from, this.#at.length];
    const reads = this.#reads[s] as number[];
    // A run never reads its own outputs, so a read at `next` cannot be.
    const last = reads[upper(reads, next) - 1] ?? -1;
    return [from, Math.max(from, last)];
  }

  /** Parts of the spans of inputs that end when the run at `at` goes. */
  #inputsOnlyFor(op: number, at: number): { size: number; from: number; to: number }[] {
    const { inputStart, inputs, bytes, producer } = this.#problem;
    const list: { size: number; from: number; to: number }[] = [];
    for (let i = inputStart[op] as number; i < (inputStart[op + 1] as number); i++) {
      const s = inputs[i] as number;
      const runs = this.#runs[producer[s] as number] as number[];
      const from = runs[upper(runs, at) - 1] as number;
      const [, last] = this.#span(s, from);
      if (last !== at) continue;
      const reads = this.#reads[s] as number[];
      const previous = reads[upper(reads, at) - 2] ?? -1;
      list.push({ size: bytes[s] as number, from: Math.max(previous, from) + 1, to: at });
    }
    return list;
  }

  /** The run at `at` is gone: it reads nothing, and further runs that only served it go too. */
  #forgetReads(op: number, at: number): void {
    const { inputStart, inputs, producer } = this.#problem;
    for (let i = inputStart[op] as number; i < (inputStart[op + 1] as number); i++) {
      const s = inputs[i] as number;
      const reads = this.#reads[s] as number[];
      reads.splice(reads.indexOf(at), 1);
    }
    for (let i = inputStart[op] as number; i < (inputStart[op + 1] as number); i++) {
      const made = producer[inputs[i] as number] as number;
      const runs = this.#runs[made] as number[];
      const from = runs[upper(runs, at) - 1] as number;
      if (from !== runs[0] && this.#isUseless(made, from)) this.remove(from);
    }
  }

  #isUseless(op: number, at: number): boolean {
    const { outputStart } = this.#problem;
    for (let s = outputStart[op] as number; s < (outputStart[op + 1] as number); s++) {
      if (this.#span(s, at)[1] !== at) return false;
    }
    return true;
  }

  #add(from: number, to: number, size: number): void {
    for (let i = from; i <= to && i < this.#live.length; i++) {
      this.#live[i] = (this.#live[i] as number) + size;
    }
  }

  #fits(from: number, to: number): boolean {
    for (let i = from; i <= to; i++) {
      const op = this.#at[i] as number;
      if (
        op >= 0 &&
        (this.#live[i] as number) + (this.#problem.workspace[op] as number) > this.#budget
      )
        return false;
    }
    return true;
  }
}

/** Index of the first element above `value` in an ascending list. */
function upper(list: readonly number[], value: number): number {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((list[middle] as number) > value) high = middle;
    else low = middle + 1;
  }
  return low;
}
