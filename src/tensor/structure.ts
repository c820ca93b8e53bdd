/**
 * Tensors inside structures: arrays, plain objects, maps (keys and values) and sets, nested in any way.
 * Instances of other classes are one thing: what is inside them is theirs.
 */

import { Tensor } from './tensor.ts';

/** Visits every tensor inside `structure`, in order; a tensor that occurs twice is visited twice. */
export function forEachTensor(structure: unknown, visit: (tensor: Tensor) => void): void {
  walk(structure, visit, new Set());
}

/**
 * A copy of `structure` with every tensor replaced, and everything that is neither a tensor nor a
 * container as it was. What occurs twice, or inside itself, does so in the copy.
 */
export function mapTensors<T>(structure: T, replace: (tensor: Tensor) => unknown): T {
  return mapLeaves(structure, (leaf) => (leaf instanceof Tensor ? replace(leaf) : leaf));
}

/** A copy of `structure` with everything that is no container replaced by what `replace` makes of it. */
export function mapLeaves<T>(structure: T, replace: (leaf: unknown) => unknown): T {
  return copy(structure, replace, new Map()) as T;
}

function walk(structure: unknown, visit: (tensor: Tensor) => void, seen: Set<object>): void {
  if (structure instanceof Tensor) {
    visit(structure);
    return;
  }
  if (!isContainer(structure) || seen.has(structure)) return;
  seen.add(structure);
  for (const part of partsOf(structure)) walk(part, visit, seen);
}

type Container = readonly unknown[] | Map<unknown, unknown> | Set<unknown> | object;

function isContainer(value: unknown): value is Container {
  if (value === null || typeof value !== 'object') return false;
  if (Array.isArray(value) || value instanceof Map || value instanceof Set) return true;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

function* partsOf(container: Container): Generator<unknown> {
  if (container instanceof Map) for (const entry of container) yield* entry;
  else if (Array.isArray(container) || container instanceof Set) yield* container;
  else yield* Object.values(container);
}

function copy(
  value: unknown,
  replace: (leaf: unknown) => unknown,
  made: Map<object, unknown>,
): unknown {
  if (!isContainer(value)) return replace(value);
  if (made.has(value)) return made.get(value);
  if (Array.isArray(value)) {
    const list: unknown[] = [];
    made.set(value, list);
    for (const part of value) list.push(copy(part, replace, made));
    return list;
  }
  if (value instanceof Map) {
    const map = new Map<unknown, unknown>();
    made.set(value, map);
    for (const [key, part] of value) map.set(copy(key, replace, made), copy(part, replace, made));
    return map;
  }
  if (value instanceof Set) {
    const set = new Set<unknown>();
    made.set(value, set);
    for (const part of value) set.add(copy(part, replace, made));
    return set;
  }
  const twin: Record<string, unknown> = {};
  made.set(value, twin);
  for (const [key, part] of Object.entries(value)) twin[key] = copy(part, replace, made);
  return twin;
}
