/**
 * House rules that the linter cannot express:
 * - `no-plain-error`: src throws the classes of src/core/errors.ts, not Error, TypeError, RangeError.
 * - `no-op-name`: src/compile asks an op's traits, never its name. Op names are read from src/ops.
 * - `env-in-one-place`: only src/core/env.ts reads process.env.
 * - `ascii`: code outside tests is ASCII; write other characters as escapes.
 * - `plain-names`: no declared name or file contains a word that says nothing (manager, helper, ...).
 *
 * Usage: node scripts/check-source.ts [root]
 */

import path from 'node:path';
import { type Expression, type Node, Visitor } from 'oxc-parser';
import { isTestFile, lineAt, listFiles, projectRoot, report } from './project-files.ts';
import { readSource, type SourceFile } from './source-files.ts';

const plainErrors = new Set(['Error', 'TypeError', 'RangeError']);
const emptyWords = new Set(['manager', 'helper', 'helpers', 'util2', 'new', 'temp']);

/** Problems found under `root`, each `file:line: rule: text`. */
export function checkSource(root: string): { problems: string[]; files: number; ops: number } {
  const list = ['src', 'scripts', 'bench', 'examples', 'viewer']
    .flatMap((folder) => listFiles(root, folder, ['.ts']))
    .filter((file) => !isTestFile(file));
  const sources = list.map((file) => readSource(root, file));
  const opNames = namesOfOps(sources);
  const scalarNames = new Set(
    sources.filter((s) => s.file.startsWith('src/ir/')).flatMap((s) => stringLiterals(s)),
  );
  const problems = sources.flatMap((source) => {
    const { file } = source;
    const found = [...checkAscii(source), ...checkNames(source)];
    if (file.startsWith('src/')) found.push(...checkErrors(source), ...checkEnvironment(source));
    if (file.startsWith('src/compile/')) found.push(...checkOpNames(source, opNames, scalarNames));
    return found.map(({ at, text }) => `${file}:${lineAt(source.text, at)}: ${text}`);
  });
  return { problems, files: list.length, ops: opNames.size };
}

interface Finding {
  readonly at: number;
  readonly text: string;
}

function checkErrors(source: SourceFile): Finding[] {
  if (source.file.startsWith('src/core/')) return [];
  const found: Finding[] = [];
  new Visitor({
    ThrowStatement(node) {
      const thrown = node.argument;
      if (thrown.type !== 'NewExpression' && thrown.type !== 'CallExpression') return;
      const { callee } = thrown;
      if (callee.type !== 'Identifier' || !plainErrors.has(callee.name)) return;
      const text = `no-plain-error: throws ${callee.name}; use a class of src/core/errors.ts`;
      found.push({ at: node.start, text });
    },
  }).visit(source.parsed.program);
  return found;
}

function checkEnvironment(source: SourceFile): Finding[] {
  if (source.file === 'src/core/env.ts') return [];
  const found: Finding[] = [];
  new Visitor({
    MemberExpression(node) {
      if (memberName(node) !== 'env') return;
      const { object } = node;
      const isProcess =
        (object.type === 'Identifier' && object.name === 'process') ||
        memberName(object) === 'process';
      const text = 'env-in-one-place: reads process.env; add the variable to src/core/env.ts';
      if (isProcess) found.push({ at: node.start, text });
    },
  }).visit(source.parsed.program);
  return found;
}

function checkAscii(source: SourceFile): Finding[] {
  const at = source.text.search(/[^\t\n\r\x20-\x7e]/);
  if (at === -1) return [];
  const code = source.text.codePointAt(at)?.toString(16).padStart(4, '0');
  return [{ at, text: `ascii: character U+${code}; write it as an escape` }];
}

function checkNames(source: SourceFile): Finding[] {
  const found: Finding[] = [];
  const check = (name: string, at: number) => {
    const word = wordsOf(name).find((part) => emptyWords.has(part));
    if (word !== undefined) {
      found.push({ at, text: `plain-names: '${name}' contains '${word}'; say what it is` });
    }
  };
  const checkPattern = (node: Node) => {
    if (node.type === 'Identifier') check(node.name, node.start);
  };
  check(path.posix.basename(source.file, '.ts'), 0);
  new Visitor({
    VariableDeclarator: (node) => checkPattern(node.id),
    FunctionDeclaration: (node) => node.id && check(node.id.name, node.id.start),
    ClassDeclaration: (node) => node.id && check(node.id.name, node.id.start),
    TSTypeAliasDeclaration: (node) => check(node.id.name, node.id.start),
    TSInterfaceDeclaration: (node) => check(node.id.name, node.id.start),
    MethodDefinition: (node) => checkPattern(node.key),
    PropertyDefinition: (node) => checkPattern(node.key),
  }).visit(source.parsed.program);
  return found;
}

/** `findNewTemp` and `find-new-temp` -> find, new, temp. */
function wordsOf(name: string): string[] {
  return name
    .replace(/([a-z0-9])([A-Z])/g, '$1 $2')
    .toLowerCase()
    .split(/[^a-z0-9]+/);
}

/**
 * Names given to op records: `name: '...'` of an object passed to a call, or the first argument of
 * a call that initializes a constant of the module (`const exp = pointwise('exp', ...)`).
 */
function namesOfOps(sources: readonly SourceFile[]): Set<string> {
  const names = new Set<string>();
  for (const source of sources.filter(({ file }) => file.startsWith('src/ops/'))) {
    new Visitor({
      CallExpression(node) {
        for (const argument of node.arguments) {
          if (argument.type !== 'ObjectExpression') continue;
          for (const property of argument.properties) {
            if (property.type !== 'Property' || property.key.type !== 'Identifier') continue;
            if (property.key.name !== 'name') continue;
            const name = stringValue(property.value);
            if (name !== undefined) names.add(name);
          }
        }
      },
      VariableDeclarator(node) {
        if (node.init?.type !== 'CallExpression') return;
        const first = node.init.arguments[0];
        const name = first && stringValue(first);
        if (name !== undefined && /^[a-z][A-Za-z0-9]*$/.test(name)) names.add(name);
      },
    }).visit(source.parsed.program);
  }
  return names;
}

/**
 * A literal that is an op's name, unless the scalar IR uses the same word ('add' is an op and a
 * scalar operation); such a word is reported only where it is compared with a `.name`.
 */
function checkOpNames(
  source: SourceFile,
  opNames: ReadonlySet<string>,
  scalarNames: ReadonlySet<string>,
): Finding[] {
  const found = new Map<number, Finding>();
  const add = (node: Node) => {
    const name = stringValue(node);
    if (name === undefined || !opNames.has(name)) return;
    const text = `no-op-name: '${name}' is the name of an op; ask its traits instead`;
    found.set(node.start, { at: node.start, text });
  };
  new Visitor({
    Literal(node) {
      if (typeof node.value === 'string' && !scalarNames.has(node.value)) add(node);
    },
    BinaryExpression(node) {
      if (!/^[!=]==?$/.test(node.operator)) return;
      if (memberName(node.left) === 'name') add(node.right);
      if (memberName(node.right) === 'name') add(node.left);
    },
    SwitchStatement(node) {
      if (memberName(node.discriminant) !== 'name') return;
      for (const branch of node.cases) if (branch.test) add(branch.test);
    },
  }).visit(source.parsed.program);
  return [...found.values()];
}

function stringLiterals(source: SourceFile): string[] {
  const values: string[] = [];
  new Visitor({
    Literal(node) {
      if (typeof node.value === 'string') values.push(node.value);
    },
  }).visit(source.parsed.program);
  return values;
}

function stringValue(node: Node): string | undefined {
  return node.type === 'Literal' && typeof node.value === 'string' ? node.value : undefined;
}

/** `name` for `a.name` and `a?.name`. */
function memberName(node: Node | Expression): string | undefined {
  if (node.type === 'ChainExpression') return memberName(node.expression);
  if (node.type !== 'MemberExpression' || node.computed) return undefined;
  return node.property.type === 'Identifier' ? node.property.name : undefined;
}

if (import.meta.main) {
  const { problems, files, ops } = checkSource(path.resolve(process.argv[2] ?? projectRoot));
  report('source rules', problems, `${files} files, ${ops} op names`);
}
