/**
 * Addresses of files relative to the module that names them, `new URL('<path>', import.meta.url)`:
 * a worker's code, a config, package.json. Bundling moves the module and leaves the address as
 * written, so the build asks here which modules must stay files of their own and has the
 * addresses put right.
 */

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Metafile } from 'esbuild';

/** What is needed of esbuild's metafile: which modules went into each output. */
interface BuiltFiles {
  readonly outputs: Record<string, Pick<Metafile['outputs'][string], 'inputs'>>;
}

/** The fixed part of the path is the second group; a template may go on after it. */
const pattern = /new URL\((['"`])(\.{1,2}(?:\/[^'"`$]*)?)(?=[^)]*,\s*import\.meta\.url)/g;

/** Modules that one of `sources` names by address; all relative to `root`. */
export function threadModules(root: string, sources: readonly string[]): string[] {
  const modules = sources.flatMap((file) =>
    addressesIn(root, file).map((address) => resolveFrom(file, address)),
  );
  return [...new Set(modules)].filter((file) => file.endsWith('.ts'));
}

/**
 * Rewrites the addresses in every output of a build of src into `outDir`. Throws when an address
 * means two things in one output, or nothing that was there before.
 */
export function rewriteAddresses(root: string, metafile: BuiltFiles, outDir: string): void {
  for (const [output, { inputs }] of Object.entries(metafile.outputs)) {
    const file = path.resolve(root, output);
    const targets = targetsOf(root, Object.keys(inputs));
    if (targets.size === 0) continue;
    const code = readFileSync(file, 'utf8');
    const rewritten = code.replace(pattern, (_whole, quote: string, address: string) => {
      const source = targets.get(address);
      if (source === undefined) throw new Error(`build: ${output} has an unknown ${address}.`);
      return `new URL(${quote}${relative(path.dirname(file), published(source, outDir), address)}`;
    });
    writeFileSync(file, rewritten);
  }
}

/** What the addresses in `inputs` mean: paths relative to `root`. */
function targetsOf(root: string, inputs: readonly string[]): Map<string, string> {
  const targets = new Map<string, string>();
  for (const input of inputs) {
    for (const address of addressesIn(root, input)) {
      const source = resolveFrom(input, address);
      if ((targets.get(address) ?? source) !== source) {
        throw new Error(`build: ${address} is ${source} and ${targets.get(address)} in one chunk.`);
      }
      if (!existsSync(path.join(root, source))) {
        throw new Error(`build: ${input} names ${source}, which does not exist.`);
      }
      targets.set(address, source);
    }
  }
  return targets;
}

/** Where a file of the project lies once built: below `outDir` when it comes from src. */
function published(source: string, outDir: string): string {
  const inside = path.posix.relative('src', source);
  if (inside.startsWith('..')) return path.join(path.dirname(outDir), source);
  return path.join(outDir, inside.replace(/\.ts$/, '.js'));
}

function relative(from: string, to: string, written: string): string {
  const short = path.relative(from, to).split(path.sep).join('/');
  const address = short.startsWith('..') ? short : `./${short}`;
  return written.endsWith('/') ? `${address}/` : address;
}

function resolveFrom(file: string, address: string): string {
  return path.posix.join(path.posix.dirname(file), address).replace(/\/$/, '');
}

function addressesIn(root: string, file: string): string[] {
  const code = readFileSync(path.join(root, file), 'utf8');
  return [...code.matchAll(pattern)].map((match) => match[2] ?? '');
}
