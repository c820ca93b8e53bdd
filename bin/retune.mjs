#!/usr/bin/env node
/**
 * The `retune` command. In a checkout it runs src directly, so a stale dist is never used; the
 * published package holds dist only.
 */

import { existsSync } from 'node:fs';
import module from 'node:module';
import { fileURLToPath } from 'node:url';
import { becomeChild, findBundledNode, isTooOld, requiredMajor } from './launch.mjs';

const argv = process.argv.slice(2);

if (isTooOld(process.versions.node)) {
  const binary = findBundledNode(import.meta.url);
  if (binary === undefined) {
    console.error(
      `retune: needs Node ${requiredMajor} or newer (got ${process.versions.node}). ` +
        `Install it, or add it to this project with: npm install node@${requiredMajor}`,
    );
    process.exitCode = 1;
  } else {
    becomeChild(binary, [fileURLToPath(import.meta.url), ...argv]);
  }
} else {
  module.enableCompileCache?.();
  const source = new URL('../src/cli/main.ts', import.meta.url);
  const built = new URL('../dist/cli/main.js', import.meta.url);
  const { main } = await import((existsSync(source) ? source : built).href);
  const code = await main(argv);
  if (typeof code === 'number') process.exitCode = code;
}
