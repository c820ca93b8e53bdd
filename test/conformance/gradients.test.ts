/**
 * Every differentiable record's samples: the vjp against central differences along a random direction,
 * on the float64 reference backend; then the same for the gradient's gradient; and each composition
 * against the op it defines.
 */

import assert from 'node:assert/strict';
import { type TestContext, after, describe, it } from 'node:test';
import { grad } from '../../src/autograd/backward.ts';
import { isFloat } from '../../src/core/dtype.ts';
import { AutogradError } from '../../src/core/errors.ts';
import type { AnyOp, Sample } from '../../src/ir/op.ts';
import '../../src/ops/methods.ts';
import { allOps } from '../../src/ops/registry.ts';
import { createReferenceBackend } from '../../src/runtime/registry.ts';
import { currentBackend, setBackend } from '../../src/tensor/backend.ts';
import { noGrad } from '../../src/tensor/context.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { scope } from '../../src/tensor/with-scope.ts';
import { difference } from '../support/fixtures.ts';
import {
  applySample,
  exactTensor,
  exactValues,
  made,
  stream,
  valuesOf,
} from '../support/op-samples.ts';

const before = currentBackend();
const reference = createReferenceBackend();
setBackend(reference);

after(() => {
  const { live } = reference.allocator.stats();
  setBackend(before);
  reference.dispose();
  assert.equal(live, 0, 'live bytes at the end');
});

const epsilon = 1e-4;

for (const op of allOps) {
  const differentiable = op.vjp !== 'nondifferentiable';
  const samples = op.samples.filter(
    (sample) => sample.inputs.some((input) => isFloat(input.dtype)) && hasFloatOutput(op, sample),
  );
  if (!differentiable || samples.length === 0) continue;
  describe(op.name, () => {
    for (const sample of samples) {
      it(`${sample.label}: gradient`, (t) => {
        const problem = problemOf(op, sample);
        orChanged(t, op, () => agree(problem, (x) => problem.loss(x)));
      });
      it(`${sample.label}: gradient of the gradient`, (t) => {
        const problem = problemOf(op, sample);
        const weights = problem.randoms('second');
        const second = (x: readonly Tensor[]): Tensor => {
          const gradients = grad(problem.loss(x), x, { createGraph: true, allowUnused: true });
          const terms = gradients.flatMap((gradient, i) =>
            gradient ? [gradient.mul(exactTensor(x[i]!.shape, weights[i]!)).sum()] : [],
          );
          return terms.length > 0
            ? terms.reduce((a, b) => a.add(b))
            : exactTensor([], new Float64Array(1));
        };
        orChanged(t, op, () => agree(problem, second));
      });
      if (op.compose) {
        it(`${sample.label}: composition`, () => {
          scope(() => {
            const inputs = sample.inputs.map((input, i) => made(input, valuesOf(op, sample)[i]!));
            const want = applySample(op, inputs, sample.params);
            const got = op.compose!(inputs, sample.params) as Tensor[];
            assert.equal(got.length, want.length);
            got.forEach((output, k) => {
              assert.deepEqual(output.aval, want[k]!.aval);
              const text = difference(exactValues(output), exactValues(want[k]!), {
                rtol: 1e-12,
                atolScale: 1e-12,
              });
              assert.equal(text, null, `output ${k}: ${text}`);
            });
          });
        });
      }
    }
  });
}

/** Runs `check`; an in-place op whose vjp needs the value it overwrote is right to refuse. */
function orChanged(t: TestContext, op: AnyOp, check: () => void): void {
  try {
    check();
  } catch (error) {
    const refused = error instanceof AutogradError && error.message.includes('changed in place');
    if (!op.traits.updates || !refused) throw error;
    t.skip('its gradient needs the value that it overwrote');
  }
}

interface Problem {
  /** Values of the float inputs. */
  readonly start: readonly Float64Array[];
  readonly shapes: readonly (readonly number[])[];
  /** One random array per float input. */
  readonly randoms: (purpose: string) => Float64Array[];
  /** A random weighted sum of all float outputs, as a function of the float inputs. */
  readonly loss: (floats: readonly Tensor[]) => Tensor;
}

function problemOf(op: AnyOp, sample: Sample<unknown>): Problem {
  const values = valuesOf(op, sample);
  const floating = sample.inputs.flatMap((input, i) => (isFloat(input.dtype) ? [i] : []));
  const uniform = (purpose: string, length: number): Float64Array => {
    const next = stream(`${op.name} ${sample.label} ${purpose}`);
    return Float64Array.from({ length }, () => 2 * next() - 1);
  };
  return {
    start: floating.map((i) => values[i]!),
    shapes: floating.map((i) => sample.inputs[i]!.shape),
    randoms: (purpose) => floating.map((i) => uniform(`${purpose} ${i}`, values[i]!.length)),
    loss: (floats) => {
      const inputs = sample.inputs.map((input, i) => {
        const place = floating.indexOf(i);
        return place >= 0 ? floats[place]! : made(input, values[i]!);
      });
      const outputs = applySample(op, inputs, sample.params);
      return outputs
        .filter((output) => isFloat(output.dtype))
        .map((output, k) =>
          output.mul(exactTensor(output.shape, uniform(`out ${k}`, output.size))).sum(),
        )
        .reduce((a, b) => a.add(b));
    },
  };
}

/** Asserts that the gradient of `value` along a random direction is its central difference. */
function agree(problem: Problem, value: (floats: readonly Tensor[]) => Tensor): void {
  const direction = problem.randoms('direction');
  const at = (offset: number, requiresGrad: boolean): Tensor[] =>
    problem.start.map((values, i) => {
      const moved = values.map((v, k) => v + offset * direction[i]![k]!);
      const x = exactTensor(problem.shapes[i]!, moved);
      x.requiresGrad = requiresGrad;
      return x;
    });
  const along = scope(() => {
    const x = at(0, true);
    const total = value(x);
    if (!total.requiresGrad) return 0;
    const gradients = grad(total, x, { allowUnused: true });
    return gradients.reduce((sum, gradient, i) => {
      if (!gradient) return sum;
      const own = exactValues(gradient);
      return sum + own.reduce((dot, v, k) => dot + v * direction[i]![k]!, 0);
    }, 0);
  });
  const valueAt = (offset: number): number =>
    scope(() => exactValues(noGradLeaves(value, at(offset, true)))[0]!);
  const slope =
    (8 * (valueAt(epsilon) - valueAt(-epsilon)) - (valueAt(2 * epsilon) - valueAt(-2 * epsilon))) /
    (12 * epsilon);
  const scale = Math.max(1, Math.abs(slope), Math.abs(along));
  assert.ok(
    Math.abs(slope - along) <= 1e-7 * scale,
    `the gradient along the direction is ${along}, the difference quotient ${slope}`,
  );
}

/** The value without keeping its graph. */
function noGradLeaves(value: (x: readonly Tensor[]) => Tensor, x: readonly Tensor[]): Tensor {
  const result = value(x);
  return noGrad(() => result.detach());
}

function hasFloatOutput(op: AnyOp, sample: Sample<unknown>): boolean {
  const avals = sample.inputs.map(({ shape, dtype }) => ({ shape, dtype }));
  return op.infer(avals, sample.params).some((output) => isFloat(output.dtype));
}
