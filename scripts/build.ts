/**
 * Emits JavaScript and declarations for everything under src into dist, and copies the other files
 * of src (configs, templates) beside them.
 *
 * `tsc` rewrites `.ts` in imports but not in worker addresses, so `new URL('./worker.ts',
 * import.meta.url)` is rewritten here.
 *
 * Usage: node scripts/build.ts [--out-dir <folder>]
 */

import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { compilerPath, listFiles, projectRoot } from './project-files.ts';

/** Builds into `outDir`, which is emptied first. Throws with the compiler's output when it fails. */
export function build(outDir: string): { modules: number; copied: number } {
  rmSync(outDir, { recursive: true, force: true });
  const argv = [
    compilerPath(),
    '-p',
    path.join(projectRoot, 'tsconfig.build.json'),
    '--outDir',
    outDir,
  ];
  const run = spawnSync(process.execPath, argv, { encoding: 'utf8', cwd: projectRoot });
  if (run.status !== 0) throw new Error(`build: tsc failed.\n${run.stdout}${run.stderr}`);
  const modules = listBuilt(outDir, '.js');
  for (const file of modules) rewriteUrls(path.join(outDir, file));
  return { modules: modules.length, copied: copyAssets(outDir) };
}

function listBuilt(outDir: string, extension: string): string[] {
  return listFiles(outDir, '.', [extension]);
}

function rewriteUrls(file: string): void {
  const text = readFileSync(file, 'utf8');
  const pattern = /new URL\((['"])(\.{1,2}\/[^'"]+)\.ts\1(?=,\s*import\.meta\.url)/g;
  const rewritten = text.replace(pattern, (whole, quote: string, target: string) => {
    const built = path.join(path.dirname(file), `${target}.js`);
    return existsSync(built) ? `new URL(${quote}${target}.js${quote}` : whole;
  });
  if (rewritten !== text) writeFileSync(file, rewritten);
}

function copyAssets(outDir: string): number {
  const assets = listFiles(path.join(projectRoot, 'src'), '.', ['']).filter(
    (file) => !/\.(ts|md)$/.test(file),
  );
  for (const file of assets) {
    const target = path.join(outDir, file);
    mkdirSync(path.dirname(target), { recursive: true });
    copyFileSync(path.join(projectRoot, 'src', file), target);
  }
  return assets.length;
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { 'out-dir': { type: 'string', default: 'dist' } } });
  try {
    const { modules, copied } = build(path.resolve(projectRoot, values['out-dir']));
    console.log(`build: ${modules} modules, ${copied} other files -> ${values['out-dir']}`);
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  }
}
