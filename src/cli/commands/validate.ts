/** `retune validate`: checks a config without reading data or training. */

import type { CliCommand } from '../command.ts';
import { listOf, textOf } from '../command.ts';

export const validate: CliCommand = {
  name: 'validate',
  summary: 'check a config without training',
  arguments: [
    { spec: '<config>', doc: 'a YAML file, or a config that `retune ls` lists' },
    { spec: '[overrides...]', doc: 'key=value and ~key, as for run' },
  ],
  options: [
    {
      flags: '-r, --recipe <name>',
      doc: 'the recipe it is for (default: any that accepts it)',
    },
    { flags: '-p, --print', doc: 'show the config with defaults filled in' },
  ],
  examples: [
    { command: 'retune validate my.yaml --recipe pretrain', doc: 'names every key that is wrong' },
    { command: 'retune validate pretrain/byte_llama --print', doc: 'shows all keys and values' },
  ],
  run: async ([config, overrides], options) => {
    const { findRecipe, recipeOfConfig } = await import('../../recipes/registry.ts');
    const { matchRecipes, prepareRun } = await import('../../recipes/prepare.ts');
    const name = textOf(config);
    const given = typeof options.recipe === 'string' ? findRecipe(options.recipe) : undefined;
    const known = given ?? recipeOfConfig(name);
    const matching = known ? [known] : await matchRecipes(name, listOf(overrides));
    const [recipe] = matching;
    if (!recipe) return 1;
    const prepared = await prepareRun(recipe, name, listOf(overrides));
    if (options.print === true) {
      const { formatYaml } = await import('../../recipes/config/load.ts');
      process.stdout.write(await formatYaml(prepared.config));
    } else {
      const names = matching.map((match) => match.name).join(' and ');
      console.log(`${name} is a valid config for ${names}`);
    }
    return 0;
  },
};
