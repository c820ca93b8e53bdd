/** What `explain` and `frontier` share: the config they are asked about. */

import type { MemoryChoice } from '../recipes/memory/choice.ts';
import type { StepShape } from '../recipes/recipe.ts';
import { type CliArgument, type CliOption, CliUsageError } from './command.ts';

export const overridesArgument: CliArgument = {
  spec: '[overrides...]',
  doc: 'key=value and ~key, as for run',
};

export const configOptions: readonly CliOption[] = [
  { flags: '-c, --config <name-or-file>', doc: 'a YAML file, or a config that `retune ls` lists' },
  { flags: '-r, --recipe <name>', doc: 'the recipe it is for (default: any that accepts it)' },
];

export interface StepRequest {
  /** Mode auto is settled in it. */
  readonly shape: StepShape;
  /** What mode auto chose; undefined for another mode. */
  readonly choice: MemoryChoice | undefined;
}

/** The step of the config that the options name. Throws InfeasibleBudgetError when mode auto finds no way to train. */
export async function stepRequestOf(
  command: string,
  options: Readonly<Record<string, unknown>>,
  overrides: readonly string[],
): Promise<StepRequest> {
  const { findRecipe, recipeOfConfig } = await import('../recipes/registry.ts');
  const { matchRecipes, prepareRun } = await import('../recipes/prepare.ts');
  const { config, recipe: name } = options;
  if (typeof config !== 'string') {
    throw new CliUsageError(`${command}: it needs a config. Try --config pretrain/byte_llama.`);
  }
  const given = typeof name === 'string' ? findRecipe(name) : recipeOfConfig(config);
  const [recipe] = given ? [given] : await matchRecipes(config, overrides);
  if (!recipe) throw new CliUsageError(`${command}: ${config} fits no recipe.`);
  const shape = await (await prepareRun(recipe, config, overrides)).shape();
  const { automaticSetting } = await import('../recipes/config/checkpointing-keys.ts');
  if (!automaticSetting(shape.training)) return { shape, choice: undefined };
  const { fitMemory } = await import('../recipes/memory/fit.ts');
  const { describeSplit } = await import('../recipes/memory/describe.ts');
  const { Wait } = await import('./wait.ts');
  const wait = new Wait();
  const { choice, training } = fitMemory(shape, {
    onPlan: (split) => wait.show(`planning ${describeSplit(split)}`),
  });
  wait.stop();
  return { shape: { ...shape, training }, choice };
}
