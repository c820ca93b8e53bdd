/**
 * What it costs to run graph nodes, for the planner and for comparing plans. Costs are only compared with each other, so
 * the rates need not be those of the machine at hand, but their ratios should be like a machine's.
 */

import { type Aval, avalBytes } from '../ir/aval.ts';
import type { Node, Value } from '../ir/graph.ts';
import type { AnyOp, OpClass, Params } from '../ir/op.ts';
import { baseOf } from './base-value.ts';
import type { FusedStep } from './fuse.ts';
import type { PlacedStep } from './placement.ts';

export interface NodeCost {
  /** Nanoseconds. */
  readonly costNs: number;
  /** Whether there is work in it that no fusion hides: a matrix multiply, attention, a sort. */
  readonly hard: boolean;
}

/** Cost of one kernel that computes `nodes`, reads `reads` (no views) from memory and writes `writes`. */
export type CostModel = (
  nodes: readonly Node[],
  reads: readonly Value[],
  writes: readonly Value[],
) => NodeCost;

/** Arithmetic of a class of ops, in FLOPs a nanosecond. */
const flopRates: Partial<Record<OpClass, number>> = { matmul: 140, attention: 110 };
const elementRate = 20;
/** Bytes a nanosecond. */
const memoryRate = 25;
const launchNs = 3000;

/** Roofline: the longer of arithmetic and memory traffic, and a launch. Deterministic and without a device. */
export const rooflineCost: CostModel = (nodes, reads, writes) => {
  let arithmeticNs = 0;
  let hard = false;
  let traffic = 0;
  for (const { op, inputs, outputs, params } of nodes) {
    if (!op) continue;
    const work = workOf(op, avalsOf(inputs), avalsOf(outputs), params);
    arithmeticNs += work.arithmeticNs;
    traffic += work.traffic;
    hard ||= op.traits.remat === 'costly';
  }
  // One op knows best what it touches (a table look-up reads few rows); fused ones share what they read.
  if (nodes.length > 1) {
    traffic = [...reads, ...writes].reduce((sum, value) => sum + avalBytes(value.aval), 0);
  }
  return { costNs: rooflineNs({ arithmeticNs, traffic }), hard };
};

/** Nanoseconds of one op run on its own, as eager code does, by the same roofline. A view costs nothing. */
export function opNs(
  op: AnyOp,
  inputs: readonly Aval[],
  outputs: readonly Aval[],
  params: Params,
): number {
  return op.lower.kind === 'view' ? 0 : rooflineNs(workOf(op, inputs, outputs, params));
}

/** Nanoseconds of a fused program. */
export function programNs(steps: readonly FusedStep[], costOf: CostModel): number {
  let sum = 0;
  for (const step of steps) {
    if (step.kind === 'kernel') {
      const { nodes, operands, outputs } = step.group;
      sum += costOf(
        nodes,
        basesOf(operands),
        outputs.map((output) => output.value),
      ).costNs;
    } else if (step.kind === 'routine' || step.kind === 'transfer') {
      sum += costOf([step.node], basesOf(step.node.inputs), step.node.outputs).costNs;
    }
  }
  return sum;
}

interface Work {
  readonly arithmeticNs: number;
  /** Bytes read and written. */
  readonly traffic: number;
}

function workOf(
  op: AnyOp,
  inputs: readonly Aval[],
  outputs: readonly Aval[],
  params: Params,
): Work {
  const { flops, bytesRead, bytesWritten } = op.cost(inputs, outputs, params);
  const arithmeticNs = flops / (flopRates[op.traits.class] ?? elementRate);
  return { arithmeticNs, traffic: bytesRead + bytesWritten };
}

function rooflineNs({ arithmeticNs, traffic }: Work): number {
  return Math.round(Math.max(arithmeticNs, traffic / memoryRate) + launchNs);
}

function avalsOf(values: readonly Value[]): Aval[] {
  return values.map((value) => value.aval);
}

function basesOf(values: readonly Value[]): Value[] {
  return [...new Set(values.map(baseOf))];
}

/** Nanoseconds of one launch of a placed program, by the roofline. */
export function placedNs({ nodes, operands }: PlacedStep): number {
  const touched = operands.map((operand) => operand.buffer.value);
  return rooflineCost(nodes, touched, []).costNs;
}
