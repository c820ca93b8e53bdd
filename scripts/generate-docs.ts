/**
 * Writes the pages of the documentation that are made from code. check-docs.ts fails when one of them is
 * not what this writes.
 *
 * Usage: node scripts/generate-docs.ts
 */

import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { activationMemoryPage } from './activation-memory-page.ts';
import { conformancePage } from './conformance-page.ts';
import { projectRoot } from './project-files.ts';

export interface GeneratedPage {
  /** Relative to the root of the repository. */
  readonly file: string;
  readonly text: () => string;
}

export const generatedPages: readonly GeneratedPage[] = [
  { file: 'docs/activation-memory.md', text: activationMemoryPage },
  { file: 'docs/conformance.md', text: conformancePage },
];

/** Pages that are missing or stale, as problems. */
export function checkGenerated(root: string, pages: readonly GeneratedPage[]): string[] {
  return pages
    .filter(({ file, text }) => readOrEmpty(path.join(root, file)) !== text())
    .map(({ file }) => `${file}: is not what its source gives. Run npm run docs:generate`);
}

function readOrEmpty(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

if (import.meta.main) {
  for (const { file, text } of generatedPages) {
    writeFileSync(path.join(projectRoot, file), text());
    console.log(file);
  }
}
