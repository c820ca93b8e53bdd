/** Public entry `retune/recipes`: running recipes and reading their configs from code. */

export { type KeyDescription, describeKeys } from './config/describe.ts';
export { applyOverrides, type PlainObject, parseYaml } from './config/load.ts';
export { copyConfig } from './copy-config.ts';
export { continueText, type GenerateTextOptions, generateText } from './generate-text.ts';
export {
  type AvailableMemory,
  availableMemory,
  type MemoryReading,
  readMemory,
} from './memory/available.ts';
export type { Alternative } from './memory/alternatives.ts';
export type { BatchSplit, ChosenKeys, MemoryChoice } from './memory/choice.ts';
export { type FitOptions, fitMemory, type MemoryFit } from './memory/fit.ts';
export type { MemoryNeeds } from './memory/needs.ts';
export { prepareRun } from './prepare.ts';
export type { RecipeIo, RunOutcome, StepShape } from './recipe.ts';
export {
  findRecipe,
  type PreparedRun,
  type RecipeEntry,
  readConfig,
  recipes,
} from './registry.ts';
export { findNonFinite, NanCheckMode, type NonFiniteOp } from './run/nan-check.ts';
export {
  latestCheckpoint,
  type LoadedCheckpoint,
  readCheckpoint,
  type RunState,
} from './run/training-state.ts';
export { systemFacts } from './system-facts.ts';
