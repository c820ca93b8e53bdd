/**
 * The `offload` key of the `activation_checkpointing` setting, and torchtune's
 * `enable_activation_offloading`: what they say, and putting it around the layers of a model.
 */

import { ConfigError } from '../core/errors.ts';
import type { ActivationOffload, OffloadOptions } from './offload.ts';
import { offloadProblem } from './offload.ts';
import type { CallWrapper, CheckpointableStack } from './wrapping.ts';

/** The setting as it is written. */
export interface OffloadSpec extends OffloadOptions {
  readonly min_bytes?: number | string;
}

/** A key as it was written, with its value. */
interface Given {
  readonly key: string;
  readonly value: unknown;
}

/**
 * The options that the two keys ask for; undefined for none. `mode` is what is recomputed: torchtune moves
 * region inputs only, and so its switch needs regions. Throws ConfigError.
 */
export function readOffload(
  own: Given | undefined,
  torchtune: Given | undefined,
  mode: string,
): OffloadOptions | undefined {
  if (torchtune && typeof torchtune.value !== 'boolean') {
    throw illegal(torchtune.key, torchtune.value, 'true or false');
  }
  if (own && torchtune?.value === false) {
    throw new ConfigError(
      `applyActivationCheckpointing: '${own.key}' contradicts '${torchtune.key}' (got ${JSON.stringify(own.value)} and false). ` +
        'Remove one of them.',
      { key: own.key, value: own.value, otherKey: torchtune.key, otherValue: false },
    );
  }
  if (torchtune?.value === true && mode === 'none') {
    throw new ConfigError(
      `applyActivationCheckpointing: '${torchtune.key}' moves the inputs of recomputed layers, and none is (got true with mode none). ` +
        "Turn on activation checkpointing, or use 'offload', which moves all that layers save.",
      { key: torchtune.key, value: true, otherKey: 'mode', otherValue: mode },
    );
  }
  if (own) return optionsOf(own);
  return torchtune?.value === true ? {} : undefined;
}

function optionsOf({ key, value }: Given): OffloadOptions {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw illegal(key, value, '{ to, dir, min_bytes, depth }, each of which may be left out');
  }
  const written = new Map<string, string>();
  const options: Record<string, unknown> = {};
  for (const [name, part] of Object.entries(value)) {
    const plain = name === 'min_bytes' ? 'minBytes' : name;
    if (written.has(plain)) throw illegal(`${key}.${name}`, part, 'one spelling of the key');
    written.set(plain, name);
    if (part !== undefined) options[plain] = part;
  }
  const problem = offloadProblem(options as OffloadOptions);
  if (!problem) return options as OffloadOptions;
  throw illegal(
    `${key}.${written.get(problem.key) ?? problem.key}`,
    problem.value,
    problem.legal.replace('minBytes', 'min_bytes'),
  );
}

function illegal(key: string, value: unknown, legal: string): ConfigError {
  return new ConfigError(
    `applyActivationCheckpointing: '${key}' is not legal (got ${JSON.stringify(value) ?? 'nothing'}). Use ${legal}.`,
    { key, value, legal },
  );
}

/** Throws ConfigError when each stack has one layer or region only, which would stay. */
export function checkOffload(unitsOfStacks: readonly number[]): void {
  if (unitsOfStacks.some((units) => units > 1)) return;
  throw new ConfigError(
    `applyActivationCheckpointing: 'offload' moves nothing (got stacks of ${unitsOfStacks.join(', ')} layers or regions, and the ` +
      'last one of a stack stays). Leave it out, or use more segments.',
    { key: 'offload', units: unitsOfStacks },
  );
}

/**
 * Puts offload around the layers, or regions of several layers, of each stack, inside which their own
 * wrappers stay. Of the last of a stack only what policies order is moved: backward needs what it saves at
 * once. Returns of how many all is moved.
 */
export function offloadStacks(
  stacks: readonly CheckpointableStack[],
  offload: ActivationOffload,
): number {
  const around = (wrapper: CallWrapper | undefined, moves: boolean): CallWrapper => {
    return (run, args) => {
      const call = () => (wrapper ? wrapper(run, args) : run(...args));
      return moves ? offload.run(call) : offload.lend(call);
    };
  };
  let count = 0;
  for (const stack of stacks) {
    if (stack.regions) {
      const last = stack.regions.length - 1;
      stack.regions = stack.regions.map((region, i) => ({
        ...region,
        wrapper: around(region.wrapper, i < last),
      }));
      count += last;
      continue;
    }
    const last = stack.layers.length - 1;
    for (const [i, layer] of stack.layers.entries()) {
      layer.callWrapper = around(layer.callWrapper, i < last);
    }
    count += last;
  }
  return count;
}
