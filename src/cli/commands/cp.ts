/** `retune cp`: copies a config that comes with Retune, to be changed. */

import type { CliCommand } from '../command.ts';
import { textOf } from '../command.ts';

export const cp: CliCommand = {
  name: 'cp',
  summary: 'copy a config, to be changed',
  arguments: [
    { spec: '<name>', doc: 'a config that `retune ls` lists' },
    { spec: '[destination]', doc: 'a file or a folder (default: the current folder)' },
  ],
  options: [{ flags: '-f, --force', doc: 'replace the destination if it is there' }],
  examples: [
    { command: 'retune cp pretrain/byte_llama my.yaml', doc: 'then edit my.yaml' },
    { command: 'retune run pretrain --config my.yaml', doc: 'and run it' },
  ],
  run: async ([name, destination], options) => {
    const { copyConfig } = await import('../../recipes/copy-config.ts');
    const path = await copyConfig(textOf(name), textOf(destination) || '.', {
      replace: options.force === true,
    });
    console.log(`copied ${textOf(name)} to ${path}`);
    return 0;
  },
};
