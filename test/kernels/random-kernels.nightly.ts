/** Many more random kernels than a run of the suite has time for. */

import { test } from 'node:test';
import { checkRandomKernels } from './equals-interpreter.ts';

test('20000 random kernels equal the interpreter exactly', () => {
  checkRandomKernels(20_000);
});
