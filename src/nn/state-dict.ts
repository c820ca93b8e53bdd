/** Loading values by name into the tensors of a module: all checks first, then the writes. */

import { ConfigError, ShapeError, nearest } from '../core/errors.ts';
import type { HostTensor } from '../core/host-tensor.ts';
import { type Shape, formatShape, sameShape } from '../core/shape.ts';
import { copyInPlace } from '../ops/in-place.ts';
import { noGrad } from '../tensor/context.ts';
import { fromHost } from '../tensor/factory.ts';
import { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { writeTensor } from '../tensor/write.ts';
import { roleOf } from './parameter.ts';

export interface LoadReport {
  /** Names of the module that the entries lack; only with strict: false. */
  readonly missing: readonly string[];
  /** Names of the entries that the module lacks; only with strict: false. */
  readonly unexpected: readonly string[];
}

interface Target {
  readonly name: string;
  readonly tensor: Tensor;
  /** First name of a tied tensor when `name` is another one. */
  readonly alias: string | undefined;
}

/** What goes where, after all checks. */
export interface LoadPlan extends LoadReport {
  readonly targets: ReadonlyMap<string, Tensor>;
}

/**
 * Matches names and shapes of `entries` with `targets`. A tied tensor may come under any of its names.
 * Throws ConfigError for missing and unexpected names when `strict`, ShapeError for another shape.
 */
export function planLoad(
  targets: Iterable<Target>,
  entries: Iterable<{ readonly name: string; readonly shape: Shape }>,
  strict: boolean,
): LoadPlan {
  const all = [...targets].filter(({ tensor }) => roleOf(tensor) !== 'table');
  const byName = new Map(all.map(({ name, tensor }) => [name, tensor]));
  const found = new Map<string, Tensor>();
  const unexpected: string[] = [];
  for (const { name, shape } of entries) {
    const tensor = byName.get(name);
    if (!tensor) {
      unexpected.push(name);
      continue;
    }
    if (!sameShape(tensor.shape, shape)) {
      throw new ShapeError(
        `loadStateDict: '${name}' has another shape (expected ${formatShape(tensor.shape)}, got ${formatShape(shape)}). ` +
          'Build the model with the configuration that belongs to these weights.',
        { name, expected: tensor.shape, found: shape },
      );
    }
    found.set(name, tensor);
  }
  const covered = new Set(found.values());
  const missing = all
    .filter(({ tensor, alias }) => alias === undefined && !covered.has(tensor))
    .map(({ name }) => name);
  if (strict && (missing.length > 0 || unexpected.length > 0)) {
    throw new ConfigError(mismatchText(missing, unexpected, byName.keys()), {
      key: 'stateDict',
      missing,
      unexpected,
    });
  }
  return { targets: found, missing, unexpected };
}

export function loadEntries(
  targets: Iterable<Target>,
  entries: Iterable<readonly [string, Tensor | HostTensor]>,
  strict: boolean,
): LoadReport {
  const list = [...entries];
  const plan = planLoad(
    targets,
    list.map(([name, { shape }]) => ({ name, shape })),
    strict,
  );
  for (const [name, source] of list) {
    const target = plan.targets.get(name);
    if (target) writeValues(target, source);
  }
  return { missing: plan.missing, unexpected: plan.unexpected };
}

/** Overwrites `target` with `source`, converted to its dtype. Both have one shape. */
export function writeValues(target: Tensor, source: Tensor | HostTensor): void {
  if (!(source instanceof Tensor) && source.dtype === target.dtype) {
    writeTensor(target, source);
    return;
  }
  noGrad(() =>
    scope(() => {
      copyInPlace(target, source instanceof Tensor ? source : fromHost(source, 'temporary'));
    }),
  );
}

const listed = 8;

function mismatchText(
  missing: readonly string[],
  unexpected: readonly string[],
  legal: Iterable<string>,
): string {
  const names = [...legal];
  const parts: string[] = [];
  if (missing.length > 0) parts.push(`${missing.length} missing: ${shown(missing)}`);
  if (unexpected.length > 0) {
    const near = (name: string): string => {
      const [closest] = nearest(name, names, 1);
      return closest === undefined ? name : `${name} (nearest: ${closest})`;
    };
    const texts = unexpected.slice(0, listed).map(near);
    parts.push(`${unexpected.length} unexpected: ${shown(texts, unexpected.length)}`);
  }
  return (
    `loadStateDict: the names do not match the model (got ${parts.join('; ')}). ` +
    'Use the weights of this model, or strict: false to load what matches.'
  );
}

function shown(names: readonly string[], total = names.length): string {
  const head = names.slice(0, listed).join(', ');
  return total > listed ? `${head}, and ${total - listed} more` : head;
}
