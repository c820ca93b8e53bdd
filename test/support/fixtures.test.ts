/** The fixture files are whole and mean what the reader says: simple ops recomputed in plain loops. */

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { describe, it } from 'node:test';
import type { OpCase } from './fixture-types.ts';
import {
  difference,
  fixturePath,
  loadFixture,
  modelGroups,
  opGroups,
  sampleIndices,
} from './fixtures.ts';

const opNames = `neg abs exp log sqrt rsqrt square sin cos tanh sigmoid silu gelu geluTanh relu erf
  reciprocal sign floor ceil round log1p expm1 logicalNot cast add sub mul div pow maximum minimum eq
  ne lt le gt ge logicalAnd logicalOr where sum mean amax amin prod argmax argmin logsumexp cumsum
  reshape transpose permute slice expand squeeze unsqueeze concat stack split flip matmul linear
  softmax logSoftmax rmsNorm layerNorm rope swiglu embedding gather scatterAdd indexSelect
  scaledDotProductAttention crossEntropy linearCrossEntropy topk sort triu tril`.split(/\s+/);

function caseOf(cases: readonly OpCase[], op: string, name: string): OpCase {
  const found = cases.find((entry) => entry.op === op && entry.case === name);
  assert.ok(found, `${op}/${name}`);
  return found;
}

describe('op fixtures', () => {
  it('cover every op with at least two cases', () => {
    const counts = new Map<string, number>();
    for (const group of opGroups()) {
      for (const { op } of loadFixture(group).manifest.cases)
        counts.set(op, (counts.get(op) ?? 0) + 1);
    }
    assert.deepEqual(
      opNames.filter((name) => (counts.get(name) ?? 0) < 2),
      [],
    );
  });

  it('refer only to arrays that exist, of the stated dtype and shape', () => {
    for (const group of opGroups()) {
      const fixture = loadFixture(group);
      const used = new Set<string>();
      for (const entry of fixture.manifest.cases) {
        const shapes = new Map(entry.inputs.map((input) => [input.name, input.shape]));
        for (const input of entry.inputs) {
          const array = fixture.array(input.key);
          assert.deepEqual(array.shape, input.view?.base ?? input.shape);
          assert.equal(array.dtype, input.dtype);
          assert.deepEqual(fixture.input(input).shape, input.shape);
          used.add(input.key);
        }
        for (const output of entry.outputs) {
          const array = fixture.array(output.key);
          assert.deepEqual([array.dtype, array.shape], [output.dtype, output.shape], output.key);
          shapes.set(`out:${output.name}`, output.shape);
          used.add(output.key);
        }
        for (const [name, key] of Object.entries(entry.cotangents ?? {})) {
          assert.deepEqual(fixture.array(key).shape, shapes.get(`out:${name}`), key);
          used.add(key);
        }
        for (const [name, key] of Object.entries(entry.grads ?? {})) {
          assert.deepEqual(fixture.array(key).shape, shapes.get(name), key);
          used.add(key);
        }
        for (const key of Object.values(entry.ref ?? {})) {
          assert.equal(fixture.array(key).dtype, 'float64');
          used.add(key);
        }
      }
      assert.equal(used.size, fixture.keys.length, `${group} has arrays no case uses`);
    }
  });

  it('hold finite gradients that agree with float64 within the stated tolerance', () => {
    let compared = 0;
    for (const group of opGroups()) {
      const fixture = loadFixture(group);
      for (const entry of fixture.manifest.cases) {
        for (const [name, key] of Object.entries(entry.ref ?? {})) {
          const output = entry.outputs.find((out) => out.name === name)?.key;
          const got = output ?? entry.grads?.[name.slice('grad.'.length)];
          assert.ok(got, `${entry.op}/${entry.case} ${name}`);
          const off = difference(
            fixture.array(got).values,
            fixture.array(key).values,
            entry.tolerance,
          );
          assert.equal(off, null, `${entry.op}/${entry.case} ${name}`);
          compared++;
        }
      }
    }
    assert.ok(compared > 600, `${compared}`);
  });

  it('a matmul of transposed views is the matmul of the materialized operands', () => {
    const fixture = loadFixture('ops/matmul');
    const entry = caseOf(fixture.manifest.cases, 'matmul', 'transposedBoth');
    const [a, b] = entry.inputs.map((input) => fixture.input(input));
    assert.ok(a && b && entry.inputs[0]?.view && entry.ref);
    const [m, k] = a.shape as [number, number];
    const n = b.shape[1] as number;
    const want = new Float64Array(m * n);
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        for (let p = 0; p < k; p++) {
          want[i * n + j] =
            (want[i * n + j] as number) +
            (a.values[i * k + p] as number) * (b.values[p * n + j] as number);
        }
      }
    }
    const exact = { rtol: 1e-12, atolScale: 1e-12 };
    assert.equal(difference(fixture.array(entry.ref.out as string).values, want, exact), null);
  });

  it('16-bit arrays decode to what PyTorch computed from them', () => {
    const fixture = loadFixture('ops/unary');
    for (const dtype of ['float16', 'bfloat16']) {
      const entry = caseOf(fixture.manifest.cases, 'square', dtype);
      const x = fixture.array(`square/${dtype}/in.x`);
      assert.equal(x.dtype, dtype);
      const want = x.values.map((value) => value * value);
      const ref = fixture.array(`square/${dtype}/ref.out`).values;
      assert.equal(difference(ref, want, { rtol: 1e-15, atolScale: 0 }), null);
      assert.notEqual(
        difference(fixture.array(`square/${dtype}/out`).values, want, { rtol: 1e-6, atolScale: 0 }),
        null,
      );
      assert.ok(entry.tolerance.rtol > 0);
    }
  });
});

describe('difference', () => {
  const tolerance = { rtol: 1e-3, atolScale: 0 };

  it('accepts equal specials and values within the bound', () => {
    assert.equal(
      difference([Number.NaN, Infinity, 1.0005], [Number.NaN, Infinity, 1], tolerance),
      null,
    );
  });

  it('names the worst element', () => {
    assert.match(
      difference([1, 2.1, 3.5], [1, 2, 3], tolerance) ?? '',
      /^element 2 of 3 is 3.5, expected 3/,
    );
    for (const [got, want] of [
      [1, Number.NaN],
      [Number.NaN, 1],
      [Infinity, -Infinity],
      [1e30, Infinity],
      [Infinity, 1],
    ] as const) {
      assert.notEqual(difference([got], [want], tolerance), null, `${got} against ${want}`);
    }
    assert.notEqual(difference([1], [1, 2], tolerance), null);
  });
});

describe('model fixtures', () => {
  for (const group of modelGroups()) {
    it(`${group} has weights, both configs, a gradient for each parameter, and its loss`, () => {
      const fixture = loadFixture(group);
      const { manifest } = fixture;
      for (const file of ['config.json', 'config.older.json']) {
        assert.ok(existsSync(fixturePath(`${group}/${file}`)), file);
      }
      const weights =
        manifest.storage === 'sharded' ? 'model.safetensors.index.json' : 'model.safetensors';
      assert.ok(existsSync(fixturePath(`${group}/${weights}`)), weights);
      for (const [name, shape] of Object.entries(manifest.parameters)) {
        assert.deepEqual(fixture.array(`grad.${name}`).shape, shape);
      }
      assert.equal(manifest.tied, !('lm_head.weight' in manifest.parameters));

      const logits = fixture.array('logits');
      const targets = fixture.array('targets').values;
      const vocab = logits.shape[2] as number;
      let total = 0;
      let count = 0;
      for (const [position, target] of targets.entries()) {
        if (target === -100) continue;
        const row = logits.values.subarray(position * vocab, (position + 1) * vocab);
        const high = row.reduce((a, b) => Math.max(a, b));
        const sum = row.reduce((acc, value) => acc + Math.exp(value - high), 0);
        total += high + Math.log(sum) - (row[target] as number);
        count++;
      }
      assert.ok(count > 0 && count < targets.length);
      assert.ok(Math.abs(total / count - manifest.loss) < 1e-6);
      assert.ok(Math.abs((manifest.adamW.losses[0] as number) - manifest.loss) < 1e-6);
      assert.ok((manifest.adamW.losses.at(-1) as number) < 0.7 * manifest.loss);
      for (const { name, samples } of manifest.finalWeights) {
        const size = (manifest.parameters[name] ?? []).reduce((a, b) => a * b, 1);
        assert.equal(samples.length, sampleIndices(size).length);
      }
    });
  }
});

describe('other fixtures', () => {
  it('optimizer trajectories match a plain loop', () => {
    const fixture = loadFixture('optim/optimizers');
    for (const { op, case: name, params, parameters, tolerance } of fixture.manifest.cases) {
      if (op !== 'adamW') continue;
      const { lr, betas, eps, weightDecay } = params as {
        lr: number;
        betas: [number, number];
        eps: number;
        weightDecay: number;
      };
      for (const keys of Object.values(parameters)) {
        const x = fixture.array(keys.start).values.slice();
        const grads = fixture.array(keys.grads).values;
        const wants = fixture.array(keys.steps).values;
        const m = new Float64Array(x.length);
        const v = new Float64Array(x.length);
        for (let step = 0; step < 10; step++) {
          for (let i = 0; i < x.length; i++) {
            const g = grads[step * x.length + i] as number;
            m[i] = betas[0] * (m[i] as number) + (1 - betas[0]) * g;
            v[i] = betas[1] * (v[i] as number) + (1 - betas[1]) * g * g;
            const mean = (m[i] as number) / (1 - betas[0] ** (step + 1));
            const spread = Math.sqrt((v[i] as number) / (1 - betas[1] ** (step + 1)));
            x[i] = (x[i] as number) * (1 - lr * weightDecay) - (lr * mean) / (spread + eps);
          }
          const want = wants.subarray(step * x.length, (step + 1) * x.length);
          assert.equal(difference(x, want, tolerance), null, `${name}, step ${step}`);
        }
      }
    }
  });

  it('clipping, schedules, generation, Philox and tokenizers load', () => {
    const clipping = loadFixture('optim/clipping');
    for (const entry of clipping.manifest.cases) {
      for (const key of Object.values(entry.clipped)) assert.ok(clipping.has(key), key);
    }
    for (const { values } of loadFixture('optim/schedules').manifest.cases) {
      assert.ok(values.every((value) => value >= 0 && value <= 1));
    }
    const generation = loadFixture('generation');
    for (const entry of generation.manifest.cases) {
      if (entry.op === 'greedy') {
        assert.equal(entry.tokens.length, 16);
        assert.ok(existsSync(fixturePath(`models/${entry.family}`)));
      } else if (entry.op === 'filter') {
        const { values, shape } = generation.array(entry.probabilities);
        for (let row = 0; row < (shape[0] as number); row++) {
          const sum = values.subarray(row * 12, (row + 1) * 12).reduce((a, b) => a + b);
          assert.ok(Math.abs(sum - 1) < 1e-6);
        }
      }
    }
    assert.deepEqual(
      loadFixture('philox').manifest.published[0]?.output,
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    );
    assert.equal(loadFixture('tokenizers/gpt2').manifest.vocabSize, 300);
  });
});
