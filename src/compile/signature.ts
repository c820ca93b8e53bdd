/** Which calls of a compiled step can share a plan, as far as their arguments say. */

import { ArgumentError } from '../core/errors.ts';
import { formatAval } from '../ir/aval.ts';
import { Tensor } from '../tensor/tensor.ts';

/** Text that is equal for calls that can share a plan. */
export function signature(args: readonly unknown[]): string {
  const seen = new Map<object, number>();
  const number = (value: object): number => {
    const known = seen.get(value);
    if (known === undefined) seen.set(value, seen.size);
    return known ?? seen.size - 1;
  };
  return JSON.stringify(args, (_, value: unknown) => {
    if (value instanceof Tensor) {
      return {
        tensor: `${formatAval(value.aval)}${value.requiresGrad ? '!' : ''}#${number(value)}`,
        ...leafSignature(value, number),
      };
    }
    if (typeof value === 'function') {
      throw new ArgumentError(
        'compile: a function was passed to a compiled step. Make it part of the step instead.',
      );
    }
    if (typeof value === 'bigint') return { bigint: String(value) };
    if (typeof value === 'number' && (!Number.isFinite(value) || Object.is(value, -0))) {
      return { number: Object.is(value, -0) ? '-0' : String(value) };
    }
    if (value === undefined) return { undefined: 0 };
    if (value === null || typeof value !== 'object') return value;
    if (seen.has(value)) return `#${number(value)}`;
    number(value);
    if (value instanceof Map || value instanceof Set) return { collection: [...value] };
    if (Array.isArray(value) || ArrayBuffer.isView(value) || isPlain(value)) return value;
    return { instance: instanceNumber(value) };
  });
}

/** Gradient and hooks of a tensor among the arguments, where there are any. */
function leafSignature(leaf: Tensor, number: (value: object) => number): object {
  const { grad, leafHooks } = leaf;
  const hooks = [...leafHooks.gradient, undefined, ...leafHooks.accumulated];
  return {
    ...(grad && {
      grad: `${formatAval(grad.aval)}${grad.requiresGrad ? '!' : ''}#${number(grad)}`,
    }),
    ...(hooks.length > 1 && { hooks: hooks.map((hook) => (hook ? instanceNumber(hook) : 0)) }),
  };
}

function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

const instanceNumbers = new WeakMap<object, number>();
let instances = 0;

/** Objects of classes keep what they are to themselves: each is taken for different from all others. */
function instanceNumber(value: object): number {
  const known = instanceNumbers.get(value) ?? instances++;
  instanceNumbers.set(value, known);
  return known;
}
