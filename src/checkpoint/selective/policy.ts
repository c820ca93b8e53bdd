/**
 * Checkpoint policies (checkpointing.md S1): pure functions that say, for each op of a region, what
 * becomes of its outputs (torch.utils.checkpoint.CheckpointPolicy).
 */

import { ArgumentError, CheckpointError } from '../../core/errors.ts';
import { type Aval, avalBytes, formatAval } from '../../ir/aval.ts';
import type { CheckpointPolicy as Policy, SaveFormat } from '../../ir/graph.ts';
import type { AnyOp, Params, Traits } from '../../ir/op.ts';

export type CheckpointPolicy = Policy;

/** The values a policy returns. Must is an order, prefer a hint that a byte budget may overrule. */
export const CheckpointPolicy = {
  MustSave: 'mustSave',
  PreferSave: 'preferSave',
  MustRecompute: 'mustRecompute',
  PreferRecompute: 'preferRecompute',
  MustOffload: 'mustOffload',
  PreferOffload: 'preferOffload',
  /** Kept in fewer bits: not the same bits when backward reads it. */
  Compress: (format: SaveFormat): Policy => ({ compress: format }),
} as const;

/** What a policy may look at. Values are not among it. */
export interface PolicyContext {
  /** Name of the op record, such as `linear`. */
  readonly op: string;
  readonly traits: Traits;
  readonly params: Params;
  /** Dotted path of the module being called; '' outside modules. */
  readonly module: string;
  /** The checkpointName mark, when the policy is asked about a marked value. */
  readonly name: string | undefined;
  /** How many calls of this op the region had before this one. */
  readonly index: number;
  /** The same count over all ops of its class, such as all matrix products. */
  readonly classIndex: number;
  readonly inputs: readonly Aval[];
  /** The first output. */
  readonly output: Aval;
  readonly outputs: readonly Aval[];
  /** Work of one execution; a multiply-add counts two. */
  readonly flops: number;
  /** Bytes of all outputs. */
  readonly bytes: number;
}

/** True is MustSave, false is PreferRecompute. */
export type PolicyFunction = (context: PolicyContext) => CheckpointPolicy | boolean;

const words: readonly unknown[] = [
  'mustSave',
  'preferSave',
  'mustRecompute',
  'preferRecompute',
  'mustOffload',
  'preferOffload',
];
export const saveFormats: readonly SaveFormat[] = ['bf16', 'fp8', 'int8'];

/** Asks `policy`; throws CheckpointError, with the place, when it throws or returns something else. */
export function askPolicy(policy: PolicyFunction, context: PolicyContext): CheckpointPolicy {
  let answer: unknown;
  try {
    answer = policy(context);
  } catch (error) {
    if (error instanceof CheckpointError) throw error;
    throw new CheckpointError(
      `checkpoint: the policy threw at ${describeContext(context)} (got ${String(error)}). ` +
        'A policy is a pure function of its context; correct it.',
      placeOf(context),
      error,
    );
  }
  if (answer === true) return 'mustSave';
  if (answer === false) return 'preferRecompute';
  if (isPolicy(answer)) return answer;
  throw new CheckpointError(
    `checkpoint: the policy returned no CheckpointPolicy at ${describeContext(context)} (got ${show(answer)}). ` +
      'Return a CheckpointPolicy, or true to save and false to recompute.',
    { ...placeOf(context), answer },
  );
}

/** Whether the values are kept in some form instead of being computed again. */
export function isKept(policy: CheckpointPolicy): boolean {
  return policy !== 'mustRecompute' && policy !== 'preferRecompute';
}

export function isSave(policy: CheckpointPolicy): boolean {
  return policy === 'mustSave' || policy === 'preferSave';
}

export function samePolicy(a: CheckpointPolicy, b: CheckpointPolicy): boolean {
  return show(a) === show(b);
}

/** Op, module and output in words, for errors. */
export function describeContext(context: PolicyContext): string {
  const { op, module, name, output } = context;
  const place = module === '' ? '' : ` in ${module}`;
  const mark = name === undefined ? '' : ` named '${name}'`;
  return `${op} -> ${formatAval(output)}${mark}${place}`;
}

export function placeOf({ op, module, name, index }: PolicyContext): Record<string, unknown> {
  return { op, module, name, index };
}

function isPolicy(answer: unknown): answer is CheckpointPolicy {
  if (words.includes(answer)) return true;
  if (answer === null || typeof answer !== 'object' || !('compress' in answer)) return false;
  return saveFormats.includes(answer.compress as SaveFormat);
}

function show(value: unknown): string {
  return typeof value === 'string' ? `'${value}'` : (JSON.stringify(value) ?? String(value));
}

/** Counts the ops of one run of a region and describes each to policies. */
export class PolicyContexts {
  readonly #counts = new Map<string, number>();

  /** The context of the next op; each op must be counted once. */
  next(
    op: AnyOp,
    inputs: readonly Aval[],
    params: Params,
    outputs: readonly Aval[],
    module: string,
    name?: string,
  ): PolicyContext {
    const index = this.#count(op.name);
    const classIndex = this.#count(`#${op.traits.class}`);
    return new OpContext(op, inputs, params, outputs, module, name, index, classIndex);
  }

  #count(key: string): number {
    const count = this.#counts.get(key) ?? 0;
    this.#counts.set(key, count + 1);
    return count;
  }
}

/** The same op asked about again, under the name that its value was given. */
export function renamed(context: PolicyContext, name: string): PolicyContext {
  return context instanceof OpContext ? context.named(name) : { ...context, name };
}

class OpContext implements PolicyContext {
  readonly #op: AnyOp;
  readonly params: Params;
  readonly module: string;
  readonly name: string | undefined;
  readonly index: number;
  readonly classIndex: number;
  readonly inputs: readonly Aval[];
  readonly outputs: readonly Aval[];

  constructor(
    op: AnyOp,
    inputs: readonly Aval[],
    params: Params,
    outputs: readonly Aval[],
    module: string,
    name: string | undefined,
    index: number,
    classIndex: number,
  ) {
    this.#op = op;
    this.params = params;
    this.module = module;
    this.name = name;
    this.index = index;
    this.classIndex = classIndex;
    this.inputs = inputs;
    this.outputs = outputs;
  }

  named(name: string): OpContext {
    const { params, module, index, classIndex, inputs, outputs } = this;
    return new OpContext(this.#op, inputs, params, outputs, module, name, index, classIndex);
  }

  get op(): string {
    return this.#op.name;
  }

  get traits(): Traits {
    return this.#op.traits;
  }

  get output(): Aval {
    const first = this.outputs[0];
    if (!first) throw new ArgumentError(`policy: ${this.op} has no output (got 0 outputs).`);
    return first;
  }

  /** Counted when asked for: it walks the op's expression. */
  get flops(): number {
    return this.#op.cost(this.inputs, this.outputs, this.params).flops;
  }

  get bytes(): number {
    return this.outputs.reduce((sum, aval) => sum + avalBytes(aval), 0);
  }
}
