/** Public entry of compile: whole training steps as one planned program. */

export { type CompileOptions, type CompiledStep, type StepPlan, compile } from './compile.ts';
export { type CostModel, rooflineCost } from './cost-model.ts';
export {
  type ExplainedValue,
  type MemoryPoint,
  type StepReport,
  explain,
  explainPlan,
} from './explain.ts';
export { plannedTrace } from './planned-trace.ts';
export type { FrontierPoint } from './frontier.ts';
export { type ValueGroup, formatStepReport, groupValues } from './explain-text.ts';
export { type AliveBuffer, type Peak, describePeak, peakOf } from './peak.ts';
export { passNames } from './pipeline.ts';
export type { OffloadAction, PlanActions } from '../checkpoint/plan-actions.ts';
export type { CompiledPlan, PlannerChoice } from './plan-step.ts';
export type { MakePlanner } from './remat-search.ts';
export { type Lifetime, type MemoryPlan, planMemory } from './memory-plan.ts';
