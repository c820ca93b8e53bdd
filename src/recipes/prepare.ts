/** From the name of a config and overrides to a checked run. */

import { ConfigError } from '../core/errors.ts';
import { applyOverrides, parseYaml } from './config/load.ts';
import { type PreparedRun, type RecipeEntry, readConfig, recipes } from './registry.ts';

/** Reads, overrides and checks a config. Throws FileError, ConfigError. */
export async function prepareRun(
  recipe: RecipeEntry,
  config: string,
  overrides: readonly string[],
): Promise<PreparedRun> {
  const parsed = await parseYaml(await readConfig(config), config);
  return recipe.prepare(await applyOverrides(parsed, overrides), config);
}

/** The recipes that accept a config; with none, throws the error of the one that comes closest. */
export async function matchRecipes(
  config: string,
  overrides: readonly string[],
): Promise<RecipeEntry[]> {
  const matching: RecipeEntry[] = [];
  const failures: ConfigError[] = [];
  for (const recipe of recipes) {
    try {
      await prepareRun(recipe, config, overrides);
      matching.push(recipe);
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      failures.push(error);
    }
  }
  if (matching.length > 0) return matching;
  const problems = (error: ConfigError): number =>
    Array.isArray(error.details.keys) ? error.details.keys.length : 1;
  failures.sort((a, b) => problems(a) - problems(b));
  throw failures[0] ?? new ConfigError(`validate: ${config} fits no recipe.`);
}
