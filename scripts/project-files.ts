/** The project's own files: lists, lines, and the way every check reports. */

import { existsSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const projectRoot = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

/** Path of the TypeScript compiler's command, to be run with `process.execPath`. */
export function compilerPath(): string {
  const manifest = createRequire(import.meta.url).resolve('typescript/package.json');
  return path.join(path.dirname(manifest), 'bin/tsc');
}

/** Files under `folder` (relative to `root`) with one of the extensions, sorted; [] when absent. */
export function listFiles(root: string, folder: string, extensions: readonly string[]): string[] {
  const base = path.join(root, folder);
  if (!existsSync(base)) return [];
  return readdirSync(base, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && extensions.some((ext) => entry.name.endsWith(ext)))
    .map((entry) => path.relative(root, path.join(entry.parentPath, entry.name)))
    .map((file) => file.split(path.sep).join('/'))
    .filter((file) => !/(^|\/)(node_modules|dist)\//.test(file))
    .sort();
}

export function lineAt(text: string, offset: number): number {
  return text.slice(0, offset).split('\n').length;
}

export function isTestFile(file: string): boolean {
  return /\.(test|nightly|bench)\.ts$/.test(file);
}

/** Prints the problems and sets the exit code, or prints what was checked. */
export function report(title: string, problems: readonly string[], summary: string): void {
  if (problems.length === 0) {
    console.log(`${title}: ${summary}`);
    return;
  }
  for (const problem of problems) console.error(problem);
  console.error(`${title}: ${problems.length} problem${problems.length === 1 ? '' : 's'}`);
  process.exitCode = 1;
}
