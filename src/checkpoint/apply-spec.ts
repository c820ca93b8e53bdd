/**
 * Reading the `activation_checkpointing` setting: Retune's own keys, torchtune's, in snake case or camel
 * case. Whatever is unknown, contradictory or not built is a ConfigError that names the key, the value
 * and what is legal (docs/internals/checkpointing.md W1).
 */

import { type ByteBudget, budgetForms, isByteBudget } from '../core/byte-budget.ts';
import { ConfigError, nearest } from '../core/errors.ts';
import { type OffloadSpec, readOffload } from './apply-offload.ts';
import type { SaveFormat } from '../ir/graph.ts';
import type { OffloadOptions } from './offload.ts';
import type { CheckpointOptions, DeterminismCheck } from './options.ts';
import type { OffloadAction, PlanActions } from './plan-actions.ts';
import { saveFormats } from './selective/policy.ts';
import type { AnyPolicy } from './selective/region-policy.ts';
import { type SelectiveSpec, selectivePolicy } from './selective/spec.ts';

export type CheckpointMode = 'none' | 'full' | 'every' | 'segments' | 'selective' | 'budget';

/** Layer n, counted from 1 over all stacks of one call, is a region when n mod k is offset. */
export interface EveryLayers {
  readonly k: number;
  /** From 0 to k - 1; default 0, which takes layers k, 2k, ... */
  readonly offset?: number;
}

/** The setting as it is written. Every key may also be written in snake case. */
export interface CheckpointingSpec {
  readonly mode?: CheckpointMode;
  readonly every?: number | EveryLayers;
  /** Number of regions that the layers of a stack are divided into. */
  readonly segments?: number;
  /** What every layer keeps: lists, `op` for torchtitan's choice, or, in code, any policy. */
  readonly selective?: SelectiveSpec | 'op' | AnyPolicy;
  /** Step memory of a compiled step: the planner decides for each value. A share is of the memory without checkpointing. */
  readonly budget?: ByteBudget;
  /** With a budget: how work that may be done again is priced. */
  readonly cost?: BudgetCost;
  readonly preserveRngState?: boolean;
  readonly determinismCheck?: DeterminismCheck;
  readonly earlyStop?: boolean;
  readonly debug?: boolean;
  /**
   * Where what layers save (for recomputed ones: their inputs) waits for backward; eager only. With a budget: that values may
   * wait in a file, `true` or `{ dir, bytesPerSecond }`.
   */
  readonly offload?: OffloadSpec | BudgetOffload | boolean;
  /** With a budget: that values may wait in fewer bits. Gradients are then those of the rounded values. */
  readonly compress?: SaveFormat;
  /** torchtune: offload with its defaults; needs recomputed layers. */
  readonly enableActivationOffloading?: boolean;
  readonly enable_activation_offloading?: boolean;
  /** torchtune: checkpoint every layer. */
  readonly enableActivationCheckpointing?: boolean;
  readonly enable_activation_checkpointing?: boolean;
  /** torchtune. */
  readonly acMode?: 'none' | 'full' | 'selective' | null;
  readonly ac_mode?: 'none' | 'full' | 'selective' | null;
  /** torchtune: with acMode selective, n wraps layers n, 2n, ...; `op` keeps matmuls and attention. */
  readonly acOption?: number | string | null;
  readonly ac_option?: number | string | null;
}

/** `flops`: a roofline; `measured`: each kernel timed on the machine at hand. */
export type BudgetCost = 'flops' | 'measured';

/** With a budget: where values may wait. */
export interface BudgetOffload extends OffloadAction {
  readonly bytes_per_second?: number;
}

export type ResolvedSpec = {
  readonly options: CheckpointOptions;
  readonly offload: OffloadOptions | undefined;
} & (
  | { readonly mode: 'none' | 'full' }
  | { readonly mode: 'every'; readonly k: number; readonly offset: number }
  | { readonly mode: 'segments'; readonly segments: number }
  | { readonly mode: 'selective'; readonly policy: AnyPolicy }
  | BudgetChoice
);

const modes: readonly CheckpointMode[] = [
  'none',
  'full',
  'every',
  'segments',
  'selective',
  'budget',
];
const acModes = ['none', 'full', 'selective'];
const switches = ['preserveRngState', 'earlyStop', 'debug'] as const;
const checks: readonly DeterminismCheck[] = ['default', 'values', 'none'];

const ownKeys = [
  'mode',
  'every',
  'segments',
  'selective',
  'budget',
  'cost',
  'compress',
  'offload',
  'determinismCheck',
  ...switches,
];
const torchtuneKeys = [
  'enableActivationCheckpointing',
  'enableActivationOffloading',
  'acMode',
  'acOption',
];
const legalKeys = [...ownKeys, ...torchtuneKeys];

/** Checks a setting and fills defaults. A plain string is a mode. Throws ConfigError. */
export function resolveSpec(spec: CheckpointingSpec | CheckpointMode): ResolvedSpec {
  if ((typeof spec === 'string' ? spec : spec.mode) === ('auto' as string)) {
    throw new ConfigError(
      `applyActivationCheckpointing: 'auto' depends on the whole training run, not on a model alone (got mode "auto"). ` +
        'Use it in a recipe, settle it with fitMemory of retune/recipes, or choose one of ' +
        `${modes.join(', ')}.`,
      { key: 'mode', value: 'auto', legal: modes },
    );
  }
  const given =
    typeof spec === 'string'
      ? new Map([['mode', { key: 'mode', value: spec }]])
      : normalizeKeys(spec);
  const get = (name: string): Given | undefined => given.get(name);
  const options = readOptions(get);
  const own = readOwn(get);
  const torchtune = readTorchtune(get);
  if (own && torchtune && !sameChoice(own, torchtune)) {
    throw new ConfigError(
      `applyActivationCheckpointing: the keys contradict each other (got ${written(given, [...ownKeys, ...torchtuneKeys])}). ` +
        "Use either 'mode' or torchtune's keys.",
      { key: 'mode' },
    );
  }
  const choice = own ?? torchtune ?? { mode: 'none' };
  // Under a budget it is the planner that may offload; its own switch reads the key.
  const layered =
    choice.mode === 'budget' || get('offload')?.value === false ? undefined : get('offload');
  const offload = readOffload(layered, get('enableActivationOffloading'), choice.mode);
  return { ...resolveChoice(choice), options, offload };
}

function resolveChoice(
  choice: Choice,
): Exclude<Choice, SelectiveChoice> | { mode: 'selective'; policy: AnyPolicy } {
  if (choice.mode !== 'selective') return choice;
  return { mode: 'selective', policy: selectivePolicy(choice.key, choice.selective) };
}

interface Given {
  /** As it was written. */
  readonly key: string;
  readonly value: unknown;
}

type Get = (name: string) => Given | undefined;
type Choice =
  | { readonly mode: 'none' | 'full' }
  | { readonly mode: 'every'; readonly k: number; readonly offset: number }
  | { readonly mode: 'segments'; readonly segments: number }
  | SelectiveChoice
  | BudgetChoice;

export interface BudgetChoice {
  readonly mode: 'budget';
  readonly budget: ByteBudget;
  readonly cost: BudgetCost;
  /** Undefined when nothing more is allowed. */
  readonly actions?: PlanActions;
}

interface SelectiveChoice {
  readonly mode: 'selective';
  readonly key: string;
  readonly selective: unknown;
}

function normalizeKeys(spec: object): Map<string, Given> {
  const given = new Map<string, Given>();
  for (const [key, value] of Object.entries(spec)) {
    const name = camelCase(key);
    if (!legalKeys.includes(name)) {
      throw new ConfigError(
        `applyActivationCheckpointing: unknown key '${key}' (got ${show(value)}). ` +
          `Did you mean ${nearest(name, legalKeys, 2).join(' or ')}? Legal keys: ${legalKeys.join(', ')}.`,
        { key, value, legal: legalKeys },
      );
    }
    if (value === undefined) continue;
    const other = given.get(name);
    if (other) {
      throw new ConfigError(
        `applyActivationCheckpointing: one key is given in two spellings (got ${other.key} and ${key}). Give one.`,
        { key },
      );
    }
    given.set(name, { key, value });
  }
  return given;
}

function readOwn(get: Get): Choice | undefined {
  const mode = get('mode');
  const every = get('every');
  const segments = get('segments');
  const selective = get('selective');
  const budget = get('budget');
  const cost = get('cost');
  const keys = { every, segments, selective, budget };
  const implied = Object.entries(keys).find(([, given]) => given)?.[0];
  for (const given of [cost, get('compress')]) {
    if (given && (mode?.value ?? implied) !== 'budget') {
      contradiction(given, 'mode', mode?.value ?? implied ?? 'none');
    }
  }
  if (!mode && !implied) return undefined;
  const name = mode?.value ?? implied;
  if (!modes.includes(name as CheckpointMode)) {
    illegal(mode ?? { key: 'mode', value: name }, `one of ${modes.join(', ')}`);
  }
  if (every && name !== 'every') contradiction(every, 'mode', name);
  if (segments && name !== 'segments') contradiction(segments, 'mode', name);
  if (selective && name !== 'selective') contradiction(selective, 'mode', name);
  if (budget && name !== 'budget') contradiction(budget, 'mode', name);
  switch (name) {
    case 'every':
      return readEvery(every ?? { key: 'every', value: undefined });
    case 'segments':
      return {
        mode: 'segments',
        segments: positiveInteger(segments ?? { key: 'segments', value: undefined }),
      };
    case 'selective':
      return { mode: 'selective', key: selective?.key ?? 'selective', selective: selective?.value };
    case 'budget':
      return {
        ...readBudget(budget ?? { key: 'budget', value: undefined }, cost),
        ...readActions(get('offload'), get('compress')),
      };
    default:
      return { mode: name === 'full' ? 'full' : 'none' };
  }
}

function readBudget(budget: Given, cost: Given | undefined): BudgetChoice {
  if (!isByteBudget(budget.value)) illegal(budget, budgetForms);
  const price = cost?.value ?? 'flops';
  if (price !== 'flops' && price !== 'measured') {
    illegal(cost ?? budget, 'flops or measured');
  }
  return { mode: 'budget', budget: budget.value, cost: price };
}

function readActions(
  offload: Given | undefined,
  compress: Given | undefined,
): Pick<BudgetChoice, 'actions'> {
  if (compress && !saveFormats.includes(compress.value as SaveFormat)) {
    illegal(compress, saveFormats.join(', '));
  }
  const actions = {
    ...(offload && offload.value !== false && { offload: readBudgetOffload(offload) }),
    ...(compress && { compress: compress.value as SaveFormat }),
  };
  return Object.keys(actions).length === 0 ? {} : { actions };
}

function readBudgetOffload(given: Given): NonNullable<PlanActions['offload']> {
  const { key, value } = given;
  if (value === true) return true;
  const legal = 'true, false or { dir, bytes_per_second }, with a budget';
  if (typeof value !== 'object' || value === null || Array.isArray(value)) illegal(given, legal);
  const read: { dir?: string; bytesPerSecond?: number } = {};
  for (const [name, part] of Object.entries(value)) {
    const own = { key: `${key}.${name}`, value: part };
    if (part === undefined) continue;
    if (name === 'dir') {
      if (typeof part !== 'string' || part === '') illegal(own, 'a folder');
      read.dir = part;
    } else if (camelCase(name) === 'bytesPerSecond') {
      if (!(Number.isFinite(part) && Number(part) > 0)) illegal(own, 'a number above 0');
      read.bytesPerSecond = Number(part);
    } else illegal(own, legal);
  }
  return read;
}

function readEvery(given: Given): Choice {
  const { key, value } = given;
  if (typeof value !== 'object' || value === null) {
    return { mode: 'every', k: positiveInteger(given), offset: 0 };
  }
  for (const part of Object.keys(value)) {
    if (part === 'k' || part === 'offset') continue;
    throw new ConfigError(
      `applyActivationCheckpointing: unknown key '${key}.${part}' (got ${show(value)}). Legal keys: k, offset.`,
      { key: `${key}.${part}`, legal: ['k', 'offset'] },
    );
  }
  const { k, offset = 0 } = value as { k?: unknown; offset?: unknown };
  const count = positiveInteger({ key: `${key}.k`, value: k });
  if (!Number.isInteger(offset) || Number(offset) < 0 || Number(offset) >= count) {
    illegal({ key: `${key}.offset`, value: offset }, `an integer from 0 to ${count - 1}`);
  }
  return { mode: 'every', k: count, offset: Number(offset) };
}

/** torchtune's meaning: the switch alone wraps all; ac_mode says which; ac_option belongs to selective. */
function readTorchtune(get: Get): Choice | undefined {
  const enable = get('enableActivationCheckpointing');
  const mode = get('acMode');
  const option = get('acOption');
  if (!enable && !mode && !option) return undefined;
  if (enable && typeof enable.value !== 'boolean') illegal(enable, 'true or false');
  const name = mode?.value ?? undefined;
  if (mode && name !== undefined && !acModes.includes(String(name))) {
    illegal(mode, `one of ${acModes.join(', ')}`);
  }
  if (enable?.value === false && name !== undefined && name !== 'none') {
    contradiction(enable, mode?.key ?? 'acMode', name);
  }
  if (enable?.value === true && name === 'none') contradiction(enable, mode?.key ?? 'acMode', name);
  const hasOption = option !== undefined && option.value !== null;
  if (hasOption && name !== 'selective')
    contradiction(option, mode?.key ?? 'acMode', name ?? 'null');
  if (name === 'selective') return readSelective(option ?? { key: 'acOption', value: undefined });
  const full = name === 'full' || (name === undefined && enable?.value === true);
  return { mode: full ? 'full' : 'none' };
}

function readSelective(option: Given): Choice {
  const { value } = option;
  if (value === 'op') return { mode: 'selective', key: 'selective', selective: 'op' };
  const count = typeof value === 'string' && /^\d+$/.test(value) ? Number(value) : value;
  if (!Number.isInteger(count)) illegal(option, "a positive integer, or 'op'");
  return { mode: 'every', k: positiveInteger({ key: option.key, value: count }), offset: 0 };
}

function readOptions(get: Get): CheckpointOptions {
  const options: Record<string, unknown> = {};
  for (const name of switches) {
    const given = get(name);
    if (!given) continue;
    if (typeof given.value !== 'boolean') illegal(given, 'true or false');
    options[name] = given.value;
  }
  const check = get('determinismCheck');
  if (check) {
    if (!checks.includes(check.value as DeterminismCheck))
      illegal(check, `one of ${checks.join(', ')}`);
    options.determinismCheck = check.value;
  }
  return options;
}

function positiveInteger(given: Given): number {
  if (!Number.isInteger(given.value) || Number(given.value) < 1)
    illegal(given, 'a positive integer');
  return Number(given.value);
}

function illegal({ key, value }: Given, legal: string): never {
  throw new ConfigError(
    `applyActivationCheckpointing: '${key}' is not legal (got ${show(value)}). Use ${legal}.`,
    { key, value, legal },
  );
}

function contradiction(given: Given, otherKey: string, otherValue: unknown): never {
  throw new ConfigError(
    `applyActivationCheckpointing: '${given.key}' contradicts '${otherKey}' (got ${show(given.value)} and ${show(otherValue)}). ` +
      'Remove one of them.',
    { key: given.key, value: given.value, otherKey, otherValue },
  );
}

function sameChoice(a: Choice, b: Choice): boolean {
  if (a.mode === 'selective' && b.mode === 'selective') return a.selective === b.selective;
  return JSON.stringify(a) === JSON.stringify(b);
}

function written(given: ReadonlyMap<string, Given>, names: readonly string[]): string {
  return names
    .flatMap((name) => given.get(name) ?? [])
    .map(({ key, value }) => `${key}: ${show(value)}`)
    .join(', ');
}

function show(value: unknown): string {
  return value === undefined ? 'nothing' : JSON.stringify(value);
}

function camelCase(key: string): string {
  return key.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}
