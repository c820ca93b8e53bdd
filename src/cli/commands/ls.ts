/** `retune ls`: the recipes and the configs that come with them. */

import type { CliCommand } from '../command.ts';

export const ls: CliCommand = {
  name: 'ls',
  summary: 'list the recipes and their configs',
  arguments: [],
  options: [],
  examples: [{ command: 'retune ls', doc: 'names to use with run, cp and validate' }],
  run: async () => {
    const { recipes } = await import('../../recipes/registry.ts');
    const rows = recipes.flatMap((recipe) =>
      recipe.configs.map((config, i) => [i === 0 ? recipe.name : '', config] as const),
    );
    const width = Math.max(...rows.map(([name]) => name.length), 'RECIPE'.length) + 2;
    console.log(`${'RECIPE'.padEnd(width)}CONFIG`);
    for (const [name, config] of rows) console.log(`${name.padEnd(width)}${config}`);
    console.log('');
    for (const { name, summary } of recipes) console.log(`${name.padEnd(width)}${summary}`);
    return 0;
  },
};
