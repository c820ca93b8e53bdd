/** Public entry `retune/plan`: what to keep and what to compute again, under a budget of bytes. */

export type {
  Plan,
  PlanCounters,
  PlanGraph,
  PlanNode,
  PlanOptions,
  PlanOutput,
  PlannerOptions,
  Step,
  ValueRef,
} from './graph.ts';
export { InfeasibleBudgetError } from '../core/errors.ts';
export { readJointGraph } from './joint-graph.ts';
export { readJointGraphFile } from './joint-graph-file.ts';
export {
  type Frontier,
  type FrontierOptions,
  type FrontierPoint,
  planFrontier,
  planGraph,
  smallestFeasible,
} from './plan.ts';
export { Planner, type SmallestFeasible } from './planner.ts';
export { type Simulation, baseSchedule, simulate } from './simulate.ts';
