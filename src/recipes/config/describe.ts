/** Lists the keys of a config schema with what they mean, for help texts and for finding near misses. */

import * as v from 'valibot';

export interface KeyDescription {
  /** Dotted, as in an override: `optimizer.lr`. */
  readonly path: string;
  /** Legal values in words; '' for a group of keys. */
  readonly values: string;
  readonly doc: string;
  /** The value used when the key is left out; undefined when there is none. */
  readonly fallback: unknown;
  readonly required: boolean;
  readonly group: boolean;
}

/** Every key below `schema`, groups before their members. */
export function describeKeys(schema: v.GenericSchema, prefix = ''): KeyDescription[] {
  const described: KeyDescription[] = [];
  for (const [name, entry] of Object.entries(entriesOf(schema) ?? {})) {
    const path = prefix === '' ? name : `${prefix}.${name}`;
    const inner = unwrap(entry);
    const group = entriesOf(inner) !== undefined;
    described.push({
      path,
      values: group ? '' : titleOf(inner),
      doc: v.getDescription(inner) ?? '',
      fallback: group ? undefined : fallbackOf(entry),
      required: !isOptional(entry),
      group,
    });
    if (group) described.push(...describeKeys(inner, path));
  }
  return described;
}

/** The schema at a dotted path, or undefined. */
export function schemaAt(
  schema: v.GenericSchema,
  path: readonly PropertyKey[],
): v.GenericSchema | undefined {
  let at: v.GenericSchema | undefined = schema;
  for (const name of path) {
    const entries: Record<string, v.GenericSchema> | undefined = at && entriesOf(unwrap(at));
    at = entries?.[String(name)];
  }
  return at;
}

/** The keys of a group; undefined for anything else. */
export function entriesOf(schema: v.GenericSchema): Record<string, v.GenericSchema> | undefined {
  const inner = unwrap(schema);
  if (inner.type !== 'strict_object' || !('entries' in inner)) return undefined;
  return inner.entries as Record<string, v.GenericSchema>;
}

/** Legal values in words. */
export function titleOf(schema: v.GenericSchema): string {
  return v.getTitle(unwrap(schema)) ?? 'a group of keys';
}

/** Text for people, at most `width` characters to a line: one paragraph a key. */
export function formatKeys(keys: readonly KeyDescription[], width = 98): string {
  return keys.map((key) => formatKey(key, width)).join('\n');
}

function formatKey(key: KeyDescription, width: number): string {
  const depth = key.path.split('.').length;
  const indent = ' '.repeat(2 * depth);
  if (key.group) return `\n${indent}${key.path}\n${wrap(key.doc, `${indent}    `, width)}`;
  const fallback = key.required
    ? '; required'
    : key.fallback === undefined
      ? ''
      : `; default ${JSON.stringify(key.fallback)}`;
  const body = wrap(`${key.doc} (${key.values}${fallback})`, `${indent}    `, width);
  return `${indent}${key.path}\n${body}`;
}

function wrap(words: string, indent: string, width: number): string {
  const lines: string[] = [];
  let line = indent;
  for (const word of words.split(/\s+/)) {
    if (line.length + word.length + 1 > width && line !== indent) {
      lines.push(line);
      line = indent;
    }
    line += line === indent ? word : ` ${word}`;
  }
  lines.push(line);
  return lines.join('\n');
}

/** Only `v.optional`: what else wraps a schema, such as `v.nullable`, is part of the value. */
function isOptional(schema: v.GenericSchema): boolean {
  return schema.type === 'optional' && 'wrapped' in schema;
}

function fallbackOf(schema: v.GenericSchema): unknown {
  return 'default' in schema ? schema.default : undefined;
}

function unwrap(schema: v.GenericSchema): v.GenericSchema {
  const isWrapped = isOptional(schema) && 'wrapped' in schema;
  return isWrapped ? unwrap(schema.wrapped as v.GenericSchema) : schema;
}
