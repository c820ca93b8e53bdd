/** Every op against what PyTorch computed: values and gradients, on the CPU and reference backends. */

import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { grad } from '../../src/autograd/backward.ts';
import { isFloat, type DType } from '../../src/core/dtype.ts';
import { createCpuBackend, createReferenceBackend } from '../../src/runtime/registry.ts';
import { currentBackend, setBackend } from '../../src/tensor/backend.ts';
import { fromHost, toArray } from '../../src/tensor/factory.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { scope } from '../../src/tensor/with-scope.ts';
import { expand, permute, slice, transpose, type Range } from '../../src/ops/index.ts';
import type { OpCase, OpInput, Tolerance, ViewStep } from '../support/fixture-types.ts';
import { difference, type Fixture, loadFixture, opGroups } from '../support/fixtures.ts';
import { opCalls } from '../support/op-calls.ts';

type OpFixture = Fixture<{ readonly cases: readonly OpCase[] }>;

for (const make of [createCpuBackend, createReferenceBackend]) {
  const before = currentBackend();
  const backend = make();
  describe(`PyTorch's results on the ${backend.name} backend`, () => {
    after(() => {
      const { live } = backend.allocator.stats();
      setBackend(before);
      backend.dispose();
      assert.equal(live, 0, 'live bytes at the end');
    });
    for (const group of opGroups()) {
      const fixture = loadFixture(group);
      const names = [...new Set(fixture.manifest.cases.map((entry) => entry.op))];
      for (const name of names) {
        const skip = opCalls[name] ? false : 'no call in test/support/op-calls.ts';
        it(`${group} ${name}`, { skip }, () => {
          setBackend(backend);
          const failures = fixture.manifest.cases
            .filter((entry) => entry.op === name)
            .flatMap((entry) => scope(() => check(fixture, entry)));
          assert.deepEqual(failures, []);
        });
      }
    }
  });
}

/** Elements in which Retune differs from PyTorch on purpose. */
const deviations: Readonly<
  Record<string, { elements?: readonly number[]; floor?: number; reason: string }>
> = {
  'gelu/special': {
    elements: [4],
    reason: "gelu(inf) is inf; PyTorch's vectorized kernel gives NaN, its scalar one inf",
  },
  'scaledDotProductAttention/windowOne': {
    floor: 1e-6,
    reason: 'a softmax over one key has no gradient; the tiled backward leaves a rounding error',
  },
  'scaledDotProductAttention/causalOne': {
    floor: 1e-6,
    reason: 'as windowOne; whether the error is there depends on the processor',
  },
};

/** Gradients that sum over broadcast axes depend on the order of addition even where values are exact. */
function toleranceOf(entry: OpCase, what: string): Tolerance {
  const exact = entry.tolerance.rtol === 0 && entry.tolerance.atolScale === 0;
  const summed = what.startsWith('gradient') && (entry.tags ?? []).includes('broadcast');
  return exact && summed ? { rtol: 2e-6, atolScale: 2e-7 } : entry.tolerance;
}

/** What differs in one case, in words. */
function check(fixture: OpFixture, entry: OpCase): string[] {
  try {
    return compare(fixture, entry);
  } catch (error) {
    return [`${entry.op}/${entry.case}: ${(error as Error).stack}`];
  }
}

function compare(fixture: OpFixture, entry: OpCase): string[] {
  const leaves: Tensor[] = [];
  const inputs = entry.inputs.map((input) => operand(fixture, input, entry, leaves));
  const call = opCalls[entry.op];
  assert.ok(call);
  const result = call(inputs, entry.params);
  const outputs = Array.isArray(result) ? result : [result];
  const failures: string[] = [];
  const report = (what: string, got: Tensor, key: string, reference: string | undefined): void => {
    const want = fixture.array(key);
    const where = `${entry.op}/${entry.case} ${what}`;
    if (got.dtype !== want.dtype)
      failures.push(`${where}: dtype ${got.dtype}, expected ${want.dtype}`);
    if (`${got.shape}` !== `${want.shape}`)
      failures.push(`${where}: shape [${got.shape}], expected [${want.shape}]`);
    const deviation = deviations[`${entry.op}/${entry.case}`];
    const known = deviation?.elements ?? [];
    const floor = deviation?.floor ?? 0;
    const agrees = (expected: Float64Array): string | null => {
      const values = toArray(got).map((value, i) => {
        if (known.includes(i)) return expected[i] ?? 0;
        return Math.abs(value) < floor ? 0 : value;
      });
      return difference(values, expected, toleranceOf(entry, what));
    };
    const text = agrees(want.values);
    if (!text) return;
    const exact = reference === undefined ? undefined : fixture.array(reference);
    if (exact && !agrees(exact.values)) return;
    failures.push(`${where}: ${text}`);
  };
  entry.outputs.forEach((output, i) => {
    report(output.name, outputs[i]!, output.key, entry.ref?.[output.name]);
  });
  const wanted = Object.entries(entry.grads ?? {});
  if (wanted.length === 0) return failures;
  const given = entry.outputs.map((output) => {
    const key = entry.cotangents?.[output.name];
    return key === undefined ? undefined : upload(fixture.array(key));
  });
  const used = outputs.filter((_, i) => given[i] !== undefined);
  const gradients = grad(
    used,
    wanted.map(([name]) => inputs[entry.inputs.findIndex((input) => input.name === name)]!),
    { gradOutputs: given.filter((cotangent) => cotangent !== undefined), allowUnused: true },
  );
  wanted.forEach(([name, key], i) => {
    const got = gradients[i];
    if (!got) failures.push(`${entry.op}/${entry.case}: no gradient of ${name}`);
    else report(`gradient of ${name}`, got, key, entry.ref?.[`grad.${name}`]);
  });
  return failures;
}

function upload(array: { dtype: string; shape: readonly number[]; bytes: Uint8Array }): Tensor {
  return fromHost({ dtype: array.dtype as DType, shape: array.shape, data: array.bytes });
}

/** The operand as the op sees it: a view of the stored base where the case has one. */
function operand(fixture: OpFixture, input: OpInput, entry: OpCase, leaves: Tensor[]): Tensor {
  const base = upload(fixture.array(input.key));
  if (entry.grads?.[input.name] !== undefined && isFloat(base.dtype)) base.requiresGrad = true;
  leaves.push(base);
  return (input.view?.steps ?? []).reduce(applyStep, base);
}

function applyStep(x: Tensor, step: ViewStep): Tensor {
  switch (step[0]) {
    case 'transpose':
      return transpose(x, step[1], step[2]);
    case 'permute':
      return permute(x, step.slice(1) as number[]);
    case 'expand':
      return expand(x, step.slice(1) as number[]);
    case 'slice': {
      const ranges: Range[] = x.shape.map(() => null);
      ranges[step[1]] = [step[2], step[3], step[4]];
      return slice(x, ranges);
    }
  }
}
