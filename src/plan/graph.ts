/**
 * What the planner reads and what it returns. A graph is a list of nodes in execution order; a value is
 * `[node, output]`. Bytes are integers below 2^53. First executions keep the order of the list; a plan
 * only adds further executions of nodes and says when memory is freed.
 */

/** `[node index, output index]`. */
export type ValueRef = readonly [node: number, output: number];

export interface PlanOutput {
  readonly bytes: number;
  /** A view: the value shares that value's storage and has no bytes of its own. */
  readonly alias?: ValueRef;
}

export interface PlanNode {
  /** Constants (parameters, inputs, tangents) are always resident and not counted. */
  readonly kind: 'op' | 'constant';
  readonly phase: 'forward' | 'backward';
  readonly inputs: readonly ValueRef[];
  readonly outputs: readonly PlanOutput[];
  /** Time of one execution, in nanoseconds; finite, not negative. */
  readonly costNs: number;
  /** A matrix product or attention: work that fusion cannot hide. */
  readonly hard: boolean;
  /** Memory the op needs beside its inputs and outputs while it runs. */
  readonly workspaceBytes?: number;
  /** `false`: runs once and never again (draws that cannot be replayed, collectives, side effects). */
  readonly recompute?: boolean;
  /** MUST save: the outputs are not freed before their last use in the graph as given. */
  readonly keep?: boolean;
  /** MUST recompute: the outputs are not held from the last forward op to the first backward op. */
  readonly drop?: boolean;
  readonly label: string;
  /** Name of the operation, where it differs from the label: what a report groups by. */
  readonly op?: string;
  /** Path of the module the node belongs to; layers are told apart and folded by it. */
  readonly module?: string;
}

export interface PlanGraph {
  /** In execution order: inputs and aliases point backwards. */
  readonly nodes: readonly PlanNode[];
  /** Values that are resident at the end. */
  readonly outputs: readonly ValueRef[];
}

/** One step of a schedule. Running a node again is a recompute; running a view costs no memory. */
export type Step = readonly ['run', node: number] | readonly ['free', node: number, output: number];

export interface PlannerOptions {
  /**
   * What a nanosecond counts in ops that are not `hard`, above 0 to 1 (default). Fusion hides much of their time
   * when they run again; a small share looks for plans with little hard work.
   */
  readonly softShare?: number;
  /**
   * Positions of schedules that the local search may look at for one budget (default 2e6, about a quarter of a second).
   * It begins where the planner's own families of plans end: less work gives slower plans at tight budgets, sooner.
   */
  readonly searchWork?: number;
  /**
   * Positions that annealing may look at for every fortieth of the peak, on graphs of at most 600 ops (default 1.2e7, about half a
   * second). 0: none.
   */
  readonly shakeWork?: number;
  /** Called with a sentence and a fraction in 0..1 while planning takes long. */
  readonly onProgress?: (what: string, done: number) => void;
}

export interface PlanOptions extends PlannerOptions {
  /** Upper limit of the bytes alive at any instant, workspace included; constants are not counted. */
  readonly budgetBytes: number;
}

/** How much work planning took. Counts, no times: equal input gives equal counters. */
export interface PlanCounters {
  /** Ops, after views are folded into their storages. */
  readonly ops: number;
  readonly storages: number;
  readonly maxFlows: number;
  readonly repairs: number;
  /** Moves of the local search: tried and kept. */
  readonly movesTried: number;
  readonly movesKept: number;
}

export interface Plan {
  /** Most bytes alive at once under `schedule`. */
  readonly peakBytes: number;
  /** Sum of every op's cost, once. */
  readonly baseNs: number;
  /** Cost of all further executions, and the part of it in `hard` ops. */
  readonly extraNs: number;
  readonly extraHardNs: number;
  /**
   * No schedule with the first executions in this order has less extra time within the budget. Where `softShare`
   * is not 1 this and `gap` are about time as it counts.
   */
  readonly lowerBoundNs: number;
  /** `(extraNs - lowerBoundNs) / baseNs`: how far the plan can be from the best; 0 for a graph without time. */
  readonly gap: number;
  readonly schedule: readonly Step[];
  readonly counters: PlanCounters;
}
