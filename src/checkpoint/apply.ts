/**
 * Checkpointing a model by one setting (docs/internals/checkpointing.md W1-W4). Layers are found by their
 * LayerStack; a region is a layer, or several layers in a row. Applying again replaces what was applied
 * before. Names, state dicts and files do not change (W2).
 */

import type { ByteBudget } from '../core/byte-budget.ts';
import { ConfigError, nearest } from '../core/errors.ts';
import {
  type CheckpointingSpec,
  type CheckpointMode,
  type BudgetChoice,
  type BudgetCost,
  type ResolvedSpec,
  resolveSpec,
} from './apply-spec.ts';
import type { PlanActions } from './plan-actions.ts';
import { isGradEnabled } from '../tensor/context.ts';
import { checkOffload, offloadStacks } from './apply-offload.ts';
import { checkpoint } from './checkpoint.ts';
import { ActivationOffload } from './offload.ts';
import { type CheckpointOptions, resolveOptions } from './options.ts';
import { modelPolicy } from './selective/declared.ts';
import type { AnyPolicy } from './selective/region-policy.ts';
import {
  type CallWrapper,
  type CheckpointableModule,
  type CheckpointableStack,
  isStack,
} from './wrapping.ts';

export interface ApplyOptions {
  /** Gets the one line that says what was wrapped; default console.info. */
  readonly logger?: (line: string) => void;
  /** Whether the training step is compiled; a budget needs that. */
  readonly compiled?: boolean;
}

export interface ApplyReport {
  /** Paths of the regions, such as `model.layers.3`, or `model.layers.0-3` for several layers in one. */
  readonly wrapped: readonly string[];
  /** What the logger got. */
  readonly line: string;
  /** With mode budget: what to give to `compile`. */
  readonly compileOptions?: {
    readonly budget: ByteBudget;
    readonly cost: BudgetCost;
    readonly actions?: PlanActions;
  };
  /** Statistics of the offload; undefined without one. */
  readonly offload?: ActivationOffload;
}

/**
 * Sets which layers of `model` are recomputed in backward. A model without trainable parameters, such as a
 * frozen reference, is left alone (W3). Throws ConfigError for a bad setting, for more segments than
 * layers, and for a model without layers.
 */
export function applyActivationCheckpointing(
  model: CheckpointableModule,
  spec: CheckpointingSpec | CheckpointMode,
  options: ApplyOptions = {},
): ApplyReport {
  const resolved = resolveSpec(spec);
  if (resolved.mode === 'budget') return applyBudget(model, resolved, options);
  const stacks = stacksOf(model);
  if (resolved.mode !== 'none' || resolved.offload) checkStacks(resolved, stacks);
  if (resolved.mode === 'selective') {
    const paths = [...model.namedModules()].map(([path]) => path);
    modelPolicy(resolved.policy)?.checkModel(paths);
  }
  if (resolved.offload) {
    const units = (layers: number): number =>
      resolved.mode === 'segments' ? resolved.segments : layers;
    checkOffload(stacks.map(({ stack }) => units(stack.layers.length)));
  }
  const offload = resolved.offload && new ActivationOffload(resolved.offload);
  clearWrappers(model);
  if (resolved.mode === 'none' && !offload) return report('none', [], options);
  if (!isTrainable(model)) return report('the model is frozen: none', [], options);
  const wrapped = resolved.mode === 'none' ? [] : wrapStacks(stacks, resolved);
  if (!offload) return report(describeChoice(resolved), wrapped, options);
  const count = offloadStacks(
    stacks.map(({ stack }) => stack),
    offload,
  );
  const what = resolved.mode === 'none' ? 'what they save' : 'what they save or start from';
  const tail = `; of ${count} calls of layers ${what} waits ${offload.description}`;
  return { ...report(describeChoice(resolved), wrapped, options, tail), offload };
}

/** A budget wraps nothing: the compiler decides for each value. */
function applyBudget(
  model: CheckpointableModule,
  { budget, cost, actions, offload }: ResolvedSpec & BudgetChoice,
  options: ApplyOptions,
): ApplyReport {
  if (options.compiled !== true || offload) {
    throw new ConfigError(
      `applyActivationCheckpointing: a budget is kept by a compiled step, whose planner offloads by itself (got budget ${JSON.stringify(budget)} ` +
        `${offload ? "with torchtune's offloading" : 'without compiled: true'}). Compile the step with the compileOptions of the report, with offload: true ` +
        'where values may be moved, or choose another mode.',
      {
        key: 'budget',
        value: budget,
        otherKey: offload ? 'enable_activation_offloading' : 'compiled',
      },
    );
  }
  clearWrappers(model);
  const more = [
    ...(actions?.offload ? ['offload'] : []),
    ...(actions?.compress ? [`compress to ${actions.compress}`] : []),
  ];
  const may = more.length === 0 ? '' : ` and may ${more.join(' and ')}`;
  const told = report(`budget ${budget}: the compiler decides for each value${may}`, [], options);
  return { ...told, compileOptions: { budget, cost, ...(actions && { actions }) } };
}

/** A class of modules. */
export type ModuleClass = abstract new (...args: never) => CheckpointableModule;

/** Chooses modules by path (`model.layers.0.mlp`). */
export type ModulePredicate = (module: CheckpointableModule, path: string) => boolean;

/**
 * Makes a region of every module of the given classes, or that the predicate chooses
 * (torchtune.training.set_activation_checkpointing). Replaces what was applied before. Throws ConfigError
 * when nothing matches.
 */
export function setActivationCheckpointing(
  model: CheckpointableModule,
  chosen: ModuleClass | Iterable<ModuleClass> | ModulePredicate,
  options: CheckpointOptions & ApplyOptions = {},
): ApplyReport {
  const { logger, ...regionOptions } = options;
  resolveOptions(regionOptions);
  const matches = matcherOf(chosen);
  const found = [...model.namedModules()].filter(([path, module]) => matches(module, path));
  if (found.length === 0) throw nothingMatched(model, chosen);
  clearWrappers(model);
  const applyOptions = logger ? { logger } : {};
  if (!isTrainable(model)) return report('the model is frozen: none', [], applyOptions);
  for (const [path, module] of found) module.callWrapper = regionWrapper(path, regionOptions);
  return report(
    'by module class',
    found.map(([path]) => path),
    applyOptions,
  );
}

interface NamedStack {
  readonly path: string;
  readonly stack: CheckpointableStack;
}

function stacksOf(model: CheckpointableModule): NamedStack[] {
  return [...model.namedModules()].flatMap(([path, module]) =>
    isStack(module) && module.layers.length > 0 ? [{ path, stack: module }] : [],
  );
}

function checkStacks(spec: ResolvedSpec, stacks: readonly NamedStack[]): void {
  if (stacks.length === 0) {
    throw new ConfigError(
      'applyActivationCheckpointing: the model has no LayerStack (got a model without layers to wrap). ' +
        'Put its layers into a LayerStack, or use setActivationCheckpointing with their class.',
      { key: spec.mode === 'none' ? 'offload' : 'mode', value: spec.mode },
    );
  }
  const fewest = Math.min(...stacks.map(({ stack }) => stack.layers.length));
  if (spec.mode === 'segments' && spec.segments > fewest) {
    throw new ConfigError(
      `applyActivationCheckpointing: 'segments' is larger than the number of layers (got ${spec.segments} for ${fewest} layers). ` +
        `Use a number from 1 to ${fewest}.`,
      { key: 'segments', value: spec.segments, legal: `1 to ${fewest}` },
    );
  }
  const layers = stacks.reduce((sum, { stack }) => sum + stack.layers.length, 0);
  if (spec.mode === 'every' && firstOf(spec.k, spec.offset) > layers) {
    throw new ConfigError(
      `applyActivationCheckpointing: 'every' wraps no layer (got k ${spec.k}, offset ${spec.offset} for ${layers} layers). ` +
        `Use a k from 1 to ${layers}.`,
      { key: 'every', value: { k: spec.k, offset: spec.offset }, legal: `1 to ${layers}` },
    );
  }
}

function wrapStacks(stacks: readonly NamedStack[], spec: ResolvedSpec): string[] {
  const wrapped: string[] = [];
  let count = 0;
  const layers = stacks.reduce((sum, { stack }) => sum + stack.layers.length, 0);
  const wrapperOf =
    spec.mode === 'selective'
      ? selectiveWrappers(spec.policy, spec.options, layers)
      : (name: string): CallWrapper => regionWrapper(name, spec.options);
  for (const { path, stack } of stacks) {
    if (spec.mode === 'segments') {
      wrapped.push(...wrapSegments(path, stack, spec.segments, spec.options));
      continue;
    }
    for (const [i, layer] of stack.layers.entries()) {
      count++;
      if (spec.mode === 'every' && count % spec.k !== spec.offset) continue;
      const name = join(path, String(i));
      layer.callWrapper = wrapperOf(name);
      wrapped.push(name);
    }
  }
  return wrapped;
}

/** Segments differ by at most one layer, longer ones first; all of them are regions. */
function wrapSegments(
  path: string,
  stack: CheckpointableStack,
  segments: number,
  options: CheckpointOptions,
): string[] {
  const layers = stack.layers.length;
  const short = Math.floor(layers / segments);
  const longer = layers % segments;
  const names: string[] = [];
  let from = 0;
  stack.regions = Array.from({ length: segments }, (_, i) => {
    const to = from + short + (i < longer ? 1 : 0);
    const name = join(path, to - from === 1 ? String(from) : `${from}-${to - 1}`);
    names.push(name);
    const region = { from, to, wrapper: regionWrapper(name, options) };
    from = to;
    return region;
  });
  return names;
}

function regionWrapper(name: string, options: CheckpointOptions): CallWrapper {
  const named = { ...options, name };
  const wrapper: CallWrapper = (run, args) => checkpoint(run, args, named);
  const { policy, ...rest } = named;
  const policyKey = typeof policy === 'object' ? policy.key : undefined;
  const isPlain =
    (policy === undefined || policyKey !== undefined) &&
    Object.values(rest).every((value) => typeof value !== 'function');
  if (!isPlain) return wrapper;
  return Object.assign(wrapper, { key: JSON.stringify({ ...rest, policyKey }) });
}

/**
 * Regions of one policy. When all of them have run, a rule of the policy that fitted nothing anywhere is an
 * error (S5).
 */
function selectiveWrappers(
  policy: AnyPolicy,
  options: CheckpointOptions,
  count: number,
): (name: string) => CallWrapper {
  const ran = new Set<string>();
  return (name) => {
    const run = regionWrapper(name, { ...options, policy });
    const checked: CallWrapper = (fn, args) => {
      const result = run(fn, args);
      if (ran.size < count && isGradEnabled()) {
        ran.add(name);
        if (ran.size === count) modelPolicy(policy)?.checkMatched();
      }
      return result;
    };
    return run.key === undefined ? checked : Object.assign(checked, { key: run.key });
  };
}

function clearWrappers(model: CheckpointableModule): void {
  for (const [, module] of model.namedModules()) {
    module.callWrapper = undefined;
    if (isStack(module)) module.regions = undefined;
  }
}

function isTrainable(model: CheckpointableModule): boolean {
  for (const tensor of model.parameters()) if (tensor.requiresGrad) return true;
  return false;
}

function matcherOf(chosen: ModuleClass | Iterable<ModuleClass> | ModulePredicate): ModulePredicate {
  if (typeof chosen !== 'function') {
    const classes = [...chosen];
    return (module) => classes.some((type) => module instanceof type);
  }
  if (isClass(chosen)) return (module) => module instanceof chosen;
  return chosen;
}

function isClass(value: ModuleClass | ModulePredicate): value is ModuleClass {
  return /^class\b/.test(Function.prototype.toString.call(value));
}

function nothingMatched(
  model: CheckpointableModule,
  chosen: ModuleClass | Iterable<ModuleClass> | ModulePredicate,
): ConfigError {
  const present = new Set([...model.namedModules()].map(([, module]) => module.constructor.name));
  const asked =
    typeof chosen !== 'function'
      ? [...chosen].map((type) => type.name).join(', ')
      : isClass(chosen)
        ? chosen.name
        : 'a predicate';
  return new ConfigError(
    `setActivationCheckpointing: no module of the model matches (got ${asked}). ` +
      `Classes in the model: ${nearest(asked, present, 8).join(', ')}.`,
    { key: 'classes', value: asked, legal: [...present] },
  );
}

function describeChoice(spec: ResolvedSpec): string {
  switch (spec.mode) {
    case 'every': {
      const first = firstOf(spec.k, spec.offset);
      return spec.k === 1 ? 'every layer' : `every ${spec.k} layers from layer ${first} on`;
    }
    case 'segments':
      return `${spec.segments} segments`;
    case 'selective':
      return `selective, ${typeof spec.policy === 'function' ? 'by a function' : spec.policy.label}`;
    case 'budget':
    case 'full':
    case 'none':
      return spec.mode;
  }
}

/** Number, from 1, of the first layer that `every` takes. */
function firstOf(k: number, offset: number): number {
  return offset === 0 ? k : offset;
}

const shownRegions = 6;

function report(
  what: string,
  wrapped: readonly string[],
  options: ApplyOptions,
  tail = '',
): ApplyReport {
  const head = wrapped.slice(0, shownRegions).join(', ');
  const more = wrapped.length > shownRegions ? `, and ${wrapped.length - shownRegions} more` : '';
  const line =
    wrapped.length === 0
      ? `activation checkpointing: ${what}; no regions${tail}`
      : `activation checkpointing: ${what}; ${wrapped.length} regions: ${head}${more}${tail}`;
  (options.logger ?? console.info)(line);
  return { wrapped, line };
}

function join(prefix: string, name: string): string {
  return prefix === '' ? name : `${prefix}.${name}`;
}
