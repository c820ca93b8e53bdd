/**
 * Makes what the package publishes, from everything under src: JavaScript bundled for the entries,
 * declarations file by file, and the other files of src (configs, templates) beside them.
 *
 * A module costs Node about a millisecond to find and link, and src has hundreds; bundled, the
 * library is imported in a third of the time. Code that several entries need, and code that is
 * imported on demand, goes to dist/chunks.
 *
 * Usage: node scripts/build.ts [--out-dir <folder>]
 */

import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { build as bundle } from 'esbuild';
import { rewriteAddresses, threadModules } from './addresses.ts';
import { entryFolders } from './layers.ts';
import { compilerPath, isTestFile, listFiles, projectRoot } from './project-files.ts';

/** Builds into `outDir`, which is emptied first. Throws with the compiler's output when it fails. */
export async function build(outDir: string): Promise<{ modules: number; copied: number }> {
  rmSync(outDir, { recursive: true, force: true });
  emitDeclarations(outDir);
  const modules = await emitModules(outDir);
  return { modules, copied: copyAssets(outDir) };
}

function emitDeclarations(outDir: string): void {
  const project = path.join(projectRoot, 'tsconfig.build.json');
  const argv = [compilerPath(), '-p', project, '--outDir', outDir];
  const run = spawnSync(process.execPath, argv, { encoding: 'utf8', cwd: projectRoot });
  if (run.status !== 0) throw new Error(`build: tsc failed.\n${run.stdout}${run.stderr}`);
}

/** Bundles the entries, the command, and what runs in threads of its own; returns the file count. */
async function emitModules(outDir: string): Promise<number> {
  const sources = listFiles(projectRoot, 'src', ['.ts']).filter((file) => !isTestFile(file));
  const { metafile } = await bundle({
    absWorkingDir: projectRoot,
    entryPoints: [
      'src/index.ts',
      ...entryFolders.map((folder) => `src/${folder}/index.ts`),
      'src/cli/main.ts',
      ...threadModules(projectRoot, sources),
    ],
    outdir: outDir,
    outbase: 'src',
    chunkNames: 'chunks/[name]-[hash]',
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'neutral',
    target: 'es2024',
    packages: 'external',
    metafile: true,
    logLevel: 'silent',
  });
  rewriteAddresses(projectRoot, metafile, outDir);
  return Object.keys(metafile.outputs).length;
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
    const { modules, copied } = await build(path.resolve(projectRoot, values['out-dir']));
    console.log(`build: ${modules} modules, ${copied} other files -> ${values['out-dir']}`);
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  }
}
