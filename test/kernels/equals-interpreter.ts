/** The property that generated WebAssembly equals the float64 interpreter on exact random kernels. */

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { printExprs } from '../../src/ir/expr.ts';
import { choices, randomKernel } from './kernel-arbitrary.ts';
import { decode, encode, runReference, runWasm } from './kernel-harness.ts';

export function checkRandomKernels(numRuns: number): void {
  fc.assert(
    fc.property(fc.gen(), (g) => {
      const c = choices(g);
      const { spec, operands, scalars } = randomKernel(c);
      const options = {
        threads: c.integer(1, 3),
        relaxedSimd: c.pick([true, false]),
        memory64: c.integer(0, 3) === 0,
        gap: c.integer(0, 7) * 4,
      };
      const expected = runReference(spec, operands, scalars);
      const got = runWasm(spec, operands, scalars, options);
      got.forEach((bytes, k) => {
        const { dtype } = operands[k]!;
        const want = decode(dtype, encode({ dtype, values: expected[k]! }));
        const have = decode(dtype, bytes);
        const wrong = want.findIndex(
          (value, i) => value !== have[i] && !(Number.isNaN(value) && Number.isNaN(have[i])),
        );
        if (wrong < 0) return;
        assert.fail(
          `operand ${k} element ${wrong}: want ${want[wrong]}, got ${have[wrong]}\n` +
            `${JSON.stringify({ ...spec, outputs: undefined })} ${JSON.stringify(options)}\n` +
            `${JSON.stringify(spec.outputs.map(({ expr: _, ...rest }) => rest))}\n` +
            printExprs(spec.outputs.map((output) => output.expr)),
        );
      });
    }),
    { numRuns, endOnFailure: true },
  );
}
