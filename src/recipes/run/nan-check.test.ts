import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Batch } from '../../data/corpus/batches.ts';
import { byteLlama } from '../../models/byte-llama.ts';
import { add, mul } from '../../ops/arithmetic.ts';
import { exp, log } from '../../ops/unary.ts';
import { liveBytes } from '../../tensor/backend.ts';
import { tensor, toHost } from '../../tensor/factory.ts';
import { withMode } from '../../tensor/mode.ts';
import { scope } from '../../tensor/with-scope.ts';
import { writeTensor } from '../../tensor/write.ts';
import { findNonFinite, NanCheckMode, type NonFiniteOp, nonFiniteError } from './nan-check.ts';

/** What the mode finds in `body`. */
function inspect(body: () => void): NonFiniteOp | undefined {
  let mode: NanCheckMode | undefined;
  withMode(
    (inner) => {
      mode = new NanCheckMode(inner);
      return mode;
    },
    () =>
      scope(() => {
        body();
      }),
  );
  return mode?.found;
}

const batch: Batch = {
  inputs: Int32Array.of(1, 2, 3, 4),
  targets: Int32Array.of(2, 3, 4, 5),
  segmentIds: new Int32Array(4),
  positionIds: Int32Array.of(0, 1, 2, 3),
  rows: 1,
  sequenceLength: 4,
  targetCount: 4,
};

describe('NanCheckMode', () => {
  test('names the first op with a NaN or an infinity, not those that follow', () => {
    const found = inspect(() => {
      const big = exp(tensor([1, 200]));
      add(mul(big, 0), 1);
    });
    assert.equal(found?.op, 'exp');
    assert.equal(found.value, 'Infinity');
    assert.equal(found.output, 'float32[2]');
    assert.equal(found.badInput, undefined);
  });

  test('takes -Infinity only when there is nothing worse', () => {
    assert.equal(inspect(() => log(tensor([0, 1])))?.value, '-Infinity');
    const found = inspect(() => {
      const masked = log(tensor([0, 1]));
      mul(masked, 0);
    });
    assert.match(found?.op ?? '', /^mul/);
    assert.equal(found?.value, 'NaN');
    assert.match(found?.badInput ?? '', /float32\[2\]/);
  });

  test('finds nothing where all is finite', () => {
    assert.equal(
      inspect(() => exp(tensor([1, 2]))),
      undefined,
    );
  });
});

describe('findNonFinite', () => {
  test('names the damaged parameter and leaves no gradients or memory', () => {
    const before = liveBytes();
    {
      using model = byteLlama({ hidden: 16, layers: 2, heads: 2 });
      assert.equal(findNonFinite(model, [batch]), undefined);
      const weight = model.stateDict().get('model.layers.1.mlp.up_proj.weight');
      assert.ok(weight);
      const host = toHost(weight);
      const data = host.data.slice();
      new DataView(data.buffer).setFloat32(0, Number.NaN, true);
      writeTensor(weight, { ...host, data });
      const found = findNonFinite(model, [batch]);
      assert.equal(found?.value, 'NaN');
      assert.match(found.module, /^model\.layers\.1\.mlp/);
      assert.match(found.badInput ?? '', /up_proj\.weight/);
      assert.ok([...model.parameters()].every((parameter) => parameter.grad === undefined));

      const result = { loss: Number.NaN, gradNorm: Number.NaN, stepMemory: 0, finite: false };
      const error = nonFiniteError(7, result, found, 'runs/x/checkpoints/step-000005');
      assert.match(error.message, /step 7 is not finite \(got loss NaN, gradient norm NaN\)/);
      assert.match(error.message, /in model\.layers\.1\.mlp.*up_proj\.weight.* was bad already/);
      assert.match(error.message, /last good checkpoint is runs\/x\/checkpoints\/step-000005/);
      assert.match(
        nonFiniteError(1, result, undefined, undefined).message,
        /No checkpoint was saved/,
      );
    }
    assert.equal(liveBytes(), before);
  });
});
