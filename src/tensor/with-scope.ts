/** The public scope functions. */

import { closeScope, openScope } from './scope.ts';
import { forEachTensor } from './structure.ts';
import type { Tensor } from './tensor.ts';

/**
 * Runs `body`; every tensor made inside is disposed at its end, except those in the returned value
 * (tensors inside arrays, plain objects, maps and sets count) and those that were kept with keep().
 */
export function scope<T>(body: () => T): T {
  const opened = openScope();
  const kept: Tensor[] = [];
  try {
    const result = body();
    forEachTensor(result, (tensor) => kept.push(tensor));
    return result;
  } finally {
    closeScope(opened, kept);
  }
}

/** As `scope` for an asynchronous body. Scopes opened meanwhile by other code must end before it does. */
export async function asyncScope<T>(body: () => Promise<T>): Promise<T> {
  const opened = openScope();
  const kept: Tensor[] = [];
  try {
    const result = await body();
    forEachTensor(result, (tensor) => kept.push(tensor));
    return result;
  } finally {
    closeScope(opened, kept);
  }
}
