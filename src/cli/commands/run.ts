/** `retune run`: runs a recipe with a config. */

import type { CliCommand } from '../command.ts';
import { CliUsageError, listOf, textOf } from '../command.ts';

export const run: CliCommand = {
  name: 'run',
  summary: 'run a recipe with a config',
  arguments: [
    { spec: '<recipe>', doc: 'a recipe that `retune ls` lists' },
    { spec: '[overrides...]', doc: 'key=value to set a key of the config, ~key to remove one' },
  ],
  options: [
    {
      flags: '-c, --config <name-or-file>',
      doc: 'a YAML file, or a config that `retune ls` lists',
    },
    { flags: '-q, --quiet', doc: 'no progress, only warnings and errors' },
    {
      flags: '--trace-memory <file>',
      doc: 'writes every allocation of the second step as JSON: bytes, op, module, phase',
    },
  ],
  examples: [
    { command: 'retune run quickstart', doc: 'needs nothing else' },
    {
      command: 'retune run pretrain --config my.yaml optimizer.lr=3e-4 max_steps=200',
      doc: 'keys on the command line count more than those in the file',
    },
    {
      command: 'retune run pretrain --config my.yaml resume_from_checkpoint=true',
      doc: 'go on where an earlier run was stopped or killed',
    },
    { command: 'retune run pretrain --help', doc: 'every key of the config, with its meaning' },
  ],
  details: async (argv) => {
    const words = argv.filter((word) => !word.startsWith('-'));
    const name = words[1];
    if (!argv.some((word) => word === '--help' || word === '-h') || name === undefined) return '';
    const { findRecipe } = await import('../../recipes/registry.ts');
    const { describeKeys, formatKeys } = await import('../../recipes/config/describe.ts');
    const recipe = findRecipe(name);
    return `Keys of ${recipe.name}:\n${formatKeys(describeKeys(await recipe.schema()))}`;
  },
  run: async ([recipeName, overrides], options) => {
    const { findRecipe, recipeOfConfig } = await import('../../recipes/registry.ts');
    const { prepareRun } = await import('../../recipes/prepare.ts');
    const recipe = findRecipe(textOf(recipeName));
    const fallback = recipe.hasDefault ? recipe.configs[0] : undefined;
    const config = typeof options.config === 'string' ? options.config : fallback;
    if (config === undefined) {
      throw new CliUsageError(
        `run: ${recipe.name} needs a config. Try --config ${recipe.configs[0]}, or copy that with ` +
          `'retune cp ${recipe.configs[0]} my.yaml' and change it.`,
      );
    }
    const owner = recipeOfConfig(config);
    if (owner && owner !== recipe) {
      throw new CliUsageError(
        `run: ${config} is a config for ${owner.name}, not for ${recipe.name}. Write: retune run ${owner.name} --config ${config}`,
      );
    }
    const prepared = await prepareRun(recipe, config, listOf(overrides));
    const quiet = options.quiet === true;
    const outcome = await prepared.main({
      log: (line) => {
        if (!quiet) console.log(line);
      },
      progress: !quiet,
      ...(typeof options.traceMemory === 'string' && { traceMemory: options.traceMemory }),
    });
    return outcome.exitCode;
  },
};
