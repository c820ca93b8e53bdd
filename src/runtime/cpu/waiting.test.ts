import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { heapStart, word } from './control.ts';
import { reportFailure, takeFailure } from './failure.ts';
import { barrier, lookForChange, waitForWorkers } from './waiting.ts';

function controlWords(): Int32Array<SharedArrayBuffer> {
  return new Int32Array(new SharedArrayBuffer(heapStart));
}

describe('waiting', () => {
  it('sees a changed word at once and gives up on one that stays', () => {
    const words = controlWords();
    assert.equal(lookForChange(words, word.phase, 1), true);
    assert.equal(lookForChange(words, word.phase, 0), false);
  });

  it('asks whether the workers are still there instead of waiting forever', () => {
    const words = controlWords();
    const gone = (): void => {
      throw new assert.AssertionError({ message: 'a worker is gone' });
    };
    words[word.pending] = 1;
    assert.throws(() => waitForWorkers(words, gone), /a worker is gone/);
    assert.throws(() => barrier(words, 2, gone), /a worker is gone/);
  });

  it('lets the last one through a barrier, which opens the next phase', () => {
    const words = controlWords();
    for (let phase = 1; phase <= 3; phase++) {
      words[word.arrived] = 2;
      barrier(words, 3, () => {});
      assert.equal(words[word.phase], phase);
      assert.equal(words[word.arrived], 0);
    }
  });

  it('keeps the first failure, with thread and step, until it is taken', () => {
    const words = controlWords();
    assert.equal(takeFailure(words), undefined);
    reportFailure(words, 2, 7, new RangeError('too \u00fc far'));
    reportFailure(words, 1, 8, new RangeError('later'));
    assert.deepEqual(takeFailure(words), {
      text: 'RangeError: too \u00fc far (on thread 2)',
      step: 7,
    });
    assert.equal(takeFailure(words), undefined);
    reportFailure(words, 0, -1, 'x'.repeat(5000));
    assert.equal(takeFailure(words)?.text.length, 1000);
  });
});
