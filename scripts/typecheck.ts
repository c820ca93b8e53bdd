/** Type-checks each project of the repository with its own library set (viewer has the DOM). */

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { compilerPath, projectRoot } from './project-files.ts';

for (const project of ['tsconfig.json', 'viewer/tsconfig.json']) {
  if (!existsSync(path.join(projectRoot, project))) continue;
  const argv = [compilerPath(), '--noEmit', '-p', project];
  const { status } = spawnSync(process.execPath, argv, { cwd: projectRoot, stdio: 'inherit' });
  if (status !== 0) process.exitCode = 1;
  else console.log(`typecheck: ${project} is clean`);
}
