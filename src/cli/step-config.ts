/** What `explain` and `frontier` share: the config they are asked about. */

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

/** The step of the config that the options name. */
export async function stepShapeOf(
  command: string,
  options: Readonly<Record<string, unknown>>,
  overrides: readonly string[],
): Promise<StepShape> {
  const { findRecipe, recipeOfConfig } = await import('../recipes/registry.ts');
  const { matchRecipes, prepareRun } = await import('../recipes/prepare.ts');
  const { config, recipe: name } = options;
  if (typeof config !== 'string') {
    throw new CliUsageError(`${command}: it needs a config. Try --config pretrain/byte_llama.`);
  }
  const given = typeof name === 'string' ? findRecipe(name) : recipeOfConfig(config);
  const [recipe] = given ? [given] : await matchRecipes(config, overrides);
  if (!recipe) throw new CliUsageError(`${command}: ${config} fits no recipe.`);
  return (await prepareRun(recipe, config, overrides)).shape();
}
