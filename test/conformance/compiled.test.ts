/** Every record's samples once more inside a compiled step: forward and gradients with the bits of eager. */

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { grad } from '../../src/autograd/backward.ts';
import { compile } from '../../src/compile/compile.ts';
import { isFloat } from '../../src/core/dtype.ts';
import type { AnyOp, Sample } from '../../src/ir/op.ts';
import '../../src/ops/methods.ts';
import { mul } from '../../src/ops/arithmetic.ts';
import { sum } from '../../src/ops/broadcast.ts';
import { sin } from '../../src/ops/unary.ts';
import { allOps } from '../../src/ops/registry.ts';
import { toHost } from '../../src/tensor/factory.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { scope } from '../../src/tensor/with-scope.ts';
import { checkLiveBytes } from '../support/backend.ts';
import { applySample, made, valuesOf } from '../support/op-samples.ts';

checkLiveBytes();

/** Outputs and, for differentiable ops, gradients of a weighted sum of them. */
function stepOf(op: AnyOp, sample: Sample<unknown>): (inputs: Tensor[]) => Tensor[] {
  return (inputs) => {
    const outputs = applySample(op, inputs, sample.params);
    const floats = outputs.filter((x) => x.requiresGrad);
    const wanted = inputs.filter((x) => x.requiresGrad);
    if (floats.length === 0 || wanted.length === 0) return outputs;
    const weighted = floats.map((x) => sum(mul(x, sin(x))));
    const gradients = grad(weighted, wanted, { allowUnused: true });
    return [...outputs, ...gradients.filter((x) => x !== undefined)];
  };
}

function inputsOf(op: AnyOp, sample: Sample<unknown>): Tensor[] {
  const values = valuesOf(op, sample);
  return sample.inputs.map((input, i) => {
    const tensor = made(input, values[i] ?? new Float64Array());
    // What an in-place op overwrites cannot be saved for the gradient of its other inputs.
    const wanted = !op.traits.updates || i === 0;
    if (op.vjp !== 'nondifferentiable' && isFloat(input.dtype)) tensor.requiresGrad = wanted;
    return tensor;
  });
}

for (const op of allOps) {
  if (op.samples.length === 0) continue;
  describe(op.name, () => {
    for (const sample of op.samples) {
      it(`${sample.label}: compiled equals eager bit for bit`, () => {
        scope(() => {
          const step = stepOf(op, sample);
          // Some ops change several inputs in place: each run has its own.
          const want = scope(() => step(inputsOf(op, sample)).map((x) => toHost(x)));
          const compiled = compile(step, { verify: true });
          const got = scope(() => compiled(inputsOf(op, sample)).map((x) => toHost(x)));
          assert.ok(compiled.plans.length === 1, 'the compiled path ran');
          compiled.dispose();
          assert.deepEqual(got, want);
        });
      });
    }
  });
}
