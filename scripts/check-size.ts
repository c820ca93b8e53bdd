/** Counts lines per file: warns above 400, fails above 600. Usage: node scripts/check-size.ts [root] */

import { readFileSync } from 'node:fs';
import path from 'node:path';
import { listFiles, projectRoot, report } from './project-files.ts';

const warnAbove = 400;
const failAbove = 600;
const folders = ['src', 'viewer', 'bench', 'test', 'examples', 'scripts', 'bin'];
const extensions = ['.ts', '.mts', '.js', '.mjs', '.css', '.html', '.py', '.wgsl'];

export interface SizeResult {
  readonly problems: string[];
  readonly warnings: string[];
  readonly files: number;
  readonly lines: number;
  readonly median: number;
}

export function checkSize(root: string): SizeResult {
  const sizes = folders
    .flatMap((folder) => listFiles(root, folder, extensions))
    .map((file) => ({ file, lines: countLines(readFileSync(path.join(root, file), 'utf8')) }));
  const sorted = sizes.map((item) => item.lines).sort((a, b) => a - b);
  const text = ({ file, lines }: { file: string; lines: number }, limit: number) =>
    `${file}: ${lines} lines, above ${limit}`;
  return {
    problems: sizes.filter((s) => s.lines > failAbove).map((s) => text(s, failAbove)),
    warnings: sizes
      .filter((s) => s.lines > warnAbove && s.lines <= failAbove)
      .map((s) => text(s, warnAbove)),
    files: sizes.length,
    lines: sorted.reduce((sum, lines) => sum + lines, 0),
    median: sorted[Math.floor(sorted.length / 2)] ?? 0,
  };
}

function countLines(text: string): number {
  return text.split('\n').length - (text.endsWith('\n') ? 1 : 0);
}

if (import.meta.main) {
  const result = checkSize(path.resolve(process.argv[2] ?? projectRoot));
  for (const warning of result.warnings) console.warn(`warning: ${warning}`);
  const { files, lines, median } = result;
  report('sizes', result.problems, `${files} files, ${lines} lines, median ${median}`);
}
