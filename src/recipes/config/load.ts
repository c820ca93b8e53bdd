/**
 * From a YAML text and `key=value` overrides to a checked config. Every problem is a ConfigError that
 * names the key, what was found there and what is legal; all problems of one config come together.
 */

import * as v from 'valibot';
import { ConfigError, nearest } from '../../core/errors.ts';
import { describeKeys, entriesOf, schemaAt, titleOf } from './describe.ts';

/** What YAML holds: plain objects, lists, text, numbers, booleans and null. */
export type PlainObject = Record<string, unknown>;

/** The object in YAML `source`; `name` is how errors call it. Throws ConfigError. */
export async function parseYaml(source: string, name: string): Promise<PlainObject> {
  const { parse } = await import('yaml');
  let value: unknown;
  try {
    value = parse(source, { prettyErrors: true, uniqueKeys: true, stringKeys: true });
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message.split('\n')[0] : String(cause);
    throw new ConfigError(`${name}: it is not valid YAML (got: ${reason}). Correct that line.`, {
      path: name,
    });
  }
  if (isPlainObject(value)) return value;
  throw new ConfigError(
    `${name}: a config is a list of keys with values (got ${describeValue(value)}). ` +
      "See 'retune cp' for configs to begin with.",
    { path: name },
  );
}

/** YAML of a config, as it is put into a run folder. */
export async function formatYaml(config: object): Promise<string> {
  const { stringify } = await import('yaml');
  return stringify(config, { lineWidth: 100, flowCollectionPadding: false });
}

/**
 * Sets keys from texts such as `optimizer.lr=3e-4` (a value is read as YAML, so lists and `null` work)
 * and removes keys for texts such as `~clip_grad_norm`. Returns a changed copy. Throws ConfigError.
 */
export async function applyOverrides(
  config: PlainObject,
  overrides: readonly string[],
): Promise<PlainObject> {
  if (overrides.length === 0) return config;
  const { parse } = await import('yaml');
  const result = structuredClone(config);
  for (const override of overrides) {
    const removes = override.startsWith('~');
    const at = override.indexOf('=');
    if (!removes && at <= 0) {
      throw new ConfigError(
        `override: '${override}' is not of the form key=value. Write for instance optimizer.lr=3e-4, or ~key to remove a key.`,
        { key: override },
      );
    }
    const path = (removes ? override.slice(1) : override.slice(0, at)).split('.');
    const last = path.pop() ?? '';
    const group = descend(result, path, override);
    if (removes) {
      delete group[last];
      continue;
    }
    try {
      group[last] = parse(override.slice(at + 1)) ?? null;
    } catch {
      group[last] = override.slice(at + 1);
    }
  }
  return result;
}

/**
 * `value` with defaults filled in. Throws one ConfigError for all keys that are unknown, missing or
 * have an illegal value; `details.key` is the first of them. `name` is how errors call the config.
 */
export function checkConfig<S extends v.GenericSchema>(
  schema: S,
  value: PlainObject,
  name: string,
): v.InferOutput<S> {
  const result = v.safeParse(schema, value);
  if (result.success) return result.output;
  const problems = result.issues.map((issue) => explain(schema, issue, value));
  const keys = result.issues.map((issue) => pathOf(issue).join('.'));
  const list = problems.length === 1 ? ` ${problems[0]}` : `\n  ${problems.join('\n  ')}`;
  throw new ConfigError(`${name}:${list}`, { key: keys[0], keys });
}

/** A ConfigError for two keys that exclude each other, both named with their values. */
export function contradiction(
  first: readonly [key: string, value: unknown],
  second: readonly [key: string, value: unknown],
  remedy: string,
): ConfigError {
  const [a, b] = [first, second].map(([key, value]) => `${key}: ${describeValue(value)}`);
  return new ConfigError(`config: two keys contradict each other (got ${a} and ${b}). ${remedy}`, {
    key: first[0],
    keys: [first[0], second[0]],
  });
}

/** Short text of a config value for errors. */
export function describeValue(value: unknown): string {
  if (value === undefined) return 'nothing';
  const json = JSON.stringify(value) ?? String(value);
  return json.length > 60 ? `${json.slice(0, 57)}...` : json;
}

export function isPlainObject(value: unknown): value is PlainObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function descend(root: PlainObject, path: readonly string[], override: string): PlainObject {
  let group = root;
  for (const [i, name] of path.entries()) {
    const next = group[name] ?? {};
    if (!isPlainObject(next)) {
      throw new ConfigError(
        `override: '${override}' goes below ${path.slice(0, i + 1).join('.')}, which is not a group of keys ` +
          `(got ${describeValue(next)}). Override that key itself.`,
        { key: path.slice(0, i + 1).join('.') },
      );
    }
    group[name] = next;
    group = next;
  }
  return group;
}

function pathOf(issue: v.BaseIssue<unknown>): string[] {
  return (issue.path ?? []).map((item) => String(item.key));
}

function explain(schema: v.GenericSchema, issue: v.BaseIssue<unknown>, root: PlainObject): string {
  const path = pathOf(issue);
  // A problem inside a list or an alternative belongs to the key that holds it.
  while (path.length > 1 && !entriesAt(schema, path.slice(0, -1))) path.pop();
  const key = path.join('.');
  const parent = path.slice(0, -1);
  const siblings = Object.keys(entriesAt(schema, parent) ?? {});
  const last = path.at(-1) ?? '';
  if (siblings.length > 0 && !siblings.includes(last)) {
    return `unknown key ${key} (got ${describeValue(valueAt(root, path))}). ${suggest(schema, path, siblings)}`;
  }
  const target = schemaAt(schema, path);
  const legal = target ? titleOf(target) : issue.expected;
  const found = valueAt(root, path);
  return found === undefined
    ? `${key} is missing. Give ${legal}.`
    : `${key} must be ${legal} (got ${describeValue(found)}).`;
}

function entriesAt(
  schema: v.GenericSchema,
  path: readonly string[],
): Record<string, v.GenericSchema> | undefined {
  const group = schemaAt(schema, path);
  return group && entriesOf(group);
}

/** The nearest names beside the unknown one, and keys elsewhere whose last part is close to it. */
function suggest(
  schema: v.GenericSchema,
  path: readonly string[],
  siblings: readonly string[],
): string {
  const last = path.at(-1) ?? '';
  const prefix = path.slice(0, -1).join('.');
  const all = describeKeys(schema).map((each) => each.path);
  const elsewhere = all.filter((each) => each.split('.').at(-1) === last);
  const near = nearest(last, siblings, 2).map((name) => (prefix ? `${prefix}.${name}` : name));
  return `Did you mean ${[...elsewhere, ...near].slice(0, 3).join(' or ')}?`;
}

function valueAt(root: unknown, path: readonly string[]): unknown {
  let at = root;
  for (const name of path) {
    if (Array.isArray(at)) at = at[Number(name)];
    else at = isPlainObject(at) ? at[name] : undefined;
  }
  return at;
}
