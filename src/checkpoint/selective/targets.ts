/**
 * What a declared policy is about: ops by name or class, modules by a pattern over their paths, values by
 * the name that checkpointName gave them. Of several targets that fit a value, the most specific counts.
 */

import { ConfigError, nearest } from '../../core/errors.ts';
import type { OpClass } from '../../ir/op.ts';
import { allOps } from '../../ops/registry.ts';
import type { PolicyContext } from './policy.ts';

export interface Target {
  readonly kind: 'op' | 'module' | 'name';
  readonly text: string;
  /** Higher counts before lower: a class, an op, a module (deeper ones more), a name. */
  readonly rank: number;
  readonly matches: (context: PolicyContext) => boolean;
  /** For modules: whether a path is, or lies below, one that the pattern means. */
  readonly matchesPath?: (path: string) => boolean;
}

/** Words for whole classes of ops, beside the classes' own names. */
const aliases: Readonly<Record<string, OpClass>> = {
  attention: 'attention',
  dropout: 'random',
  elementwise: 'elementwise',
  index: 'index',
  matmul: 'matmul',
  norm: 'normalization',
  normalization: 'normalization',
  random: 'random',
  reduction: 'reduction',
  sdpa: 'attention',
};

/** Words for ops that users know under another name. */
const synonyms: Readonly<Record<string, string>> = { topk: 'sort', mm: 'matmul' };

const opNames: ReadonlySet<string> = new Set(allOps.map((op) => op.name));

/** Every word that means an op. */
export const opWords: readonly string[] = [
  ...new Set([...Object.keys(aliases), ...Object.keys(synonyms), ...opNames]),
];

/** The op or class of this word; undefined when there is none. */
export function opTarget(word: string): Target | undefined {
  const type = aliases[word];
  if (type) {
    return { kind: 'op', text: word, rank: 0, matches: ({ traits }) => traits.class === type };
  }
  const name = synonyms[word] ?? word;
  if (!opNames.has(name)) return undefined;
  return { kind: 'op', text: word, rank: 1, matches: ({ op }) => op === name };
}

/** Like opTarget; throws ConfigError that lists the nearest words. */
export function knownOpTarget(who: string, word: string): Target {
  const target = opTarget(word);
  if (target) return target;
  throw new ConfigError(
    `${who}: there is no op '${word}'. Did you mean ${nearest(word, opWords).join(', ')}?`,
    { key: word, legal: opWords },
  );
}

export function nameTarget(who: string, name: string): Target {
  if (name === '') {
    throw new ConfigError(`${who}: a name of a value is empty (got ''). Give the marked name.`);
  }
  return {
    kind: 'name',
    text: `name:${name}`,
    rank: 1e9,
    matches: (context) => context.name === name,
  };
}

/**
 * Modules whose dotted path, or the end of a path, fits `pattern`, with everything below them. `*` stands
 * for one segment or a part of one, `**` for any number. Throws ConfigError for a malformed pattern.
 */
export function moduleTarget(who: string, pattern: string): Target {
  const segments = pattern.split('.').map(snakeCase);
  if (!segments.every((segment) => /^[\w*]+$/.test(segment))) {
    throw new ConfigError(
      `${who}: '${pattern}' is not a pattern of module paths (got ${JSON.stringify(pattern)}). ` +
        "Write segments with dots between them, such as 'layers.*.mlp.up_proj'.",
      { key: pattern },
    );
  }
  const body = segments.map((segment) =>
    segment === '**' ? '[^.]+(?:\\.[^.]+)*' : segment.replaceAll('*', '[^.]*'),
  );
  const path = new RegExp(`(?:^|\\.)${body.join('\\.')}(?:\\.|$)`);
  const plain = segments.filter((segment) => !segment.includes('*')).length;
  return {
    kind: 'module',
    text: pattern,
    rank: 1e6 + plain * 1e3 + segments.length,
    matches: ({ module }) => path.test(module),
    matchesPath: (candidate) => path.test(candidate),
  };
}

/** `name:x`, an op word, or a module pattern, told apart as they are written. */
export function parseTarget(who: string, text: string): Target {
  if (text.startsWith('name:')) return nameTarget(who, text.slice('name:'.length));
  if (/[.*]/.test(text)) return moduleTarget(who, text);
  return opTarget(text) ?? moduleTarget(who, text);
}

/** Throws ConfigError, with the nearest, when a module target fits none of the model's paths. */
export function checkPaths(who: string, target: Target, paths: readonly string[]): void {
  const { matchesPath, text } = target;
  if (!matchesPath || paths.some((path) => matchesPath(path))) return;
  const legal = new Set<string>();
  for (const path of paths) {
    const segments = path.replace(/(^|\.)\d+(?=\.|$)/g, '$1*').split('.');
    segments.forEach((_, i) => {
      if (segments[i] !== '*') legal.add(segments.slice(i).join('.'));
    });
  }
  legal.delete('');
  const isWord = !/[.*]/.test(text);
  const near = nearest(text, isWord ? [...legal, ...opWords] : legal);
  throw new ConfigError(
    `${who}: the model has no ${isWord ? 'op or module' : 'module'} '${text}'. Did you mean ${near.join(', ')}?`,
    { key: text, legal: [...legal] },
  );
}

function snakeCase(segment: string): string {
  return segment.replace(/([a-z0-9])([A-Z])/g, '$1_$2').toLowerCase();
}
