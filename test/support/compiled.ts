/** Running a compiled step in a test, and reading its values. */

import assert from 'node:assert/strict';
import { type CompiledStep, compile } from '../../src/compile/compile.ts';
import { toArray } from '../../src/tensor/factory.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { scope } from '../../src/tensor/with-scope.ts';

/** Runs `body` in a scope with `step` compiled and verified after every pass, and disposes the plans. */
export function withCompiled<A extends readonly unknown[], R>(
  step: (...args: A) => R,
  body: (compiled: CompiledStep<A, R>) => void,
): void {
  const compiled = compile(step, { verify: true });
  try {
    scope(() => body(compiled));
  } finally {
    compiled.dispose();
  }
}

/** The elements of a tensor that must be there. */
export function values(x: Tensor | undefined): number[] {
  assert.ok(x);
  return [...toArray(x)];
}
