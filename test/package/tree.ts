import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

/** Runs `check` on a folder that holds the given files and nothing else, then removes it. */
export function inTree<T>(files: Record<string, string>, check: (root: string) => T): T {
  const root = mkdtempSync(path.join(tmpdir(), 'retune-tree-'));
  try {
    for (const [file, text] of Object.entries(files)) {
      mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
      writeFileSync(path.join(root, file), text);
    }
    return check(root);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}
