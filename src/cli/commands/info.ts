/** `retune info`: what Retune runs on here. */

import type { CliCommand } from '../command.ts';

export const info: CliCommand = {
  name: 'info',
  summary: 'show backend, threads, matrix multiply and memory',
  arguments: [],
  options: [],
  examples: [
    { command: 'retune info', doc: 'what would be used now' },
    { command: 'RETUNE_MATMUL=wasm retune info', doc: 'the same without the BLAS library' },
  ],
  run: async () => {
    const { systemFacts } = await import('../../recipes/system-facts.ts');
    const { envDescriptions } = await import('../../core/env.ts');
    const facts = systemFacts();
    const width = Math.max(...facts.map(([name]) => name.length)) + 2;
    for (const [name, value] of facts) console.log(`${name.padEnd(width)}${value}`);
    console.log('\nEnvironment variables:');
    for (const [name, doc] of Object.entries(envDescriptions)) {
      console.log(`  ${name}\n      ${doc}`);
    }
    return 0;
  },
};
