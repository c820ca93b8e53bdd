/**
 * Checks who imports whom: layer order, cycles (type-only imports included), browser-safe folders,
 * public entry files, the viewer, the examples, and that every package that src imports is declared.
 *
 * Usage: node scripts/check-layers.ts [root]
 */

import { existsSync, readFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import path from 'node:path';
import { entryFolders, layerOf, levelZeroFile, portableFolders } from './layers.ts';
import { isTestFile, listFiles, projectRoot, report } from './project-files.ts';
import { type ImportSite, importsOf, readSource } from './source-files.ts';

interface Edge extends ImportSite {
  readonly from: string;
  /** The imported file relative to the root; undefined for a package or a built-in. */
  readonly to: string | undefined;
}

/** Problems found under `root`, each `file:line: text`. */
export function checkLayers(root: string): { problems: string[]; files: number; edges: number } {
  const files = ['src', 'viewer', 'examples'].flatMap((dir) => listFiles(root, dir, ['.ts']));
  const edges = files.flatMap((file) => edgesOf(root, file));
  const declared = declaredPackages(root);
  const problems = edges.flatMap((edge) => {
    const text = brokenRule(root, edge, declared);
    return text === undefined ? [] : [`${edge.from}:${edge.line}: ${text}`];
  });
  for (const file of files) {
    const folder = folderOf(file);
    if (folder !== undefined && folder !== 'types' && layerOf(folder) === undefined) {
      problems.push(`${file}:1: folder src/${folder} has no place in scripts/layers.ts`);
    }
  }
  for (const cycle of findCycles(files, edges)) {
    problems.push(`${cycle[0]}:1: import cycle: ${[...cycle, cycle[0]].join(' -> ')}`);
  }
  return { problems: [...new Set(problems)], files: files.length, edges: edges.length };
}

function edgesOf(root: string, file: string): Edge[] {
  return importsOf(readSource(root, file)).map((site) => ({
    ...site,
    from: file,
    to: site.specifier.startsWith('.')
      ? path.posix.join(path.posix.dirname(file), site.specifier)
      : undefined,
  }));
}

/** `core` for src/core/shape.ts; undefined for src/index.ts and files outside src. */
function folderOf(file: string): string | undefined {
  return /^src\/([^/]+)\//.exec(file)?.[1];
}

function declaredPackages(root: string): ReadonlySet<string> {
  const manifest = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));
  return new Set([
    ...Object.keys(manifest.dependencies ?? {}),
    ...Object.keys(manifest.optionalDependencies ?? {}),
    ...Object.keys(manifest.peerDependencies ?? {}),
  ]);
}

/** What is wrong with one import; undefined when nothing is. */
function brokenRule(root: string, edge: Edge, declared: ReadonlySet<string>): string | undefined {
  const { from, to, specifier } = edge;
  if (to === undefined) return brokenPackageRule(edge, declared);
  if (!existsSync(path.join(root, to))) return `imports ${specifier}, which does not exist`;
  if (from.startsWith('examples/')) {
    return to.startsWith('examples/') ? undefined : `an example imports 'retune', not ${specifier}`;
  }
  if (from.startsWith('viewer/')) {
    const allowed = to.startsWith('viewer/') || to === levelZeroFile;
    return allowed ? undefined : `the viewer may import ${levelZeroFile} only, not ${to}`;
  }
  if (from.startsWith('src/') && !to.startsWith('src/') && !isTestFile(from)) {
    return `src may not import ${to}, which is not shipped`;
  }
  if (isTestFile(from)) return undefined;
  if (isTestFile(to)) return `imports the test file ${to}`;
  // The root entry is the sum of the folder entries.
  if (isEntry(to) && from !== 'src/index.ts')
    return `imports the public entry ${to}; import the file that defines it`;
  if (to === levelZeroFile) return undefined;
  if (from === levelZeroFile) return `${levelZeroFile} imports nothing, not ${to}`;
  return brokenOrder(from, to);
}

function brokenOrder(from: string, to: string): string | undefined {
  const [source, target] = [folderOf(from), folderOf(to)];
  if (source === undefined || source === target) return undefined;
  if (target === undefined) return `imports ${to}`;
  const [above, below] = [layerOf(target), layerOf(source)];
  if (above === undefined || below === undefined) return undefined;
  if (above < below) return undefined;
  const reason = above === below ? 'they are of one layer' : `${target} is the higher layer`;
  return `${source} may not import ${target} (${to}): ${reason}`;
}

function brokenPackageRule(edge: Edge, declared: ReadonlySet<string>): string | undefined {
  const { from, specifier, kind } = edge;
  if (isTestFile(from)) return undefined;
  const isBuiltin = specifier.startsWith('node:') || builtinModules.includes(specifier);
  const folder = folderOf(from);
  if (from.startsWith('viewer/')) return `the viewer may not import ${specifier}`;
  if (isBuiltin) {
    const closed = folder !== undefined && portableFolders.includes(folder);
    return closed && kind === 'static'
      ? `${folder} runs in browsers and may not import ${specifier}`
      : undefined;
  }
  if (!from.startsWith('src/')) return undefined;
  const name = specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
  if (name === 'retune') return `imports the package itself; use a relative path`;
  if (declared.has(name)) return undefined;
  return `${name} is not among the dependencies or optionalDependencies of package.json`;
}

function isEntry(file: string): boolean {
  return (
    file === 'src/index.ts' || entryFolders.some((folder) => file === `src/${folder}/index.ts`)
  );
}

/** Strongly connected groups of more than one file (or a file importing itself), Tarjan 1972. */
function findCycles(files: readonly string[], edges: readonly Edge[]): string[][] {
  const next = new Map<string, string[]>(files.map((file) => [file, []]));
  for (const { from, to } of edges) if (to !== undefined && next.has(to)) next.get(from)?.push(to);
  const order = new Map<string, number>();
  const low = new Map<string, number>();
  const stack: string[] = [];
  const onStack = new Set<string>();
  const cycles: string[][] = [];

  const visit = (file: string): number => {
    const index = order.size;
    let lowest = index;
    order.set(file, index);
    stack.push(file);
    onStack.add(file);
    for (const target of next.get(file) ?? []) {
      const seen = order.get(target);
      if (seen === undefined) lowest = Math.min(lowest, visit(target));
      else if (onStack.has(target)) lowest = Math.min(lowest, seen);
    }
    low.set(file, lowest);
    if (lowest === index) {
      const group = stack.splice(stack.indexOf(file));
      for (const member of group) onStack.delete(member);
      if (group.length > 1 || next.get(file)?.includes(file)) cycles.push(walkCycle(group, next));
    }
    return lowest;
  };
  for (const file of files) if (!order.has(file)) visit(file);
  return cycles;
}

/** One closed path through a strongly connected group, shortest from its first file. */
function walkCycle(group: readonly string[], next: ReadonlyMap<string, string[]>): string[] {
  const start = group[0] ?? '';
  const members = new Set(group);
  const cameFrom = new Map<string, string>();
  const queue = [start];
  for (const file of queue) {
    for (const target of next.get(file) ?? []) {
      if (target === start) {
        const cycle = [file];
        for (let at = file; at !== start; ) {
          at = cameFrom.get(at) ?? start;
          cycle.unshift(at);
        }
        return cycle;
      }
      if (members.has(target) && !cameFrom.has(target)) {
        cameFrom.set(target, file);
        queue.push(target);
      }
    }
  }
  return [start];
}

if (import.meta.main) {
  const { problems, files, edges } = checkLayers(path.resolve(process.argv[2] ?? projectRoot));
  report('layers', problems, `${files} files, ${edges} imports, no cycle, order kept`);
}
