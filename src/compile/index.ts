/** Public entry of compile: whole training steps as one planned program. */

export { type CompileOptions, type CompiledStep, type StepPlan, compile } from './compile.ts';
export { type CompiledPlan, type PipelineOptions, passNames, passes } from './pipeline.ts';
export { type Lifetime, type MemoryPlan, planMemory } from './memory-plan.ts';
