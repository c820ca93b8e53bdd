/**
 * Plans one graph for many budgets. For every budget a few families of plans are tried; what is kept is
 * the fastest that fits. Budgets are taken in levels, and a plan for a lower level counts for all above
 * it, so more memory is never slower. Work is bounded by counts, never by the clock.
 */

import { ArgumentError, InfeasibleBudgetError } from '../core/errors.ts';
import { formatBytes } from '../core/bytes.ts';
import { narrowPlaces } from './checkpoints.ts';
import { BaseCuts, Bindings } from './base-cuts.ts';
import { type Work, direct } from './direct.ts';
import { improve } from './exchange.ts';
import type { Plan, PlanGraph, PlannerOptions } from './graph.ts';
import { type LeastBytes, leastBytes } from './least-bytes.ts';
import { polish } from './polish.ts';
import { type Problem, buildProblem } from './problem.ts';
import { realize } from './realize.ts';
import { repair } from './repair.ts';
import { baseSequence, extraOf, profileOf, scheduleOf, visitSpans } from './sequence.ts';
import { shake } from './shake.ts';

/** Budgets are rounded down to this many parts of the peak of the plan without a budget. */
const levels = 200;
/** Bytes a level lies below its share, so that shares computed in another way reach it; at most a millionth. */
const levelSlack = 64;
/** A plan this close to the bound (share of the base time) ends the search for its level. */
const closeEnough = 0.003;
/** Every how many narrow places one is held, counted from the end of the forward. */
const strides: readonly number[] = [6, 2, 4, 1, 3];
/** Graphs with this many ops are searched whatever the bound says. */
const smallGraph = 100;
/** Graphs with more ops are not shaken: a trial takes too long there to have many. */
const shakenGraph = 600;
/** Every how many levels the best plan is shaken. */
const shakenLevels = 5;
/** How often the range of the smallest budget is halved. */
const bisections = 12;
/** Positions the local search may look at for one level, unless said otherwise. */
const defaultSearchWork = 2e6;
const defaultShakeWork = 1.2e7;

interface Family {
  readonly held: Uint8Array;
  readonly cuts: BaseCuts;
}

interface Candidate {
  readonly sequence: Int32Array;
  readonly peak: number;
  /** Cost of the further runs. */
  readonly extra: number;
}

/** The least memory a graph was seen to run in. */
export interface SmallestFeasible {
  /** Peak of the plan with the smallest peak that was found. */
  readonly bytes: number;
  /** Proven: nothing runs in less. Equal to `bytes` when the smallest is known exactly. */
  readonly lowerBoundBytes: number;
  /** Node that makes the lower bound; -1 for a graph without ops. */
  readonly node: number;
}

export class Planner {
  readonly problem: Problem;
  /** Peak and sequence without a budget. */
  readonly base: Candidate;
  readonly #onProgress: PlannerOptions['onProgress'];
  readonly #searchWork: number;
  /** 0 for graphs that are too large. */
  readonly #shakeWork: number;
  readonly #work: Work = { flows: 0, repairs: 0 };
  #tried = 0;
  #kept = 0;
  readonly #families: readonly Family[];
  readonly #bindings: Bindings;
  readonly #least: LeastBytes;
  readonly #atLevel = new Map<number, Candidate | undefined>();
  readonly #shaken = new Map<number, Candidate | undefined>();
  #smallest: { candidate: Candidate; facts: SmallestFeasible } | undefined;

  /** @throws ArgumentError for a graph that is no execution order, and for options that are not legal. */
  constructor(
    graph: PlanGraph,
    { onProgress, searchWork, shakeWork, softShare = 1 }: PlannerOptions = {},
  ) {
    if (!(softShare > 0 && softShare <= 1)) {
      throw new ArgumentError(
        `planGraph: softShare is no share (got ${softShare}). Give a number above 0 and at most 1.`,
      );
    }
    this.#onProgress = onProgress;
    this.#searchWork = searchWork ?? defaultSearchWork;
    this.problem = buildProblem(graph, softShare);
    this.#shakeWork = this.problem.ops > shakenGraph ? 0 : (shakeWork ?? defaultShakeWork);
    this.#least = leastBytes(this.problem);
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
    if (budget < this.#least.bytes) return undefined;
    const level = Math.floor(((budget + this.#levelSlack) / this.base.peak) * levels);
    let best = this.#searched(level, budget);
    if (!best || this.#shakeWork === 0) return best;
    for (let i = level - (level % shakenLevels); i >= 0; i -= shakenLevels) {
      if (this.#bindings.at(this.#levelBytes(i)).bound >= best.extra) break;
      this.#onProgress?.('exchanging several runs at a time', (level - i) / (level + 1));
      const shaken = this.#shakenAt(i);
      if (!shaken) break;
      if (shaken.extra < best.extra) best = shaken;
    }
    return best;
  }

  /** The best plan within `budget` of all that the levels from `level` down and the smallest budget have. */
  #searched(level: number, budget: number): Candidate | undefined {
    let floor = this.#least.bytes;
    let best: Candidate | undefined;
    for (let i = level; i >= 0; i--) {
      const limit = this.#levelBytes(i);
      if (limit < floor) break;
      if (best && this.#bindings.at(limit).bound >= best.extra) return best;
      this.#onProgress?.('searching less memory too', (level - i) / (level + 1));
      const found = this.#level(i);
      if (found && (!best || found.extra < best.extra)) best = found;
      // Nothing is found below the smallest.
      if (!found) floor = Math.max(floor, this.#findSmallest().facts.bytes);
    }
    const { candidate } = this.#findSmallest();
    if (candidate.peak > budget || (best && best.extra <= candidate.extra)) return best;
    return candidate;
  }

  #shakenAt(level: number): Candidate | undefined {
    if (!this.#shaken.has(level)) {
      const limit = this.#levelBytes(level);
      const start = this.#searched(level, limit);
      this.#shaken.set(level, start && this.#shake(start, limit));
    }
    return this.#shaken.get(level);
  }

  #shake(start: Candidate, limit: number): Candidate {
    const { problem } = this;
    const { bound } = this.#bindings.at(limit);
    const goal = this.#goal;
    if (start.extra - bound <= goal || bound === Number.POSITIVE_INFINITY) return start;
    const work = { left: this.#shakeWork, tried: 0, kept: 0 };
    const enough = (extra: number): boolean => extra - bound <= goal;
    const found = shake(problem, start.sequence, limit, { work, bound, enough });
    this.#tried += work.tried;
    this.#kept += work.kept;
    return found === start.sequence ? start : this.#candidate(found);
  }

  /** How far above the bound (in cost) a search still goes on. */
  get #goal(): number {
    return this.problem.ops > smallGraph ? closeEnough * this.problem.baseCost : 0;
  }

  get #levelSlack(): number {
    return Math.min(levelSlack, Math.floor(this.base.peak / 1e6));
  }

  #levelBytes(level: number): number {
    return Math.floor((this.base.peak * level) / levels) - this.#levelSlack;
  }

  #level(level: number): Candidate | undefined {
    if (!this.#atLevel.has(level))
      this.#atLevel.set(level, this.#search(this.#levelBytes(level), undefined));
    return this.#atLevel.get(level);
  }

  /** The fastest plan found within `limit`; never slower than one that is known. */
  #search<Known extends Candidate | undefined>(limit: number, known: Known): Candidate | Known {
    const { problem } = this;
    const { bound } = this.#bindings.at(limit);
    const enough = (extra: number, gap = closeEnough * problem.baseCost): boolean =>
      extra - bound <= gap;
    let best: Candidate | Known = known;
    const offer = (sequence: Int32Array): void => {
      const candidate = this.#candidate(sequence);
      if (!best || candidate.extra < best.extra) best = candidate;
    };
    for (const found of this.#directPlans(limit)) {
      offer(this.#polish(found, limit));
      if (best && enough(best.extra)) break;
    }
    const goal = this.#goal;
    if (bound === Number.POSITIVE_INFINITY || (best && enough(best.extra, goal))) return best;
    const work = { left: this.#searchWork, tried: 0, kept: 0 };
    const repaired = repair(problem, realize(problem, []).sequence, limit, work);
    for (const start of [best?.sequence, repaired && this.#polish(repaired, limit)]) {
      if (start) offer(improve(problem, start, limit, work, (extra) => enough(extra, goal)));
    }
    this.#tried += work.tried;
    this.#kept += work.kept;
    return best;
  }

  /** A plan within `limit`, whatever it costs. */
  #anyPlan(limit: number): Candidate | undefined {
    for (const found of this.#directPlans(limit))
      return this.#candidate(this.#polish(found, limit));
    const work = { left: this.#searchWork, tried: 0, kept: 0 };
    const { sequence } = realize(this.problem, []);
    const repaired = repair(this.problem, sequence, limit, work);
    return repaired && this.#candidate(this.#polish(repaired, limit));
  }

  /** What each family of plans has within `limit`. */
  *#directPlans(limit: number): Generator<Int32Array> {
    const { op: first, bound } = this.#bindings.at(limit);
    if (bound === Number.POSITIVE_INFINITY) return;
    for (const { held, cuts } of this.#families) {
      const found = direct(this.problem, limit, { cuts, held, first, work: this.#work });
      if (!('stuckAt' in found)) yield found;
    }
  }

  #polish(found: Int32Array, limit: number): Int32Array {
    const { sequence, tried, kept } = polish(this.problem, found, limit);
    this.#tried += tried;
    this.#kept += kept;
    return sequence;
  }

  #findSmallest(): { candidate: Candidate; facts: SmallestFeasible } {
    if (this.#smallest) return this.#smallest;
    const { bytes, op } = this.#least;
    let low = bytes;
    let smallest = this.base;
    for (let i = 0; i < bisections && smallest.peak > low; i++) {
      this.#onProgress?.('looking for the smallest budget', i / bisections);
      const middle = i === 0 ? bytes : Math.floor((low + smallest.peak) / 2);
      const found = this.#anyPlan(middle);
      if (found) smallest = found;
      else low = middle + 1;
    }
    const candidate = smallest === this.base ? smallest : this.#searchSmallest(smallest);
    const node = this.problem.node[op] ?? -1;
    const facts = { bytes: smallest.peak, lowerBoundBytes: bytes, node };
    this.#smallest = { candidate, facts };
    return this.#smallest;
  }

  #searchSmallest(smallest: Candidate): Candidate {
    const found = this.#search(smallest.peak, smallest);
    return this.#shakeWork === 0 ? found : this.#shake(found, smallest.peak);
  }

  #candidate(sequence: Int32Array): Candidate {
    return {
      sequence,
      peak: profileOf(this.problem, sequence).peak,
      extra: extraOf(this.problem, sequence).cost,
    };
  }

  #finish(best: Candidate, budget: number): Plan {
    const { problem } = this;
    const { ns, hardNs, cost } = extraOf(problem, best.sequence);
    const lowerBoundNs =
      best === this.base ? cost : Math.min(cost, this.#bindings.at(budget).bound);
    return {
      peakBytes: best.peak,
      baseNs: problem.baseNs,
      extraNs: ns,
      extraHardNs: hardNs,
      lowerBoundNs,
      gap: problem.baseCost > 0 ? (cost - lowerBoundNs) / problem.baseCost : 0,
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
    const bound = this.#least;
    const proven = budget < bound.bytes;
    const at = profileOf(problem, candidate.sequence).peakAt;
    const op = proven ? bound.op : (candidate.sequence[at] as number);
    const alive = this.#describe(proven ? bound.alive : this.#aliveAt(candidate.sequence, at));
    const total = alive.reduce((sum, value) => sum + value.bytes, 0) + (problem.workspace[op] ?? 0);
    const node = problem.node[op] ?? -1;
    const label = problem.graph.nodes[node]?.label;
    const listed = alive.slice(0, 5).map((value) => `${value.label} ${formatBytes(value.bytes)}`);
    const rest = alive.length > 5 ? ` and ${alive.length - 5} more` : '';
    const needs = bound.isLast ? 'even as the last result' : 'alone';
    const why = proven
      ? `'${label}' ${needs} needs ${formatBytes(total)}`
      : `the smallest plan found peaks at '${label}' with ${formatBytes(total)} alive; nothing below ${formatBytes(facts.lowerBoundBytes)} is possible, in between is not proven`;
    return new InfeasibleBudgetError(
      `planGraph: no plan keeps a budget of ${budget} bytes (got ${formatBytes(budget)}; ${why}: ${listed.join(', ')}${rest}). ` +
        `Give at least ${facts.bytes} bytes (${formatBytes(facts.bytes)}).`,
      {
        budgetBytes: budget,
        smallestBytes: facts.bytes,
        lowerBoundBytes: facts.lowerBoundBytes,
        node,
        label,
        aliveBytes: total,
        alive,
      },
    );
  }

  #aliveAt(sequence: Int32Array, at: number): number[] {
    const list: number[] = [];
    visitSpans(this.problem, sequence, (s, first, last) => {
      if (first <= at && at <= last) list.push(s);
    });
    return list;
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
