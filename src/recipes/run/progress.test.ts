import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { describe, test } from 'node:test';
import { formatCount, formatSeconds, Progress } from './progress.ts';

function capture(isTTY: boolean): { stream: NodeJS.WriteStream; text: () => string } {
  const chunks: string[] = [];
  const stream = Object.assign(new PassThrough(), { isTTY, columns: 120, rows: 24 });
  stream.on('data', (chunk) => chunks.push(String(chunk)));
  const terminal = { cursorTo: () => true, clearLine: () => true, moveCursor: () => true };
  Object.assign(stream, terminal);
  return { stream: stream as unknown as NodeJS.WriteStream, text: () => chunks.join('') };
}

const report = { step: 5, loss: 2.34567, tokensPerSecond: 12345.6, stepMemory: 3 * 2 ** 20 };

describe('Progress', () => {
  test('writes plain lines now and then where there is no terminal', () => {
    const { stream, text } = capture(false);
    const progress = new Progress({ total: 10, start: 0, stream, plainSeconds: 1000 });
    progress.update(report);
    progress.update({ ...report, step: 6 });
    progress.note('saved');
    progress.stop();
    const lines = text().trimEnd().split('\n');
    assert.equal(lines.length, 3);
    assert.match(
      lines[0] ?? '',
      /^step 5\/10 {2}loss 2\.3457 {2}12,346 tok\/s {2}step memory 3\.00 MiB {2}\S+ left$/,
    );
    assert.equal(lines[1], 'saved');
    assert.match(lines[2] ?? '', /^step 6\/10/);
  });

  test('draws a bar with loss, speed, memory and time left on a terminal', () => {
    const { stream, text } = capture(true);
    const progress = new Progress({ total: 10, start: 0, stream });
    progress.update({ ...report, step: 4 });
    progress.note('a line that stays');
    progress.update(report);
    progress.stop();
    assert.match(
      text(),
      /5\/10 {2}loss 2\.346 {2}12,346 tok\/s {2}step memory 3\.00 MiB {2}\d+s left/,
    );
    assert.match(text(), /a line that stays\n/);
  });
});

describe('formats', () => {
  test('counts and times are short', () => {
    assert.deepEqual([7.77, 99.96, 1234567].map(formatCount), ['7.8', '100.0', '1,234,567']);
    assert.deepEqual([0, 59.4, 65, 3725].map(formatSeconds), ['0s', '59s', '1m05s', '1h02m']);
  });
});
