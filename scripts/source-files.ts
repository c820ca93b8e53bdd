/** Parsed modules of the project and the imports of each. */

import { readFileSync } from 'node:fs';
import path from 'node:path';
import { type ParseResult, parseSync, Visitor } from 'oxc-parser';
import { lineAt } from './project-files.ts';

export interface ImportSite {
  readonly specifier: string;
  readonly line: number;
  /** `dynamic` is `import(...)` in code; type-only imports count as static. */
  readonly kind: 'static' | 'dynamic';
}

export interface SourceFile {
  /** Relative to the root, with forward slashes. */
  readonly file: string;
  readonly text: string;
  readonly parsed: ParseResult;
}

/** Parses one file; a syntax error is thrown with the file's name. */
export function readSource(root: string, file: string): SourceFile {
  const text = readFileSync(path.join(root, file), 'utf8');
  const parsed = parseSync(file, text);
  const first = parsed.errors[0];
  if (first !== undefined) throw new Error(`${file}: ${first.message}`);
  return { file, text, parsed };
}

/** Every import of a module: static, re-export, type-only, `import()` in code and in types. */
export function importsOf(source: SourceFile): ImportSite[] {
  const { text, parsed } = source;
  const sites: ImportSite[] = [];
  const add = (specifier: string, start: number, kind: ImportSite['kind']) => {
    sites.push({ specifier, line: lineAt(text, start), kind });
  };
  for (const item of parsed.module.staticImports) {
    add(item.moduleRequest.value, item.start, 'static');
  }
  for (const item of parsed.module.staticExports) {
    const request = item.entries.find((entry) => entry.moduleRequest !== null)?.moduleRequest;
    if (request) add(request.value, item.start, 'static');
  }
  new Visitor({
    ImportExpression(node) {
      if (node.source.type === 'Literal' && typeof node.source.value === 'string') {
        add(node.source.value, node.start, 'dynamic');
      }
    },
    TSImportType(node) {
      add(node.source.value, node.start, 'static');
    },
  }).visit(parsed.program);
  return sites;
}
