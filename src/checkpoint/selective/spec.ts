/** The `selective` setting of a model's checkpointing, in code and in YAML, as a policy. */

import { ConfigError, nearest } from '../../core/errors.ts';
import type { CheckpointPolicy, SaveFormat } from '../../ir/graph.ts';
import { saveByOp } from './declared.ts';
import { saveFormats } from './policy.ts';
import type { AnyPolicy } from './region-policy.ts';
import { type Rule, rulePolicy } from './rule-policy.ts';
import { parseTarget } from './targets.ts';

/**
 * Targets are ops or classes of them (`matmul`, `attention`), patterns over module paths
 * (`layers.*.moe.router`) and marked values (`name:attn_out`). Of several that fit, the most specific
 * counts; what fits none is recomputed.
 */
export interface SelectiveSpec {
  readonly save?: string | readonly string[];
  readonly recompute?: string | readonly string[];
  readonly offload?: string | readonly string[];
  readonly compress?: Readonly<Record<string, SaveFormat>>;
  /** Saves matrix products but for every k-th one of a layer that no module or name rule is about. */
  readonly alternateMatmuls?: number;
  readonly alternate_matmuls?: number;
}

const who = 'applyActivationCheckpointing';
const legalKeys = ['save', 'recompute', 'offload', 'compress', 'alternate_matmuls'];

/** `op`, a spec, or a policy that is there already. `key` is what errors call it. Throws ConfigError. */
export function selectivePolicy(key: string, value: unknown): AnyPolicy {
  if (value === 'op') return { ...saveByOp(), key: 'op' };
  if (typeof value === 'function') return value as AnyPolicy;
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    throw illegal(key, value, `a group of keys (${legalKeys.join(', ')}), 'op', or a policy`);
  }
  if ('start' in value && typeof value.start === 'function') return value as AnyPolicy;
  return fromSpec(key, value);
}

function fromSpec(key: string, spec: object): AnyPolicy {
  const rules: Rule[] = [];
  const parts: string[] = [];
  let alternate: number | undefined;
  for (const [own, value] of Object.entries(spec)) {
    if (value === undefined) continue;
    const name = own === 'alternateMatmuls' ? 'alternate_matmuls' : own;
    const path = `${key}.${own}`;
    if (name === 'alternate_matmuls') {
      alternate = alternation(path, value);
      parts.push(`save matmuls except every ${alternate}`);
    } else if (name === 'compress') {
      const formats = readFormats(path, value);
      for (const [text, format] of formats) add(text, { compress: format });
      parts.push(`compress ${formats.map(([text, format]) => `${text} to ${format}`).join(', ')}`);
    } else if (name in listPolicies) {
      const list = readList(path, value);
      for (const text of list) add(text, listPolicies[name as keyof typeof listPolicies]);
      parts.push(`${name} ${list.join(', ')}`);
    } else throw unknownKey(key, own);
  }
  if (parts.length === 0) throw illegal(key, spec, `at least one of ${legalKeys.join(', ')}`);
  const policy = rulePolicy(who, {
    label: parts.join('; '),
    rules,
    ...(alternate !== undefined && { alternate }),
  });
  return { ...policy, key: JSON.stringify(spec) };

  function add(text: string, policy: CheckpointPolicy): void {
    rules.push({ target: parseTarget(who, text), policy });
  }
}

const listPolicies = {
  save: 'mustSave',
  recompute: 'mustRecompute',
  offload: 'mustOffload',
} as const;

function readList(path: string, value: unknown): string[] {
  const list: unknown[] = Array.isArray(value) ? value : [value];
  if (list.length > 0 && list.every((text) => typeof text === 'string' && text !== '')) {
    return list as string[];
  }
  throw illegal(path, value, 'a list of ops, module patterns or name:x');
}

function readFormats(path: string, value: unknown): [string, SaveFormat][] {
  const entries = value !== null && typeof value === 'object' ? Object.entries(value) : [];
  for (const [text, format] of entries) {
    if (saveFormats.includes(format)) continue;
    throw illegal(`${path}.${text}`, format, `one of ${saveFormats.join(', ')}`);
  }
  if (entries.length === 0) throw illegal(path, value, 'module patterns with formats');
  return entries as [string, SaveFormat][];
}

function alternation(path: string, value: unknown): number {
  if (Number.isInteger(value) && Number(value) >= 2) return Number(value);
  throw illegal(path, value, 'an integer from 2 on: every how many-th product is recomputed');
}

function unknownKey(key: string, own: string): ConfigError {
  return new ConfigError(
    `${who}: unknown key '${key}.${own}'. Did you mean ${nearest(own, legalKeys, 2).join(' or ')}? ` +
      `Legal keys: ${legalKeys.join(', ')}.`,
    { key: `${key}.${own}`, legal: legalKeys },
  );
}

function illegal(key: string, value: unknown, legal: string): ConfigError {
  return new ConfigError(
    `${who}: '${key}' is not legal (got ${JSON.stringify(value) ?? 'nothing'}). Use ${legal}.`,
    { key, value, legal },
  );
}
