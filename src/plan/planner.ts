/**
 * Plans one graph for many budgets. For every budget a few families of plans are tried; what is kept is
 * the fastest that fits. Budgets are taken in levels, and a plan for a lower level counts for all above
 * it, so more memory is never slower. Work is bounded by counts, never by the clock.
 */

import { InfeasibleBudgetError } from '../core/errors.ts';
import { formatBytes } from '../core/bytes.ts';
import { narrowPlaces } from './checkpoints.ts';
import { BaseCuts, type Work, direct } from './direct.ts';
import type { Plan, PlanGraph } from './graph.ts';
import { polish } from './polish.ts';
import { type Problem, buildProblem } from './problem.ts';
import { realize } from './realize.ts';
import { extraOf, profileOf, scheduleOf, visitSpans } from './sequence.ts';

/** Budgets are rounded down to this many parts of the peak of the plan without a budget. */
const levels = 200;
/** Bytes a level lies below its share, so that shares computed in another way reach it. */
const levelSlack = 64;
/** A plan this close to the bound (share of the base time) ends the search for its level. */
const closeEnough = 0.003;
/** Every how many narrow places one is held, counted from the end of the forward; 0: none. */
const strides: readonly number[] = [0, 6, 2, 4, 1, 3];

interface Candidate {
  readonly sequence: Int32Array;
  readonly peak: number;
  readonly extraNs: number;
}

/** The least memory a graph was seen to run in. */
export interface SmallestFeasible {
  /** Peak of the plan with the smallest peak that was found. */
  readonly bytes: number;
  /** Proven: nothing runs in less. Equal to `bytes` when the smallest is known exactly. */
  readonly lowerBoundBytes: number;
  /** Node that makes the lower bound; -1 for the results at the end. */
  readonly node: number;
}

export interface PlannerOptions {
  /** Called with a sentence and a fraction in 0..1 while planning takes long. */
  readonly onProgress?: (what: string, done: number) => void;
}

export class Planner {
  readonly problem: Problem;
  /** Peak and sequence without a budget. */
  readonly base: Candidate;
  readonly #onProgress: PlannerOptions['onProgress'];
  readonly #work: Work = { flows: 0, repairs: 0 };
  #tried = 0;
  #kept = 0;
  readonly #families: { held: Uint8Array; cuts: BaseCuts }[] = [];
  readonly #atLevel = new Map<number, Candidate | undefined>();
  #smallest: { candidate: Candidate; facts: SmallestFeasible } | undefined;

  /** @throws ArgumentError for a graph that is no execution order. */
  constructor(graph: PlanGraph, { onProgress }: PlannerOptions = {}) {
    this.#onProgress = onProgress;
    this.problem = buildProblem(graph);
    const places = narrowPlaces(this.problem);
    for (const stride of strides) {
      if (stride >= Math.max(1, places.length)) continue;
      const held = this.problem.isResult.slice();
      if (stride > 0) {
        for (let i = places.length - stride; i >= 0; i -= stride) {
          for (const s of places[i] ?? []) held[s] = 1;
        }
      }
      this.#families.push({ held, cuts: new BaseCuts(this.problem, held) });
    }
    const { sequence } = realize(this.problem, []);
    this.base = this.#candidate(polish(this.problem, sequence, Number.POSITIVE_INFINITY).sequence);
  }

  /** @throws InfeasibleBudgetError naming the op, what is alive at it, and the smallest budget known to do. */
  plan(budget: number): Plan {
    const best = this.#best(budget);
    if (!best) throw this.#infeasible(budget);
    return this.#finish(best, budget);
  }

  /** The least memory a plan was found for, with a proven lower bound. */
  smallestFeasible(): SmallestFeasible {
    return this.#findSmallest().facts;
  }

  #best(budget: number): Candidate | undefined {
    if (this.base.peak <= budget) return this.base;
    const { bytes } = this.#workingSetBound();
    if (budget < bytes) return undefined;
    const level = Math.floor(((budget + levelSlack) / this.base.peak) * levels);
    let best: Candidate | undefined;
    for (let i = level; i >= 0; i--) {
      const limit = this.#levelBytes(i);
      if (limit < bytes) break;
      if (best && this.#bound(limit) >= best.extraNs) break;
      this.#onProgress?.('searching less memory too', (level - i) / (level + 1));
      const found = this.#level(i);
      if (found && (!best || found.extraNs < best.extraNs)) best = found;
    }
    if (best) return best;
    const { candidate } = this.#findSmallest();
    return candidate.peak <= budget ? candidate : undefined;
  }

  #levelBytes(level: number): number {
    return Math.floor((this.base.peak * level) / levels) - levelSlack;
  }

  #level(level: number): Candidate | undefined {
    if (!this.#atLevel.has(level)) this.#atLevel.set(level, this.#search(this.#levelBytes(level)));
    return this.#atLevel.get(level);
  }

  /** The fastest plan of all families within `limit`. */
  #search(limit: number): Candidate | undefined {
    let best: Candidate | undefined;
    for (const { held, cuts } of this.#families) {
      const found = direct(this.problem, limit, this.#work, cuts, held);
      if ('stuckAt' in found) {
        if (this.#bound(limit) === Number.POSITIVE_INFINITY) return undefined;
        continue;
      }
      const { sequence, tried, kept } = polish(this.problem, found.sequence, limit);
      this.#tried += tried;
      this.#kept += kept;
      const candidate = this.#candidate(sequence);
      if (!best || candidate.extraNs < best.extraNs) best = candidate;
      if (best.extraNs - this.#bound(limit) <= closeEnough * this.problem.baseNs) break;
    }
    return best;
  }

  /** Proven lower bound on the extra time within `budget`, from the cuts made so far. */
  #bound(budget: number): number {
    let bound = 0;
    for (const { cuts, held } of this.#families) {
      // Families that hold more are no relaxation: only the first, which holds results, bounds.
      if (held !== this.#families[0]?.held) break;
      for (const [op, cut] of cuts.entries()) {
        bound = Math.max(bound, cut.bound(budget - (this.problem.workingSet[op] as number)));
      }
    }
    return bound;
  }

  /** No plan has a peak below the largest working set, or below what is resident at the end. */
  #workingSetBound(): { bytes: number; op: number } {
    const { workingSet, isResult, bytes } = this.problem;
    let most = 0;
    let op = -1;
    for (let s = 0; s < isResult.length; s++) if (isResult[s]) most += bytes[s] as number;
    workingSet.forEach((size, i) => {
      if (size > most) {
        most = size;
        op = i;
      }
    });
    return { bytes: most, op };
  }

  #findSmallest(): { candidate: Candidate; facts: SmallestFeasible } {
    if (this.#smallest) return this.#smallest;
    const { bytes, op } = this.#workingSetBound();
    let low = bytes;
    let best = this.base;
    for (let i = 0; i < 14 && best.peak > low; i++) {
      this.#onProgress?.('looking for the smallest budget', i / 14);
      const middle = i === 0 ? bytes : Math.floor((low + best.peak) / 2);
      const found = this.#search(middle);
      if (found) best = found;
      else low = middle + 1;
    }
    const node = op < 0 ? -1 : (this.problem.node[op] as number);
    this.#smallest = { candidate: best, facts: { bytes: best.peak, lowerBoundBytes: bytes, node } };
    return this.#smallest;
  }

  #candidate(sequence: Int32Array): Candidate {
    return {
      sequence,
      peak: profileOf(this.problem, sequence).peak,
      extraNs: extraOf(this.problem, sequence).ns,
    };
  }

  #finish(best: Candidate, budget: number): Plan {
    const { problem } = this;
    const { ns, hardNs } = extraOf(problem, best.sequence);
    const lowerBoundNs = Math.min(ns, best === this.base ? ns : this.#bound(budget));
    return {
      peakBytes: best.peak,
      baseNs: problem.baseNs,
      extraNs: ns,
      extraHardNs: hardNs,
      lowerBoundNs,
      gap: problem.baseNs > 0 ? (ns - lowerBoundNs) / problem.baseNs : 0,
      schedule: scheduleOf(problem, best.sequence),
      counters: {
        ops: problem.ops,
        storages: problem.storages,
        maxFlows: this.#work.flows,
        repairs: this.#work.repairs,
        movesTried: this.#tried,
        movesKept: this.#kept,
      },
    };
  }

  #infeasible(budget: number): InfeasibleBudgetError {
    const { problem } = this;
    const { candidate, facts } = this.#findSmallest();
    const bound = this.#workingSetBound();
    const proven = budget < bound.bytes;
    const at = profileOf(problem, candidate.sequence).peakAt;
    const op = proven ? bound.op : (candidate.sequence[at] as number);
    const alive = proven ? this.#workingSetOf(op) : this.#aliveAt(candidate.sequence, at);
    const total = alive.reduce((sum, value) => sum + value.bytes, 0) + (problem.workspace[op] ?? 0);
    const label =
      op < 0 ? 'the end' : `'${problem.graph.nodes[problem.node[op] as number]?.label}'`;
    const listed = alive.slice(0, 5).map((value) => `${value.label} ${formatBytes(value.bytes)}`);
    const rest = alive.length > 5 ? ` and ${alive.length - 5} more` : '';
    const why = proven
      ? `${label} alone needs ${formatBytes(total)}`
      : `the smallest plan found peaks at ${label} with ${formatBytes(total)} alive; nothing below ${formatBytes(facts.lowerBoundBytes)} is possible, in between is not proven`;
    return new InfeasibleBudgetError(
      `planGraph: no plan keeps a budget of ${budget} bytes (got ${formatBytes(budget)}; ${why}: ${listed.join(', ')}${rest}). ` +
        `Give at least ${facts.bytes} bytes (${formatBytes(facts.bytes)}).`,
      {
        budgetBytes: budget,
        smallestBytes: facts.bytes,
        lowerBoundBytes: facts.lowerBoundBytes,
        node: op < 0 ? -1 : (problem.node[op] as number),
        label: op < 0 ? 'end' : problem.graph.nodes[problem.node[op] as number]?.label,
        aliveBytes: total,
        alive,
      },
    );
  }

  /** Inputs and outputs of an op, or the results for -1; largest first. */
  #workingSetOf(op: number): AliveValue[] {
    const { inputStart, inputs, outputStart, isResult } = this.problem;
    const list: number[] = [];
    if (op < 0) isResult.forEach((flag, s) => flag && list.push(s));
    else {
      list.push(...inputs.slice(inputStart[op], inputStart[op + 1]));
      for (let s = outputStart[op] as number; s < (outputStart[op + 1] as number); s++)
        list.push(s);
    }
    return this.#describe(list);
  }

  #aliveAt(sequence: Int32Array, at: number): AliveValue[] {
    const list: number[] = [];
    visitSpans(this.problem, sequence, (s, first, last) => {
      if (first <= at && at <= last) list.push(s);
    });
    return this.#describe(list);
  }

  #describe(storages: readonly number[]): AliveValue[] {
    const { problem } = this;
    return storages
      .map((s) => {
        const node = problem.node[problem.producer[s] as number] as number;
        const output = problem.output[s] as number;
        const label = `${problem.graph.nodes[node]?.label}${output > 0 ? `:${output}` : ''}`;
        return { node, output, label, bytes: problem.bytes[s] as number };
      })
      .sort((a, b) => b.bytes - a.bytes || a.node - b.node);
  }
}

interface AliveValue {
  readonly node: number;
  readonly output: number;
  readonly label: string;
  readonly bytes: number;
}
