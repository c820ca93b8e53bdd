/**
 * Runs every file of examples/ in a process of its own and fails if one fails or takes too long.
 * Examples import 'retune' like any user; the `retune-source` condition points that at src.
 *
 * Usage: node scripts/run-examples.ts [part of a file name]
 */

import { spawnSync } from 'node:child_process';
import { listFiles, projectRoot, report } from './project-files.ts';

const limitSeconds = 180;

const wanted = process.argv[2] ?? '';
const files = listFiles(projectRoot, 'examples', ['.ts']).filter((file) => file.includes(wanted));
const problems: string[] = [];
for (const file of files) {
  const start = performance.now();
  const { status, signal } = spawnSync(process.execPath, ['--conditions=retune-source', file], {
    cwd: projectRoot,
    stdio: ['ignore', 'inherit', 'inherit'],
    timeout: limitSeconds * 1000,
  });
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`${file}: ${status === 0 ? 'ok' : 'failed'} in ${seconds} s`);
  if (status !== 0) problems.push(`${file}: ended with ${signal ?? `exit code ${status}`}`);
}
report('examples', problems, files.length === 0 ? 'there are none' : `${files.length} ran`);
