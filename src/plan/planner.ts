/**
 * Plans one graph for many budgets. For every budget a few families of plans are tried; what is kept is
 * the fastest that fits. Budgets are taken in levels, and a plan for a lower level counts for all above
 * it, so more memory is never slower. Work is bounded by counts, never by the clock.
 */

import { InfeasibleBudgetError } from '../core/errors.ts';
import { formatBytes } from '../core/bytes.ts';
import { narrowPlaces } from './checkpoints.ts';
import { BaseCuts, Bindings } from './base-cuts.ts';
import { type Work, direct } from './direct.ts';
import { improve, repair } from './exchange.ts';
import type { Plan, PlanGraph } from './graph.ts';
import { polish } from './polish.ts';
import { type Problem, buildProblem } from './problem.ts';
import { realize } from './realize.ts';
import { baseSequence, extraOf, profileOf, scheduleOf, visitSpans } from './sequence.ts';

/** Budgets are rounded down to this many parts of the peak of the plan without a budget. */
const levels = 200;
/** Bytes a level lies below its share, so that shares computed in another way reach it; at most a millionth. */
const levelSlack = 64;
/** A plan this close to the bound (share of the base time) ends the search for its level. */
const closeEnough = 0.003;
/** Every how many narrow places one is held, counted from the end of the forward. */
const strides: readonly number[] = [6, 2, 4, 1, 3];
/** Graphs with this many ops are searched whatever the bound says. */
const smallGraph = 400;
/** Positions the local search may look at for one level, unless said otherwise. */
const defaultSearchWork = 2e6;

interface Family {
  readonly held: Uint8Array;
  readonly cuts: BaseCuts;
}

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
  /**
   * Positions of schedules that the local search may look at for one budget (default 2e6, some seconds). It begins where
   * the planner's own families of plans end: less work gives slower plans at tight budgets, sooner.
   */
  readonly searchWork?: number;
}

export class Planner {
  readonly problem: Problem;
  /** Peak and sequence without a budget. */
  readonly base: Candidate;
  readonly #onProgress: PlannerOptions['onProgress'];
  readonly #searchWork: number;
  readonly #work: Work = { flows: 0, repairs: 0 };
  #tried = 0;
  #kept = 0;
  readonly #families: readonly Family[];
  readonly #bindings: Bindings;
  readonly #atLevel = new Map<number, Candidate | undefined>();
  #smallest: { candidate: Candidate; facts: SmallestFeasible } | undefined;

  /** @throws ArgumentError for a graph that is no execution order. */
  constructor(graph: PlanGraph, { onProgress, searchWork }: PlannerOptions = {}) {
    this.#onProgress = onProgress;
    this.#searchWork = searchWork ?? defaultSearchWork;
    this.problem = buildProblem(graph);
    const { sequence } = realize(this.problem, []);
    this.base = this.#candidate(polish(this.problem, sequence, Number.POSITIVE_INFINITY).sequence);
    const { live } = profileOf(this.problem, baseSequence(this.problem));
    const cuts = new BaseCuts(this.problem, this.problem.isResult);
    this.#bindings = new Bindings(cuts, live, this.#work);
    this.#families = this.#makeFamilies(cuts);
  }

  /** Which narrow places are held: at the first instant, and at all others. */
  #makeFamilies(plain: BaseCuts): Family[] {
    const { problem } = this;
    const families: Family[] = [{ held: problem.isResult, cuts: plain }];
    const places = narrowPlaces(problem);
    for (const stride of strides) {
      if (stride >= places.length) continue;
      const held = problem.isResult.slice();
      for (let i = places.length - stride; i >= 0; i -= stride) {
        for (const s of places[i] ?? []) held[s] = 1;
      }
      families.push({ held, cuts: new BaseCuts(problem, held) });
    }
    // With no room for narrow places at the first instant, hold them when they have been made again.
    return [...families, ...families.slice(1).map(({ held }) => ({ held, cuts: plain }))];
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
    const level = Math.floor(((budget + this.#levelSlack) / this.base.peak) * levels);
    let best: Candidate | undefined;
    for (let i = level; i >= 0; i--) {
      const limit = this.#levelBytes(i);
      if (limit < bytes) break;
      if (best && this.#bindings.at(limit).bound >= best.extraNs) break;
      this.#onProgress?.('searching less memory too', (level - i) / (level + 1));
      const found = this.#level(i);
      if (found && (!best || found.extraNs < best.extraNs)) best = found;
    }
    if (best) return best;
    const { candidate } = this.#findSmallest();
    return candidate.peak <= budget ? candidate : undefined;
  }

  get #levelSlack(): number {
    return Math.min(levelSlack, Math.floor(this.base.peak / 1e6));
  }

  #levelBytes(level: number): number {
    return Math.floor((this.base.peak * level) / levels) - this.#levelSlack;
  }

  #level(level: number): Candidate | undefined {
    if (!this.#atLevel.has(level)) this.#atLevel.set(level, this.#search(this.#levelBytes(level)));
    return this.#atLevel.get(level);
  }

  /** The fastest plan found within `limit`. */
  #search(limit: number): Candidate | undefined {
    const { problem } = this;
    const { op: first, bound } = this.#bindings.at(limit);
    if (bound === Number.POSITIVE_INFINITY) return undefined;
    const enough = (extra: number, gap = closeEnough): boolean =>
      extra - bound <= gap * problem.baseNs;
    let best: Candidate | undefined;
    const offer = (sequence: Int32Array): void => {
      const candidate = this.#candidate(sequence);
      if (!best || candidate.extraNs < best.extraNs) best = candidate;
    };
    for (const { held, cuts } of this.#families) {
      const found = direct(problem, limit, { cuts, held, first, work: this.#work });
      if ('stuckAt' in found) continue;
      const { sequence, tried, kept } = polish(problem, found, limit);
      this.#tried += tried;
      this.#kept += kept;
      offer(sequence);
      if (best && enough(best.extraNs)) break;
    }
    const goal = problem.ops > smallGraph ? closeEnough : 0;
    if (best && enough(best.extraNs, goal)) return best;
    const work = { left: this.#searchWork, tried: 0, kept: 0 };
    const { sequence } = realize(problem, []);
    const repaired = repair(problem, sequence, limit, work);
    for (const start of [best?.sequence, repaired && polish(problem, repaired, limit).sequence]) {
      if (start) offer(improve(problem, start, limit, work, (extra) => enough(extra, goal)));
    }
    this.#tried += work.tried;
    this.#kept += work.kept;
    return best;
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
    const lowerBoundNs = Math.min(ns, best === this.base ? ns : this.#bindings.at(budget).bound);
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
