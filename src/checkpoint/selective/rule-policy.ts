/** A policy made of rules: target -> decision. What it did is counted, so that a rule that fits nothing shows. */

import { CheckpointError, ConfigError, nearest } from '../../core/errors.ts';
import {
  type CheckpointPolicy,
  type PolicyContext,
  describeContext,
  isSave,
  placeOf,
  samePolicy,
} from './policy.ts';
import type { DeclaredPolicy, StartedPolicy } from './region-policy.ts';
import { type Target, checkPaths } from './targets.ts';

export interface Rule {
  readonly target: Target;
  readonly policy: CheckpointPolicy;
}

export interface RuleSet {
  readonly label: string;
  readonly rules: readonly Rule[];
  /** What happens to values that no rule is about; undefined leaves it to others. */
  readonly otherwise?: CheckpointPolicy;
  /**
   * Saves matrix products but for every k-th one of a region. Products that another rule orders to be
   * recomputed, or that belong to a module or name with a rule, are not counted.
   */
  readonly alternate?: number;
  /** Rules may fit nothing, as long as one of them does. */
  readonly preset?: boolean;
}

/** Throws ConfigError when two rules say different things of one target. */
export function rulePolicy(who: string, set: RuleSet): DeclaredPolicy & ModelPolicy {
  for (const [i, rule] of set.rules.entries()) {
    for (const other of set.rules.slice(0, i)) {
      if (other.target.text !== rule.target.text || samePolicy(other.policy, rule.policy)) continue;
      throw new ConfigError(
        `${who}: '${rule.target.text}' is told two things (got ${word(other.policy)} and ${word(rule.policy)}). ` +
          'Remove one of them.',
        { key: rule.target.text },
      );
    }
  }
  return new RulePolicy(who, set);
}

/** What applying to a model asks of a policy. */
export interface ModelPolicy {
  /** Throws ConfigError when a rule names a module that the model has not. */
  readonly checkModel: (paths: readonly string[]) => void;
  /** After all regions ran: throws ConfigError when a rule fitted nothing in the whole model. */
  readonly checkMatched: () => void;
}

class RulePolicy implements DeclaredPolicy, ModelPolicy {
  readonly label: string;
  readonly #who: string;
  readonly #set: RuleSet;
  readonly #hits = new Set<Rule>();
  readonly #opsSeen = new Set<string>();
  readonly #namesSeen = new Set<string>();
  #alternated = false;

  constructor(who: string, set: RuleSet) {
    this.label = set.label;
    this.#who = who;
    this.#set = set;
  }

  readonly start = (): StartedPolicy => {
    const { alternate = 0, otherwise } = this.#set;
    let products = 0;
    return {
      ask: (context) => {
        this.#opsSeen.add(context.op);
        const best = this.#best(context);
        const general = !best || (best.target.kind === 'op' && isSave(best.policy));
        if (alternate > 0 && context.traits.class === 'matmul' && general) {
          this.#alternated = true;
          products++;
          return products % alternate === 0 ? 'preferRecompute' : 'mustSave';
        }
        return best?.policy ?? otherwise;
      },
      askName: (context) => {
        this.#namesSeen.add(context.name ?? '');
        const best = this.#best(context);
        return best?.target.kind === 'name' ? best.policy : undefined;
      },
      sawName: (name) => {
        this.#namesSeen.add(name);
        const target = `name:${name}`;
        for (const rule of this.#set.rules) if (rule.target.text === target) this.#hits.add(rule);
      },
    };
  };

  readonly checkModel = (paths: readonly string[]): void => {
    for (const { target } of this.#set.rules) checkPaths(this.#who, target, paths);
  };

  readonly checkMatched = (): void => {
    const { rules, alternate = 0, preset = false } = this.#set;
    if (preset && (this.#alternated || this.#hits.size > 0)) return;
    if (alternate > 0 && !this.#alternated) throw this.#unmatched('matrix products');
    for (const rule of rules) if (!this.#hits.has(rule)) throw this.#unmatched(rule);
  };

  /** The most specific rule; throws CheckpointError when two are equally so and differ. */
  #best(context: PolicyContext): Rule | undefined {
    let best: Rule | undefined;
    let rival: Rule | undefined;
    for (const rule of this.#set.rules) {
      if (!rule.target.matches(context)) continue;
      this.#hits.add(rule);
      if (!best || rule.target.rank > best.target.rank) {
        best = rule;
        rival = undefined;
      } else if (rule.target.rank === best.target.rank && !samePolicy(rule.policy, best.policy)) {
        rival = rule;
      }
    }
    if (!best || !rival) return best;
    throw new CheckpointError(
      `${this.#who}: two rules contradict each other at ${describeContext(context)} ` +
        `(got ${word(best.policy)} '${best.target.text}' and ${word(rival.policy)} '${rival.target.text}'). ` +
        'Remove one, or make one of the patterns more specific.',
      placeOf(context),
    );
  }

  #unmatched(rule: Rule | string): ConfigError {
    const text = typeof rule === 'string' ? rule : rule.target.text;
    const names = [...this.#namesSeen].map((name) => `name:${name}`);
    const seen = typeof rule !== 'string' && rule.target.kind === 'name' ? names : this.#opsSeen;
    const near = nearest(text, seen);
    return new ConfigError(
      `${this.#who}: '${text}' fits nothing that the checkpointed layers compute (got ${this.label}). ` +
        (near.length > 0 ? `They have ${near.join(', ')}.` : 'They mark no names.'),
      { key: text, legal: [...seen] },
    );
  }
}

/** A decision in words. */
export function word(policy: CheckpointPolicy): string {
  if (typeof policy === 'object') return `compress to ${policy.compress}`;
  return policy.replace(/([A-Z])/g, ' $1').toLowerCase();
}
