/**
 * The recipes and the configs that come with them. Recipes are loaded when asked for: naming them must
 * not cost the start of the command line the whole engine.
 */

import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { ConfigError, FileError, nearest } from '../core/errors.ts';
import type { ConfigSchema } from './config/key.ts';
import type { PlainObject } from './config/load.ts';
import type { RecipeIo, RunOutcome, StepShape } from './recipe.ts';

/** A recipe file; `C` is its config. */
export interface Recipe<C> {
  readonly schema: ConfigSchema;
  /** Fills in defaults. Throws ConfigError for anything that cannot run. */
  parse(config: PlainObject, name: string): C;
  main(config: C, io: RecipeIo): Promise<RunOutcome>;
  shape(config: C): Promise<StepShape>;
}

export interface RecipeEntry {
  readonly name: string;
  readonly summary: string;
  /** Configs by name, best one to begin with first. */
  readonly configs: readonly string[];
  /** Whether `retune run` may leave out `--config`: the first one is used. */
  readonly hasDefault: boolean;
  schema(): Promise<ConfigSchema>;
  /** Parses a config for this recipe; the result runs it or shows it. */
  prepare(config: PlainObject, name: string): Promise<PreparedRun>;
}

/** A checked config together with the recipe it is for. */
export interface PreparedRun {
  /** With defaults filled in. */
  readonly config: object;
  main(io: RecipeIo): Promise<RunOutcome>;
  shape(): Promise<StepShape>;
}

export const recipes: readonly RecipeEntry[] = [
  entry({
    name: 'quickstart',
    summary: 'trains a small byte-level Llama in two minutes and compares ways of checkpointing',
    configs: ['quickstart'],
    hasDefault: true,
    load: () => import('./quickstart.ts'),
  }),
  entry({
    name: 'pretrain',
    summary: 'trains a model from scratch on text',
    configs: ['pretrain/byte_llama', 'pretrain/smollm2_135m'],
    hasDefault: false,
    load: () => import('./pretrain.ts'),
  }),
  entry({
    name: 'full_finetune',
    summary: 'trains all weights of a Hugging Face model on text or conversations',
    configs: ['full_finetune/smollm2_135m', 'full_finetune/qwen2_5_0_5b_instruct'],
    hasDefault: false,
    load: () => import('./full-finetune.ts'),
  }),
];

/** The recipe called `name`. Throws ConfigError with the nearest names. */
export function findRecipe(name: string): RecipeEntry {
  const found = recipes.find((recipe) => recipe.name === name.replaceAll('-', '_'));
  if (found) return found;
  const names = recipes.map((recipe) => recipe.name);
  throw new ConfigError(
    `run: there is no recipe '${name}'. Did you mean ${nearest(name, names, 2).join(' or ')}? 'retune ls' lists all.`,
    { key: 'recipe', value: name },
  );
}

/** The recipe that a config of this package belongs to; undefined for other names. */
export function recipeOfConfig(name: string): RecipeEntry | undefined {
  return recipes.find((recipe) => recipe.configs.includes(name));
}

/** YAML of a config: one that comes with the package, by name, or a file. Throws FileError. */
export async function readConfig(nameOrPath: string): Promise<string> {
  const names = recipes.flatMap((recipe) => recipe.configs);
  if (names.includes(nameOrPath)) return readFile(configFile(nameOrPath), 'utf8');
  if (existsSync(nameOrPath)) return readFile(nameOrPath, 'utf8');
  throw new FileError(
    `config: there is no config '${nameOrPath}', neither a file nor one of Retune's. ` +
      `Did you mean ${nearest(nameOrPath, names, 2).join(' or ')}? 'retune ls' lists all.`,
    { path: nameOrPath },
  );
}

/** Name of a copied config when none is given: the last part, with `.yaml`. */
export function configFileName(name: string): string {
  return `${basename(name)}.yaml`;
}

function configFile(name: string): URL {
  return new URL(`./configs/${name}.yaml`, import.meta.url);
}

interface EntryOptions<C> extends Omit<RecipeEntry, 'schema' | 'prepare'> {
  load(): Promise<Recipe<C>>;
}

/** Hides the config type, so that recipes of different ones stand in one list. */
function entry<C extends object>({ load, ...rest }: EntryOptions<C>): RecipeEntry {
  return {
    ...rest,
    schema: async () => (await load()).schema,
    prepare: async (source, name) => {
      const recipe = await load();
      const config = recipe.parse(source, name);
      return {
        config,
        main: (io) => recipe.main(config, io),
        shape: () => recipe.shape(config),
      };
    },
  };
}
