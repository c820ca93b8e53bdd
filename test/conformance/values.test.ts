/** Every record's samples: the CPU backend against the float64 reference, in several layouts and dtypes. */

import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { type DType, bytesPerElement, isFloat } from '../../src/core/dtype.ts';
import { DTypeError } from '../../src/core/errors.ts';
import { avalBytes } from '../../src/ir/aval.ts';
import type { AnyOp, Sample } from '../../src/ir/op.ts';
import '../../src/ops/methods.ts';
import { allOps } from '../../src/ops/registry.ts';
import {
  createCpuBackend,
  createNullBackend,
  createReferenceBackend,
} from '../../src/runtime/registry.ts';
import type { Backend } from '../../src/runtime/backend.ts';
import { currentBackend, setBackend } from '../../src/tensor/backend.ts';
import { toArray, toHost } from '../../src/tensor/factory.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { scope } from '../../src/tensor/with-scope.ts';
import { difference } from '../support/fixtures.ts';
import { applySample, made, madeTransposed, valuesOf } from '../support/op-samples.ts';

const before = currentBackend();
const cpu = createCpuBackend({ threads: 2 });
const reference = createReferenceBackend();
const nothing = createNullBackend();

after(() => {
  setBackend(before);
  for (const backend of [cpu, reference, nothing]) {
    const { live } = backend.allocator.stats();
    backend.dispose();
    assert.equal(live, 0, `live bytes at the end on ${backend.name}`);
  }
});

/** Relative steps of the stored formats, doubled: one rounding on each side. */
const precision: Partial<Record<DType, number>> = { float16: 2 ** -10, bfloat16: 2 ** -7 };

const near = { rtol: 2e-5, atolScale: 3e-6 };

for (const op of allOps) {
  if (op.samples.length === 0) continue;
  describe(op.name, () => {
    for (const sample of op.samples) {
      it(`${sample.label}: cpu equals reference`, () => {
        const want = results(reference, op, sample, made);
        const got = results(cpu, op, sample, made);
        compare(op, got, want, near);
      });
      it(`${sample.label}: strided inputs give the same${op.lower.kind === 'routine' ? '' : ' bits'}`, () => {
        if (op.lower.kind === 'routine') {
          // A matrix library may add in another order when an operand lies transposed.
          const dense = results(cpu, op, sample, made);
          compare(op, results(cpu, op, sample, madeTransposed), dense, near);
        } else {
          assert.deepEqual(bits(op, sample, madeTransposed), bits(op, sample, made));
        }
      });
      it(`${sample.label}: the null backend gives the shapes, and the cost is sane`, () => {
        setBackend(nothing);
        const avals = sample.inputs.map(({ shape, dtype }) => ({ shape, dtype }));
        const outputs = op.infer(avals, sample.params);
        scope(() => {
          const inputs = sample.inputs.map((input, i) => made(input, valuesOf(op, sample)[i]!));
          const made_ = applySample(op, inputs, sample.params);
          assert.deepEqual(
            made_.map((x) => x.aval),
            outputs.map(({ shape, dtype }) => ({ shape, dtype })),
          );
        });
        const cost = op.cost(avals, outputs, sample.params);
        assert.ok(Number.isFinite(cost.flops) && cost.flops >= 0);
        if (op.lower.kind !== 'view') {
          assert.equal(
            cost.bytesWritten,
            outputs.reduce((sum, x) => sum + avalBytes(x), 0),
          );
        }
      });
      for (const dtype of ['bfloat16', 'float16'] as const) {
        const narrowed = inDType(sample, dtype);
        if (!narrowed) continue;
        it(`${sample.label}: ${dtype} is computed in float32 and rounded once`, (t) => {
          try {
            const want = results(reference, op, narrowed, made);
            const got = results(cpu, op, narrowed, made);
            const step = precision[dtype] ?? 0;
            compare(op, got, want, { rtol: step, atolScale: step / 16 });
          } catch (error) {
            if (!(error instanceof DTypeError)) throw error;
            t.skip(error.message);
          }
        });
      }
    }
  });
}

interface Result {
  readonly dtype: DType;
  readonly values: Float64Array;
}

type Make = typeof made;

function results(backend: Backend, op: AnyOp, sample: Sample<unknown>, make: Make): Result[] {
  return run(backend, op, sample, make, (x) => ({ dtype: x.dtype, values: toArray(x) }));
}

function bits(op: AnyOp, sample: Sample<unknown>, make: Make): string[] {
  return run(cpu, op, sample, make, (x) => Buffer.from(toHost(x).data).toString('hex'));
}

function run<T>(
  backend: Backend,
  op: AnyOp,
  sample: Sample<unknown>,
  make: Make,
  read: (x: Tensor) => T,
): T[] {
  setBackend(backend);
  const values = valuesOf(op, sample);
  return scope(() => {
    const inputs = sample.inputs.map((input, i) => make(input, values[i]!));
    return applySample(op, inputs, sample.params).map(read);
  });
}

function compare(
  op: AnyOp,
  got: readonly Result[],
  want: readonly Result[],
  tolerance: { rtol: number; atolScale: number },
): void {
  assert.equal(got.length, want.length);
  got.forEach((output, k) => {
    const expected = want[k]!;
    assert.equal(output.dtype, expected.dtype);
    const exact = !isFloat(output.dtype) || bytesPerElement(output.dtype) === 0;
    const text = difference(
      output.values,
      expected.values,
      exact ? { rtol: 0, atolScale: 0 } : tolerance,
    );
    assert.equal(text, null, `${op.name} output ${k}: ${text}`);
  });
}

/** The sample with its float32 inputs and params in a 16-bit dtype; undefined where there are none. */
function inDType(sample: Sample<unknown>, dtype: DType): Sample<unknown> | undefined {
  if (!sample.inputs.some((input) => input.dtype === 'float32')) return undefined;
  const inputs = sample.inputs.map((input) =>
    input.dtype === 'float32' ? { ...input, dtype } : input,
  );
  return { ...sample, inputs };
}
