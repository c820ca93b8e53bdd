/** Plans one graph for many budgets, replays each schedule, and states what was promised and what was kept. */

import { InfeasibleBudgetError } from '../../src/core/errors.ts';
import type { Plan, PlanGraph } from '../../src/plan/graph.ts';
import { planFrontier, planGraph } from '../../src/plan/plan.ts';
import { Planner } from '../../src/plan/planner.ts';
import { simulate } from '../../src/plan/simulate.ts';

export interface Point {
  readonly budgetBytes: number;
  /** Undefined where the budget is infeasible. */
  readonly plan: Plan | undefined;
  readonly seconds: number;
  /** What is wrong with the plan; '' for nothing. */
  readonly fault: string;
}

export interface Sweep {
  readonly basePeak: number;
  readonly baseNs: number;
  readonly smallestBytes: number;
  readonly provenBytes: number;
  /** The smallest feasible budget and every 5 % above it. */
  readonly points: readonly Point[];
  /** One plan at half the peak, nothing known before, and a frontier of 20. */
  readonly onePlanSeconds: number;
  readonly frontierSeconds: number;
}

export function planOne(planner: Planner, graph: PlanGraph, budgetBytes: number): Point {
  const began = performance.now();
  const seconds = (): number => (performance.now() - began) / 1000;
  try {
    const plan = planner.plan(budgetBytes);
    return { budgetBytes, plan, seconds: seconds(), fault: faultOf(graph, plan, budgetBytes) };
  } catch (error) {
    if (!(error instanceof InfeasibleBudgetError)) throw error;
    return { budgetBytes, plan: undefined, seconds: seconds(), fault: '' };
  }
}

function faultOf(graph: PlanGraph, plan: Plan, budgetBytes: number): string {
  const replay = simulate(graph, plan.schedule);
  const close = (a: number, b: number): boolean => Math.abs(a - b) <= 1e-9 * Math.max(1, a, b);
  if (replay.peakBytes > budgetBytes) return 'above the budget';
  if (replay.peakBytes !== plan.peakBytes) return 'another peak than promised';
  if (!close(replay.extraNs, plan.extraNs)) return 'another time than promised';
  if (!close(replay.extraHardNs, plan.extraHardNs)) return 'another hard time than promised';
  return '';
}

export function sweep(graph: PlanGraph): Sweep {
  const planner = new Planner(graph);
  const basePeak = planner.base.peak;
  const { bytes: smallestBytes, lowerBoundBytes: provenBytes } = planner.smallestFeasible();
  const budgets = [smallestBytes];
  for (let percent = 5; percent <= 100; percent += 5) {
    const budget = Math.floor((basePeak * percent) / 100);
    if (budget > smallestBytes) budgets.push(budget);
  }
  let last = Number.POSITIVE_INFINITY;
  const points = budgets.map((budget) => {
    const point = planOne(planner, graph, budget);
    const extra = point.plan?.extraNs ?? Number.POSITIVE_INFINITY;
    const slower = extra > last;
    last = extra;
    return slower && point.fault === '' ? { ...point, fault: 'slower than less memory' } : point;
  });
  const half = Math.max(smallestBytes, Math.floor(basePeak / 2));
  const onePlanSeconds = time(() => planGraph(graph, { budgetBytes: half }));
  const frontierSeconds = time(() => planFrontier(graph));
  const { baseNs } = planner.problem;
  return { basePeak, baseNs, smallestBytes, provenBytes, points, onePlanSeconds, frontierSeconds };
}

function time(run: () => unknown): number {
  const began = performance.now();
  run();
  return (performance.now() - began) / 1000;
}
