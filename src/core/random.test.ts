import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadFixture } from '../../test/support/fixtures.ts';
import { philox, unitFloat } from './random.ts';

interface Vector {
  readonly counter: readonly number[];
  readonly key: readonly number[];
  readonly output: readonly number[];
}

function words(counter: readonly number[], key: readonly number[]): number[] {
  const out = new Uint32Array(4);
  const [c0 = 0, c1 = 0, c2 = 0, c3 = 0] = counter;
  const [k0 = 0, k1 = 0] = key;
  philox(c0, c1, c2, c3, k0, k1, out);
  return [...out];
}

test('Philox 4x32-10 gives the published known answers', () => {
  const known: Vector[] = [
    {
      counter: [0, 0, 0, 0],
      key: [0, 0],
      output: [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    },
    {
      counter: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      key: [0xffffffff, 0xffffffff],
      output: [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    },
    {
      counter: [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      key: [0xa4093822, 0x299f31d0],
      output: [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    },
  ];
  for (const { counter, key, output } of known) assert.deepEqual(words(counter, key), output);
});

test('Philox agrees with the vectors of the fixture, published and consecutive', () => {
  const { manifest } = loadFixture('philox');
  const vectors = [...manifest.published, ...manifest.run];
  assert.ok(vectors.length > 3);
  for (const { counter, key, output } of vectors)
    assert.deepEqual(words(counter, key), [...output]);
});

test('unit floats are exact multiples of 2^-24 in [0, 1)', () => {
  assert.equal(unitFloat(0), 0);
  assert.equal(unitFloat(0xffffffff), 1 - 2 ** -24);
  assert.equal(unitFloat(0x80000000), 0.5);
});
