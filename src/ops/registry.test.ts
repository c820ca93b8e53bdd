import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { savedNames, savedOutputIndex } from '../ir/op.ts';
import { backwardOf } from './formula.ts';
import { allOps, findOp } from './registry.ts';

const derived = new Set(allOps.map((op) => backwardOf(op)).filter((op) => op !== undefined));

describe('op records', () => {
  it('have different names', () => {
    const names = allOps.map((op) => op.name);
    assert.deepEqual(names, [...new Set(names)]);
    assert.equal(findOp('mul')?.name, 'mul');
    assert.equal(findOp('nothing'), undefined);
  });

  for (const op of allOps) {
    if (derived.has(op)) continue;
    it(`${op.name}: samples have the inputs that args name`, () => {
      assert.ok(op.samples.length > 0);
      const variadic = op.args.at(-1)?.startsWith('...') ?? false;
      for (const sample of op.samples) {
        const count = sample.inputs.length;
        assert.ok(variadic ? count >= op.args.length - 1 : count === op.args.length, sample.label);
      }
    });
    it(`${op.name}: saves name inputs or outputs, and nothing when nothing is needed`, () => {
      for (const sample of op.samples) {
        const avals = sample.inputs.map(({ shape, dtype }) => ({ shape, dtype }));
        const outputs = op.infer(avals, sample.params).length;
        const prefix = op.args.at(-1)?.replace('...', '') ?? '';
        for (const name of savedNames(op, sample.params)) {
          const index = savedOutputIndex(name);
          const known =
            index === undefined
              ? op.args.includes(name) || name.startsWith(prefix)
              : index < outputs;
          assert.ok(known, name);
        }
      }
    });
    it(`${op.name}: in-place updates give what they overwrite its own shape and dtype`, () => {
      for (const { input, out } of op.traits.updates ?? []) {
        for (const sample of op.samples) {
          const avals = sample.inputs.map(({ shape, dtype }) => ({ shape, dtype }));
          assert.deepEqual(op.infer(avals, sample.params)[out], avals[input]);
        }
      }
    });
  }
});
