import assert from 'node:assert/strict';
import { describe } from 'node:test';
import { alsoCompiled } from '../../test/support/also-compiled.ts';
import fc from 'fast-check';
import { numElements } from '../core/shape.ts';
import { firstStage } from './stages.ts';

const it = alsoCompiled(import.meta.url);

describe('firstStage', () => {
  it('leaves small and partial reductions alone', () => {
    assert.equal(firstStage([100, 100], [0, 1]), undefined);
    assert.equal(firstStage([4096, 4096], [1]), undefined);
    assert.equal(firstStage([65537], [0]), undefined); // a prime
  });

  it('keeps leading axes, or part of one', () => {
    assert.deepEqual(firstStage([2048, 512], [0, 1]), { view: [2048, 512], reduced: [1] });
    assert.deepEqual(firstStage([1 << 20], [0]), { view: [64, 1 << 14], reduced: [1] });
    assert.deepEqual(firstStage([4, 1 << 20], [0, 1]), { view: [4, 16, 1 << 16], reduced: [2] });
  });

  it('reduces every element once, to few partial results', () => {
    const dims = fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(dims, (shape) => {
        const stage = firstStage(
          shape,
          shape.map((_, axis) => axis),
        );
        if (!stage) return;
        assert.equal(numElements(stage.view), numElements(shape));
        const kept = stage.view.filter((_, axis) => !stage.reduced.includes(axis));
        assert.ok(numElements(kept) >= 64 && numElements(kept) <= 4096);
        assert.ok(stage.reduced.length > 0);
      }),
    );
  });
});
