/**
 * The planner's own form of a graph: ops and storages in typed arrays. Views disappear into the storage
 * they show, constants disappear altogether. A storage is one output of one op that has memory of its
 * own. Lists per op or per storage are slices of one array (`starts[i]` to `starts[i + 1]`).
 */

import { ArgumentError } from '../core/errors.ts';
import type { PlanGraph, PlanNode, ValueRef } from './graph.ts';

export interface Problem {
  readonly graph: PlanGraph;
  readonly ops: number;
  readonly storages: number;
  /** Per op. */
  readonly node: Int32Array;
  /** Time of a run as it counts: `softShare` of it for ops that are not hard. */
  readonly cost: Float64Array;
  /** Time of a run in nanoseconds. */
  readonly time: Float64Array;
  readonly hard: Uint8Array;
  readonly workspace: Float64Array;
  /** 1: runs once. */
  readonly once: Uint8Array;
  readonly inputStart: Int32Array;
  readonly inputs: Int32Array;
  /** Storages of op i are `outputStart[i]` to `outputStart[i + 1]`: numbered in op order. */
  readonly outputStart: Int32Array;
  /** Bytes of inputs, outputs and workspace together. */
  readonly workingSet: Float64Array;
  /** Per storage. */
  readonly bytes: Float64Array;
  readonly producer: Int32Array;
  readonly output: Int32Array;
  readonly useStart: Int32Array;
  /** Ops that read the storage, ascending. */
  readonly uses: Int32Array;
  readonly isResult: Uint8Array;
  /** 1: not held between forward and backward. */
  readonly mustDrop: Uint8Array;
  readonly hasDrops: boolean;
  /** The op after the last forward op. */
  readonly boundary: number;
  readonly baseNs: number;
  /** Sum of all costs. */
  readonly baseCost: number;
  /** Nodes that only make views, run when the op has run for the first time (-1: of constants). */
  readonly views: ReadonlyMap<number, readonly number[]>;
}

const nothing = -1;

/**
 * `softShare`: what a nanosecond counts in ops that are not hard.
 * @throws ArgumentError when the graph is no execution order or a number is not legal.
 */
export function buildProblem(graph: PlanGraph, softShare = 1): Problem {
  const roots = findRoots(graph);
  const opNodes: number[] = [];
  const viewRoot = new Map<number, number>();
  let baseNs = 0;
  graph.nodes.forEach((node, index) => {
    if (node.kind !== 'op') return;
    const shown = pureViewRoot(roots, node, index);
    if (shown === undefined) opNodes.push(index);
    else viewRoot.set(index, shown);
    baseNs += node.costNs;
  });
  const n = opNodes.length;
  const opOfNode = new Map(opNodes.map((node, op) => [node, op]));

  const storageOf = new Map<number, number>();
  const producer: number[] = [];
  const output: number[] = [];
  const bytes: number[] = [];
  const outputStart = new Int32Array(n + 1);
  opNodes.forEach((index, op) => {
    graph.nodes[index]?.outputs.forEach((out, k) => {
      if (out.alias) return;
      storageOf.set(key(index, k), producer.length);
      producer.push(op);
      output.push(k);
      bytes.push(out.bytes);
    });
    outputStart[op + 1] = producer.length;
  });
  const storages = producer.length;
  const storage = ([node, k]: ValueRef): number => {
    const root = roots[node]?.[k];
    return root === undefined ? nothing : (storageOf.get(root) ?? nothing);
  };

  const cost = new Float64Array(n);
  const time = new Float64Array(n);
  let baseCost = 0;
  const hard = new Uint8Array(n);
  const workspace = new Float64Array(n);
  const once = new Uint8Array(n);
  const mustDrop = new Uint8Array(storages);
  const inputStart = new Int32Array(n + 1);
  const inputs: number[] = [];
  let boundary = 0;
  opNodes.forEach((index, op) => {
    const node = graph.nodes[index] as PlanNode;
    time[op] = node.costNs;
    cost[op] = node.hard ? node.costNs : softShare * node.costNs;
    baseCost += cost[op] as number;
    hard[op] = node.hard ? 1 : 0;
    workspace[op] = node.workspaceBytes ?? 0;
    if (node.recompute === false || node.keep === true) once[op] = 1;
    if (node.drop === true) {
      if (once[op]) throw contradiction(node, index);
      mustDrop.fill(1, outputStart[op], outputStart[op + 1]);
    }
    if (node.phase === 'forward') boundary = op + 1;
    const read = new Set<number>();
    for (const value of node.inputs) read.add(storage(value));
    // An op that writes into a storage it did not make: neither may run again.
    node.outputs.forEach((out, k) => {
      if (!out.alias) return;
      const shown = storage([index, k]);
      read.add(shown);
      if (shown !== nothing) once[producer[shown] as number] = 1;
      once[op] = 1;
    });
    read.delete(nothing);
    inputs.push(...[...read].sort((a, b) => a - b));
    inputStart[op + 1] = inputs.length;
  });

  const useCount = new Int32Array(storages + 1);
  for (const s of inputs) useCount[s + 1] = (useCount[s + 1] as number) + 1;
  for (let s = 0; s < storages; s++)
    useCount[s + 1] = (useCount[s + 1] as number) + (useCount[s] as number);
  const useStart = useCount.slice();
  const fill = useCount.slice();
  const uses = new Int32Array(inputs.length);
  for (let op = 0; op < n; op++) {
    for (let i = inputStart[op] as number; i < (inputStart[op + 1] as number); i++) {
      const s = inputs[i] as number;
      uses[fill[s] as number] = op;
      fill[s] = (fill[s] as number) + 1;
    }
  }

  const isResult = new Uint8Array(storages);
  for (const value of graph.outputs) {
    if (graph.nodes[value[0]]?.outputs[value[1]] === undefined) {
      throw new ArgumentError(
        `planGraph: the graph's outputs name a value that does not exist (got ${value.join(':')}). Name outputs of nodes.`,
      );
    }
    const s = storage(value);
    if (s !== nothing) isResult[s] = 1;
  }

  const workingSet = new Float64Array(n);
  for (let op = 0; op < n; op++) {
    let sum = workspace[op] as number;
    for (let i = inputStart[op] as number; i < (inputStart[op + 1] as number); i++)
      sum += bytes[inputs[i] as number] as number;
    for (let s = outputStart[op] as number; s < (outputStart[op + 1] as number); s++)
      sum += bytes[s] as number;
    workingSet[op] = sum;
  }

  const views = new Map<number, number[]>();
  for (const [index, root] of viewRoot) {
    const op =
      root === nothing ? nothing : (opOfNode.get(Math.floor(root / outputLimit)) ?? nothing);
    const list = views.get(op);
    if (list) list.push(index);
    else views.set(op, [index]);
  }
  return {
    graph,
    ops: n,
    storages,
    node: Int32Array.from(opNodes),
    cost,
    time,
    hard,
    workspace,
    once,
    inputStart,
    inputs: Int32Array.from(inputs),
    outputStart,
    workingSet,
    bytes: Float64Array.from(bytes),
    producer: Int32Array.from(producer),
    output: Int32Array.from(output),
    useStart,
    uses,
    isResult,
    mustDrop,
    hasDrops: mustDrop.includes(1),
    boundary,
    baseNs,
    baseCost,
    views,
  };
}

const outputLimit = 1 << 20;
const key = (node: number, output: number): number => node * outputLimit + output;

/** Per node and output: the key of the value whose storage it shows, undefined for a constant's. */
function findRoots(graph: PlanGraph): (number | undefined)[][] {
  const roots: (number | undefined)[][] = [];
  graph.nodes.forEach((node, index) => {
    checkNumbers(node, index);
    for (const [from, k] of node.inputs) {
      if (!(from < index) || graph.nodes[from]?.outputs[k] === undefined) {
        throw new ArgumentError(
          `planGraph: node ${index} ('${node.label}') reads a value that does not exist before it (got ${from}:${k}). ` +
            'List the nodes in execution order.',
          { node: index },
        );
      }
    }
    const own: (number | undefined)[] = [];
    roots.push(own);
    node.outputs.forEach((out, k) => {
      if (!out.alias) {
        own.push(node.kind === 'op' ? key(index, k) : undefined);
        return;
      }
      const [from, j] = out.alias;
      const before = from < index || (from === index && j < k);
      if (!before || graph.nodes[from]?.outputs[j] === undefined) {
        throw new ArgumentError(
          `planGraph: output ${k} of node ${index} ('${node.label}') is an alias of a value that does not exist before it (got ${from}:${j}). ` +
            'Let aliases point backwards.',
          { node: index },
        );
      }
      own.push(roots[from]?.[j]);
    });
  });
  return roots;
}

/** The one storage a node only shows, `nothing` for a constant's; undefined for a node that computes. */
function pureViewRoot(
  roots: readonly (number | undefined)[][],
  node: PlanNode,
  index: number,
): number | undefined {
  const shown = new Set<number>();
  for (const [k, out] of node.outputs.entries()) {
    if (!out.alias || out.alias[0] === index) return undefined;
    shown.add(roots[index]?.[k] ?? nothing);
  }
  const [root] = shown;
  if (root === undefined || shown.size > 1) return undefined;
  for (const [from, k] of node.inputs) {
    const read = roots[from]?.[k] ?? nothing;
    // An op with a price that reads something else may write what it shows.
    if (read !== root && !(read === nothing && node.costNs === 0)) return undefined;
  }
  return root;
}

function checkNumbers(node: PlanNode, index: number): void {
  const isCount = (value: number) => Number.isSafeInteger(value) && value >= 0;
  if (!Number.isFinite(node.costNs) || node.costNs < 0) {
    throw new ArgumentError(
      `planGraph: the cost of node ${index} ('${node.label}') is not a time (got ${node.costNs}). Give nanoseconds, 0 or more.`,
      { node: index },
    );
  }
  if (!isCount(node.workspaceBytes ?? 0) || node.outputs.some((out) => !isCount(out.bytes))) {
    const got = [node.workspaceBytes ?? 0, ...node.outputs.map((out) => out.bytes)].join(', ');
    throw new ArgumentError(
      `planGraph: the bytes of node ${index} ('${node.label}') are not whole numbers (got ${got}). Give integers from 0.`,
      { node: index },
    );
  }
}

function contradiction(node: PlanNode, index: number): ArgumentError {
  const other = node.keep === true ? 'be saved' : 'never run twice';
  return new ArgumentError(
    `planGraph: node ${index} ('${node.label}') must be recomputed and must ${other} (got drop: true beside it). Remove one of the two orders.`,
    { node: index },
  );
}
