/**
 * One instant of a plan: what is held, what is computed again afterwards. At the instant a value that is
 * needed later is either resident or made again later, and whatever makes it again needs its own inputs
 * in the same way. Minimizing `cost of runs + price * resident bytes` is a minimum cut: a flow runs along
 * the data from the ops (capacity: their cost) through values (capacity: price times bytes) to the
 * values that are needed. Lagrangian bounds and the sets for every price come from one growing flow.
 *
 * Validity of the bound: any schedule whose first executions keep the graph's order, with any number of
 * further executions, has at this instant some resident set; everything else that is needed is run again
 * after it. So its extra cost is at least the minimum over resident sets that fit, and the Lagrangian
 * value (flow minus price times room) is never above that minimum. Capacities are rounded down.
 */

import { MaxFlow, unlimited } from './max-flow.ts';
import type { Problem } from './problem.ts';

export interface CutSite {
  /** The op that runs at the instant; its inputs and outputs are resident and free to hold. */
  readonly op: number;
  /** Ops below this number have run at least once when the instant ends. */
  readonly executed: number;
  /** Storages needed after the instant. */
  readonly demands: Iterable<number>;
  /** Storages that could be held; undefined: every one made so far. */
  readonly available?: Uint8Array;
  /** Storages that are held whatever the price, where they are needed at all. */
  readonly held?: Uint8Array;
}

export interface CutSolution {
  readonly price: number;
  /** Bytes held besides the working set of the op. */
  readonly bytes: number;
  /** Time of the ops that run again (in nanoseconds). */
  readonly cost: number;
  readonly feasible: boolean;
}

interface Solved extends CutSolution {
  /** Of the minimum cut. */
  readonly value: number;
}

interface State {
  price: number;
  value: number;
  readonly residual: Float64Array;
}

/** Prices differ by this much between values needed soon and late, so equal layers change one by one. */
const tieSpread = 1 / 256;
/** Halvings of the range of prices, and the share of all costs below which a price says nothing. */
const halvings = 24;
const leastShare = 2 ** -20;
/** Flows that are kept to start from. */
const mostStates = 8;

export class Cut {
  readonly #problem: Problem;
  readonly #flow: MaxFlow;
  /** Vertices: one per storage, then one per op that could run again. */
  readonly #stores: number[] = [];
  readonly #ops: number[] = [];
  readonly #opVertex = new Map<number, number>();
  readonly #storeVertex = new Map<number, number>();
  readonly #holdEdge: number[] = [];
  readonly #capacity: Float64Array;
  readonly #free = new Set<number>();
  readonly #scale: number;
  readonly #total: number;
  readonly #solved = new Map<number, Solved>();
  /** Flows to start from. */
  readonly #states: State[] = [];
  readonly #lowPrice: number;
  readonly #highPrice: number;
  /** The price of the flow as it is; -1 before the first. */
  #now = -1;
  /** The price of the solution last returned. */
  #asked = 0;
  flows = 0;
  /** Bytes of the storages that are held whatever the price; `room` below includes them. */
  heldBytes = 0;

  constructor(problem: Problem, site: CutSite) {
    this.#problem = problem;
    const { inputStart, inputs, outputStart, producer, once, cost } = problem;
    for (let i = inputStart[site.op] as number; i < (inputStart[site.op + 1] as number); i++) {
      this.#free.add(inputs[i] as number);
    }
    for (let s = outputStart[site.op] as number; s < (outputStart[site.op + 1] as number); s++) {
      this.#free.add(s);
    }
    const pending: number[] = [];
    const visit = (s: number) => {
      if (this.#free.has(s) || this.#storeVertex.has(s)) return;
      if (site.held?.[s] === 1 && site.available?.[s] !== 0) {
        this.#free.add(s);
        this.heldBytes += problem.bytes[s] as number;
        return;
      }
      this.#storeVertex.set(s, this.#stores.length);
      this.#stores.push(s);
      pending.push(s);
    };
    const demanded = new Set<number>();
    for (const s of site.demands) {
      visit(s);
      demanded.add(s);
    }
    for (let s = pending.pop(); s !== undefined; s = pending.pop()) {
      const op = producer[s] as number;
      if (this.#opVertex.has(op)) continue;
      this.#opVertex.set(op, this.#ops.length);
      this.#ops.push(op);
      if (once[op]) continue;
      for (let i = inputStart[op] as number; i < (inputStart[op + 1] as number); i++) {
        visit(inputs[i] as number);
      }
    }
    let total = 0;
    let edges = this.#stores.length * 2 + this.#ops.length;
    for (const op of this.#ops) {
      total += cost[op] as number;
      edges += (inputStart[op + 1] as number) - (inputStart[op] as number);
    }
    this.#scale = total > 0 ? 2 ** Math.floor(44 - Math.log2(total)) : 1;
    this.#total = Math.floor(total * this.#scale) + 1;
    this.#flow = new MaxFlow(this.#stores.length + this.#ops.length, edges);
    const flow = this.#flow;
    const first = this.#stores.length;
    this.#ops.forEach((op, i) => {
      flow.addEdge(
        flow.source,
        first + i,
        once[op] ? unlimited : Math.floor((cost[op] as number) * this.#scale),
      );
      if (once[op]) return;
      for (let j = inputStart[op] as number; j < (inputStart[op + 1] as number); j++) {
        const vertex = this.#storeVertex.get(inputs[j] as number);
        if (vertex !== undefined) flow.addEdge(vertex, first + i, unlimited);
      }
    });
    let least = Number.POSITIVE_INFINITY;
    let all = 0;
    for (const s of this.#stores) {
      const size = problem.bytes[s] as number;
      all += size;
      if (size > 0) least = Math.min(least, size);
    }
    this.#lowPrice = all > 0 ? Math.log2((this.#total * leastShare) / all) : 0;
    this.#highPrice = all > 0 ? Math.log2((2 * this.#total) / least) : 0;
    this.#capacity = new Float64Array(this.#stores.length);
    this.#stores.forEach((s, i) => {
      const op = first + (this.#opVertex.get(producer[s] as number) as number);
      const held = !site.available || site.available[s] === 1;
      this.#holdEdge.push(flow.addEdge(op, i, held ? 0 : unlimited));
      if (!held) this.#capacity[i] = unlimited;
      if (demanded.has(s)) flow.addEdge(i, flow.sink, unlimited);
    });
  }

  /**
   * The cheapest solution whose bytes fit, or the one with the fewest bytes when none does; and a proven lower
   * bound on the extra time of any plan, Infinity when there is none. What is held whatever the price takes no room in
   * the bound, which so covers plans that give it up. Neither depends on what was solved before.
   */
  solve(allRoom: number): { solution: CutSolution; bound: number } {
    const room = allRoom - this.heldBytes;
    let bound = 0;
    const at = (price: number): Solved => {
      const solved = this.#at(price);
      if (Number.isFinite(price)) {
        const value = (solved.value - price * allRoom) / this.#scale;
        bound = solved.feasible ? Math.max(bound, value) : Number.POSITIVE_INFINITY;
      }
      return solved;
    };
    const answer = (solution: Solved) => {
      this.#asked = solution.price;
      return { solution, bound };
    };
    const free = at(0);
    if (free.bytes <= room) return answer(free);
    const most = at(Number.POSITIVE_INFINITY);
    if (most.bytes > allRoom) bound = Number.POSITIVE_INFINITY;
    if (most.bytes > room || !most.feasible) return answer(most);
    let low = this.#lowPrice;
    let high = this.#highPrice;
    for (let i = 0; i < halvings; i++) {
      const middle = (low + high) / 2;
      if (at(2 ** middle).bytes <= room) high = middle;
      else low = middle;
    }
    return answer(at(2 ** high));
  }

  /** Storages to hold, of the solution last returned. */
  held(): Uint8Array {
    this.#moveTo(this.#asked);
    const hold = new Uint8Array(this.#problem.storages);
    for (const s of this.#free) hold[s] = 1;
    this.#stores.forEach((s, i) => {
      const op = this.#opVertex.get(this.#problem.producer[s] as number) as number;
      if (this.#flow.reachesSink(i) && !this.#flow.reachesSink(this.#stores.length + op))
        hold[s] = 1;
    });
    return hold;
  }

  #at(price: number): Solved {
    const known = this.#solved.get(price);
    if (known) return known;
    this.#moveTo(price);
    this.flows++;
    const solved = { ...this.#read(price), value: this.#flow.value };
    this.#solved.set(price, solved);
    return solved;
  }

  /** Brings the flow to `price`: on from where it is, or from the nearest lower price that is kept. */
  #moveTo(price: number): void {
    if (this.#now === price) return;
    if (this.#now < price) this.#keep();
    else {
      const lower = this.#states.filter((state) => state.price <= price);
      const start = lower.reduce((a, b) => (b.price > a.price ? b : a));
      this.#flow.restore(start);
      this.#now = start.price;
      this.#price(start.price, true);
    }
    this.#price(price);
    this.#flow.solve();
    this.#now = price;
  }

  /** Keeps the flow as it is: the first ones for good, then one place is used again and again. */
  #keep(): void {
    const price = this.#now;
    if (price < 0 || this.#states.some((state) => state.price === price)) return;
    const { value } = this.#flow;
    if (this.#states.length < mostStates) {
      this.#states.push({ price, value, residual: this.#flow.residual() });
      return;
    }
    const last = this.#states[mostStates - 1] as State;
    last.price = price;
    last.value = value;
    this.#flow.residual(last.residual);
  }

  /** Brings the capacities to `price`; `only` when the residuals have them already. */
  #price(price: number, only = false): void {
    const { bytes, producer, ops } = this.#problem;
    this.#stores.forEach((s, i) => {
      const old = this.#capacity[i] as number;
      if (old === unlimited) return;
      const size = bytes[s] as number;
      const weight = 1 - tieSpread * ((producer[s] as number) / ops);
      const capacity = size === 0 ? 0 : Math.min(this.#total, Math.floor(price * size * weight));
      if (!only) this.#flow.raise(this.#holdEdge[i] as number, capacity - old);
      this.#capacity[i] = capacity;
    });
  }

  #read(price: number): CutSolution {
    const { bytes, cost, producer } = this.#problem;
    let held = 0;
    let again = 0;
    this.#stores.forEach((s, i) => {
      const op = this.#opVertex.get(producer[s] as number) as number;
      if (this.#flow.reachesSink(i) && !this.#flow.reachesSink(this.#stores.length + op))
        held += bytes[s] as number;
    });
    this.#ops.forEach((op, i) => {
      if (this.#flow.reachesSink(this.#stores.length + i)) again += cost[op] as number;
    });
    return { price, bytes: held, cost: again, feasible: this.#flow.value < unlimited };
  }
}
