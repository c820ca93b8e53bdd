/**
 * Compares the `exports` of package.json with the folders, then builds and imports every entry the
 * way an installed package does (from dist). What must exist is read from the file system: an entry
 * may be missing only while its folder under src holds no source yet.
 *
 * Usage: node scripts/check-exports.ts
 */

import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { build } from './build.ts';
import { entryFolders } from './layers.ts';
import { isTestFile, listFiles, projectRoot, report } from './project-files.ts';

export interface Entry {
  /** `retune` or `retune/<folder>`. */
  readonly specifier: string;
  readonly source: string;
  readonly state: 'present' | 'missing' | 'not started';
}

/** Every public entry and whether its source exists under `root`. */
export function listEntries(root: string): Entry[] {
  const started = (folder: string) =>
    listFiles(root, `src/${folder}`, ['.ts']).some((file) => !isTestFile(file));
  const everyFolderStarted = entryFolders.every(started);
  const entry = (specifier: string, source: string, isStarted: boolean): Entry => {
    const absent = isStarted ? 'missing' : 'not started';
    return { specifier, source, state: existsSync(path.join(root, source)) ? 'present' : absent };
  };
  return [
    entry('retune', 'src/index.ts', everyFolderStarted),
    ...entryFolders.map((folder) =>
      entry(`retune/${folder}`, `src/${folder}/index.ts`, started(folder)),
    ),
  ];
}

/** Differences between the entries and the `exports` map of package.json under `root`. */
export function compareExports(root: string, entries: readonly Entry[]): string[] {
  const manifest = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));
  const expected: Record<string, unknown> = {};
  for (const { specifier, source } of entries) {
    const built = source.replace(/^src/, './dist').replace(/\.ts$/, '');
    expected[`.${specifier.slice('retune'.length)}`] = {
      'retune-source': `./${source}`,
      types: `${built}.d.ts`,
      default: `${built}.js`,
    };
  }
  expected['./package.json'] = './package.json';
  const names = new Set([...Object.keys(expected), ...Object.keys(manifest.exports)]);
  return [...names]
    .filter((name) => JSON.stringify(expected[name]) !== JSON.stringify(manifest.exports[name]))
    .map((name) => `package.json: exports["${name}"] should be ${JSON.stringify(expected[name])}`);
}

/** Imports one entry from dist in a process of its own; what went wrong, or undefined. */
function importEntry(specifier: string): string | undefined {
  const code = `const entry = await import('${specifier}');
    if (Object.keys(entry).length === 0) throw new Error('the entry exports nothing');`;
  const argv = ['--input-type=module', '--eval', code];
  const run = spawnSync(process.execPath, argv, { cwd: projectRoot, encoding: 'utf8' });
  return run.status === 0 ? undefined : `${specifier}: cannot be imported.\n${run.stderr}`;
}

if (import.meta.main) {
  const entries = listEntries(projectRoot);
  const problems = compareExports(projectRoot, entries);
  for (const { specifier, source, state } of entries) {
    if (state === 'not started') console.log(`exports: ${specifier} has no source yet`);
    if (state === 'missing') problems.push(`${source}: missing; the entry of ${specifier}`);
  }
  const present = entries.filter(({ state }) => state === 'present');
  if (present.length > 0) {
    await build(path.join(projectRoot, 'dist'));
    for (const { specifier, source } of present) {
      const types = source.replace(/^src/, 'dist').replace(/\.ts$/, '.d.ts');
      if (!existsSync(path.join(projectRoot, types))) problems.push(`${types}: not built`);
      const problem = importEntry(specifier);
      if (problem !== undefined) problems.push(problem);
    }
  }
  report('exports', problems, `${present.length} of ${entries.length} entries build and import`);
}
