/**
 * Checks the Markdown of the repository: relative links and anchors lead somewhere, `npm run` names
 * a script that exists, every dependency has its row in docs/decisions/dependencies.md, generated pages
 * are what their source gives, and TypeScript fences type-check against src.
 * A fence that is not a whole module is written as ```typescript and is not checked; ```ts is.
 *
 * Usage: node scripts/check-docs.ts
 */

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { checkGenerated, generatedPages } from './generate-docs.ts';
import { compilerPath, lineAt, listFiles, projectRoot, report } from './project-files.ts';

const dependencyPage = 'docs/decisions/dependencies.md';

export interface Manifest {
  readonly scripts?: Record<string, string>;
  readonly dependencies?: Record<string, string>;
  readonly optionalDependencies?: Record<string, string>;
  readonly devDependencies?: Record<string, string>;
}

/** Markdown files that people read, relative to `root`. */
export function listPages(root: string): string[] {
  const top = ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'GLOSSARY.md'];
  const nested = ['docs', 'src', 'bench', 'examples', 'viewer', 'test'];
  return [
    ...top.filter((page) => existsSync(path.join(root, page))),
    ...nested.flatMap((folder) => listFiles(root, folder, ['.md'])),
  ];
}

/** Broken links, anchors and script names of one page. */
export function checkPage(root: string, page: string, scripts: ReadonlySet<string>): string[] {
  const text = readFileSync(path.join(root, page), 'utf8');
  const prose = blankFences(text);
  const problems: string[] = [];
  const add = (at: number, problem: string) => {
    problems.push(`${page}:${lineAt(text, at)}: ${problem}`);
  };
  for (const match of prose.matchAll(/\]\(([^)\s]+)\)/g)) {
    const target = match[1] ?? '';
    if (/^[a-z]+:/.test(target)) continue;
    const [file = '', anchor] = target.split('#');
    const linked = file === '' ? page : path.posix.join(path.posix.dirname(page), file);
    const absolute = path.join(root, linked);
    if (!existsSync(absolute)) add(match.index, `link to ${target}, which does not exist`);
    else if (anchor !== undefined && linked.endsWith('.md')) {
      const known = anchorsOf(readFileSync(absolute, 'utf8'));
      if (!known.has(anchor)) add(match.index, `link to ${target}: no such heading`);
    }
  }
  for (const match of text.matchAll(/\bnpm run ([\w:-]+)/g)) {
    const name = match[1] ?? '';
    if (!scripts.has(name)) add(match.index, `npm run ${name}: package.json has no such script`);
  }
  return problems;
}

/** Packages of package.json without a row in the table of dependencies, and rows without a package. */
export function checkDependencies(manifest: Manifest, page: string): string[] {
  const kinds = ['dependencies', 'optionalDependencies', 'devDependencies'] as const;
  const declared = new Set(kinds.flatMap((kind) => Object.keys(manifest[kind] ?? {})));
  const rows = new Set([...page.matchAll(/^\| `([^`]+)`/gm)].map((match) => match[1] ?? ''));
  return [
    ...[...declared.difference(rows)].map((name) => `${dependencyPage}: ${name} has no row`),
    ...[...rows.difference(declared)].map((name) => `${dependencyPage}: ${name} is not declared`),
  ];
}

/** Same length and lines, with fenced and inline code blanked. */
function blankFences(text: string): string {
  const blank = (code: string) => code.replace(/[^\n]/g, ' ');
  return text.replace(/^```[\s\S]*?^```/gm, blank).replace(/`[^`\n]*`/g, blank);
}

/** Heading anchors by GitHub's rule. */
function anchorsOf(text: string): Set<string> {
  const headings = text.replace(/^```[\s\S]*?^```/gm, '').matchAll(/^#+ +(.+)$/gm);
  return new Set(
    [...headings].map((match) =>
      (match[1] ?? '')
        .toLowerCase()
        .replace(/[^\p{L}\p{N} _-]/gu, '')
        .trim()
        .replace(/ /g, '-'),
    ),
  );
}

/** The checked fences of a page; blank lines before the code keep the page's line numbers. */
export function fencesOf(text: string): string[] {
  return [...text.matchAll(/^```ts\n([\s\S]*?)^```/gm)].map((match) => {
    const line = lineAt(text, match.index);
    return `${'\n'.repeat(line)}${match[1] ?? ''}\nexport {};\n`;
  });
}

/** Points the relative imports of a page's code at the same files from another folder. */
function moveImports(code: string, page: string, folder: string): string {
  const pageFolder = path.dirname(path.join(projectRoot, page));
  return code.replace(/(\bfrom |\bimport )'(\.{1,2}\/[^']+)'/g, (_, before, target) => {
    const moved = path.relative(folder, path.join(pageFolder, target)).split(path.sep).join('/');
    return `${before}'${moved}'`;
  });
}

/** Writes the fences out as modules and type-checks them; the compiler's lines, named by page. */
function checkFences(pages: readonly string[]): { problems: string[]; fences: number } {
  const folder = path.join(projectRoot, '.cache/docs');
  rmSync(folder, { recursive: true, force: true });
  const origin = new Map<string, string>();
  for (const page of pages) {
    const fences = fencesOf(readFileSync(path.join(projectRoot, page), 'utf8'));
    for (const [index, code] of fences.entries()) {
      const name = `${page.replace(/[^A-Za-z0-9]+/g, '-')}-${index}.ts`;
      mkdirSync(folder, { recursive: true });
      writeFileSync(path.join(folder, name), moveImports(code, page, folder));
      origin.set(name, page);
    }
  }
  if (origin.size === 0) return { problems: [], fences: 0 };
  const config = {
    extends: '../../tsconfig.json',
    compilerOptions: { noUnusedLocals: false },
    include: ['*.ts', '../../src/types/*.d.ts'],
  };
  writeFileSync(path.join(folder, 'tsconfig.json'), JSON.stringify(config));
  const run = spawnSync(process.execPath, [compilerPath(), '-p', folder, '--pretty', 'false'], {
    cwd: folder,
    encoding: 'utf8',
  });
  if (run.status === 0) return { problems: [], fences: origin.size };
  const lines = `${run.stdout}${run.stderr}`.trim().split('\n');
  const named = lines.map((line) =>
    line.replace(/^([\w-]+\.ts)\((\d+),\d+\)/, (_, name, at) => `${origin.get(name)}:${at}`),
  );
  return { problems: named, fences: origin.size };
}

if (import.meta.main) {
  const read = (file: string) => readFileSync(path.join(projectRoot, file), 'utf8');
  const manifest: Manifest = JSON.parse(read('package.json'));
  const scripts = new Set(Object.keys(manifest.scripts ?? {}));
  const pages = listPages(projectRoot);
  const { problems, fences } = checkFences(pages);
  problems.push(...checkDependencies(manifest, read(dependencyPage)));
  problems.push(...checkGenerated(projectRoot, generatedPages));
  problems.unshift(...pages.flatMap((page) => checkPage(projectRoot, page, scripts)));
  report('docs', problems, `${pages.length} pages, ${fences} checked fences`);
}
