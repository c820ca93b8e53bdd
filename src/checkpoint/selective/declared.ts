/**
 * Declared policies (checkpointing.md S4): what may be stored, in JAX's meaning. A value is stored only if
 * backward, or a recompute, reads it.
 */

import { ArgumentError } from '../../core/errors.ts';
import type { CheckpointPolicy, SaveFormat } from '../../ir/graph.ts';
import { type PolicyContext, askPolicy, isKept } from './policy.ts';
import {
  type AnyPolicy,
  type DeclaredPolicy,
  type StartedPolicy,
  refuseContradiction,
} from './region-policy.ts';
import { type ModelPolicy, type Rule, rulePolicy } from './rule-policy.ts';
import { type Target, knownOpTarget, moduleTarget, nameTarget } from './targets.ts';

type Policy = DeclaredPolicy & ModelPolicy;

/** Saves the outputs of these ops: names of op records, or classes such as `matmul` and `attention`. */
export function saveOps(...ops: readonly string[]): Policy {
  return about('saveOps', 'save', ops, knownOpTarget, 'mustSave');
}

/** Recomputes the outputs of these ops. */
export function recomputeOps(...ops: readonly string[]): Policy {
  return about('recomputeOps', 'recompute', ops, knownOpTarget, 'mustRecompute');
}

/** Saves everything that modules compute whose path fits a pattern, such as `layers.*.moe.router`. */
export function saveModules(...patterns: readonly string[]): Policy {
  return about('saveModules', 'save', patterns, moduleTarget, 'mustSave');
}

/** Recomputes everything that these modules compute. */
export function recomputeModules(...patterns: readonly string[]): Policy {
  return about('recomputeModules', 'recompute', patterns, moduleTarget, 'mustRecompute');
}

/** Saves values that checkpointName marks (jax.checkpoint_policies.save_only_these_names). */
export function saveNames(...names: readonly string[]): Policy {
  return about('saveNames', 'save', names, nameTarget, 'mustSave');
}

/** Saves everything but the values of these names (JAX's save_anything_except_these_names). */
export function saveEverythingExceptNames(...names: readonly string[]): Policy {
  const who = 'saveEverythingExceptNames';
  const rules = rulesOf(who, names, nameTarget, 'mustRecompute');
  const label = `save everything except ${names.join(', ')}`;
  return rulePolicy(who, { label, rules, otherwise: 'preferSave' });
}

/** Moves the values of these names out of memory until backward. */
export function offloadNames(...names: readonly string[]): Policy {
  return about('offloadNames', 'offload', names, nameTarget, 'mustOffload');
}

/** Moves what these modules compute out of memory until backward. */
export function offloadModules(...patterns: readonly string[]): Policy {
  return about('offloadModules', 'offload', patterns, moduleTarget, 'mustOffload');
}

/** Keeps what these modules compute in fewer bits. Backward then reads rounded values. */
export function compressModules(format: SaveFormat, ...patterns: readonly string[]): Policy {
  const policy = { compress: format };
  return about('compressModules', `compress to ${format}`, patterns, moduleTarget, policy);
}

/**
 * Saves the outputs of matrix products but for every `k`-th of a region, as torchtitan does with k = 2.
 * Throws ArgumentError unless k is an integer from 2 on.
 */
export function saveMatmulsExceptEvery(k: number): Policy {
  if (!Number.isInteger(k) || k < 2) {
    throw new ArgumentError(
      `saveMatmulsExceptEvery: k must be an integer from 2 on (got ${k}). Use saveOps('matmul') to save them all.`,
      { k },
    );
  }
  const label = `save matmuls except every ${k}`;
  return rulePolicy('saveMatmulsExceptEvery', { label, rules: [], alternate: k });
}

/** Saves what attention computes, with or without a sliding window. */
export function saveAttention(): Policy {
  return about('saveAttention', 'save', ['attention'], knownOpTarget, 'mustSave');
}

/** Saves whatever backward needs: the region is exactly no region. */
export function saveEverything(): Policy {
  const set = { label: 'save everything', rules: [], otherwise: 'mustSave' } as const;
  return { ...withoutChecks(rulePolicy('saveEverything', set)), everything: true };
}

/** Recomputes everything, but for what every region keeps. */
export function saveNothing(): Policy {
  const set = { label: 'save nothing', rules: [], otherwise: 'preferRecompute' } as const;
  return withoutChecks(rulePolicy('saveNothing', set));
}

/**
 * torchtitan's choice by op, which torchtune documents as `ac_option: op`: saves matrix products but for
 * every second, and attention.
 */
export function saveByOp(): Policy {
  const rules = rulesOf('saveByOp', ['attention'], knownOpTarget, 'mustSave');
  const label = 'by op: save attention, and matmuls except every 2';
  return rulePolicy('saveByOp', { label, rules, alternate: 2, preset: true });
}

/**
 * Keeps what one of the policies keeps. CheckpointError, naming the place, when one must save a value that
 * another must recompute.
 */
export function either(...policies: readonly AnyPolicy[]): Policy {
  const declared = policies.filter((policy) => typeof policy !== 'function');
  return {
    label: policies.map((p) => (typeof p === 'function' ? 'a function' : p.label)).join('; '),
    start: () => startEither(policies),
    checkModel: (paths) => {
      for (const policy of declared) modelPolicy(policy)?.checkModel(paths);
    },
    checkMatched: () => {
      for (const policy of declared) modelPolicy(policy)?.checkMatched();
    },
  };
}

/** The checks of a policy against a model, where it has such. */
export function modelPolicy(policy: AnyPolicy): ModelPolicy | undefined {
  return 'checkModel' in policy ? (policy as Policy) : undefined;
}

function startEither(policies: readonly AnyPolicy[]): StartedPolicy {
  const started = policies.map((policy): StartedPolicy => {
    if (typeof policy !== 'function') return policy.start();
    return { ask: (context) => askPolicy(policy, context), askName: (c) => askPolicy(policy, c) };
  });
  const combine = (
    answers: readonly (CheckpointPolicy | undefined)[],
    context: PolicyContext,
  ): CheckpointPolicy | undefined =>
    answers.reduce((sofar, answer) => {
      refuseContradiction(sofar, answer, context);
      return strength(answer) > strength(sofar) ? answer : sofar;
    }, undefined);
  return {
    ask: (context) =>
      combine(
        started.map((policy) => policy.ask(context)),
        context,
      ),
    askName: (context, before) => {
      const answers = started.map((policy) => policy.askName(context, before));
      return combine([before, ...answers], context);
    },
    sawName: (name) => {
      for (const policy of started) policy.sawName?.(name);
    },
  };
}

/** Orders before hints, keeping before recomputing. */
function strength(policy: CheckpointPolicy | undefined): number {
  if (policy === undefined) return 0;
  if (policy === 'mustRecompute') return 3;
  if (!isKept(policy)) return 1;
  return policy === 'preferSave' || policy === 'preferOffload' ? 2 : 4;
}

function about(
  who: string,
  verb: string,
  texts: readonly string[],
  target: (who: string, text: string) => Target,
  policy: CheckpointPolicy,
): Policy {
  const rules = rulesOf(who, texts, target, policy);
  return rulePolicy(who, { label: `${verb} ${texts.join(', ')}`, rules });
}

function rulesOf(
  who: string,
  texts: readonly string[],
  target: (who: string, text: string) => Target,
  policy: CheckpointPolicy,
): Rule[] {
  if (texts.length === 0) {
    throw new ArgumentError(
      `${who}: it says nothing (got an empty list). Name at least one thing.`,
    );
  }
  return texts.map((text) => ({ target: target(who, text), policy }));
}

function withoutChecks(policy: Policy): Policy {
  return { label: policy.label, start: policy.start, checkModel: () => {}, checkMatched: () => {} };
}
