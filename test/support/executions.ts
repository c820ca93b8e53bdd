/**
 * Runs one training step in each of the two executions, so that a test can be written once: eagerly, op by
 * op, and compiled.
 */

import { compile } from '../../src/compile/compile.ts';

export interface Execution {
  readonly name: 'eager' | 'compiled';
  /** `step` as it is run here, and what frees what running it keeps. */
  readonly prepare: <A extends readonly unknown[], R>(
    step: (...args: A) => R,
  ) => { readonly run: (...args: A) => R; readonly dispose: () => void };
}

export const executions: readonly Execution[] = [
  { name: 'eager', prepare: (step) => ({ run: step, dispose: () => {} }) },
  {
    name: 'compiled',
    prepare: (step) => {
      const compiled = compile(step, { verify: true });
      return { run: compiled, dispose: () => compiled.dispose() };
    },
  },
];
