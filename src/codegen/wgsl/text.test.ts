import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { f32Text, i32Text, indexText, powerOfTwoAtLeast, u32Text, WgslText } from './text.ts';
import { dispatchSize, maxWorkgroupsPerDimension } from './workgroups.ts';

test('blocks indent their bodies', () => {
  const text = new WgslText();
  text.block('fn f()', () => text.line('let a = 1;').block('if (b)', () => text.lines('x;\ny;')));
  assert.equal(text.toString(), 'fn f() {\n  let a = 1;\n  if (b) {\n    x;\n    y;\n  }\n}\n');
});

test('float literals read back to the same float32, special values go by bits', () => {
  fc.assert(
    fc.property(fc.float({ noNaN: true, noDefaultInfinity: true }), (x) => {
      const text = f32Text(x);
      if (text.endsWith('f')) assert.ok(Object.is(Math.fround(Number(text.slice(0, -1))), x));
      else assert.ok(Math.abs(x) < 2 ** -126, text);
    }),
  );
  assert.equal(f32Text(0.1), '0.10000000149011612f');
  assert.equal(f32Text(0), '0f');
  assert.equal(f32Text(-0), 'f32FromBits(0x80000000u)');
  assert.equal(f32Text(-Infinity), 'f32FromBits(0xff800000u)');
  assert.equal(f32Text(Number.NaN), 'f32FromBits(0x7fc00000u)');
});

test('integer literals stay in range', () => {
  assert.equal(i32Text(-(2 ** 31)), 'i32(-2147483648)');
  assert.equal(u32Text(2 ** 32 - 1), '4294967295u');
});

test('index expressions leave out what is zero and subtract negative steps', () => {
  const terms = [
    { name: 'c0', step: 12 },
    { name: 'c1', step: 0 },
    { name: 'c2', step: -1 },
  ];
  assert.equal(indexText('base', 3, terms), 'base + 3u + c0 * 12u - c2');
  assert.equal(indexText(undefined, 0, []), '0u');
  assert.equal(indexText(undefined, 0, [{ name: 'c', step: -2 }]), '0u - c * 2u');
  assert.equal(indexText(undefined, 0, [{ name: 'c', step: 1 }]), 'c');
});

test('a dispatch covers its workgroups within the limit and with little surplus', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 31 }), (count) => {
      const [x, y, z] = dispatchSize(count);
      assert.ok(x <= maxWorkgroupsPerDimension && y <= maxWorkgroupsPerDimension);
      assert.ok(x * y * z >= count && x * y * z < count + Math.max(1, y));
    }),
  );
  assert.deepEqual(dispatchSize(0), [0, 0, 0]);
  assert.throws(() => dispatchSize(2 ** 33), { name: 'UnsupportedError' });
});

test('powers of two', () => {
  assert.deepEqual([1, 2, 3, 64, 65].map(powerOfTwoAtLeast), [1, 2, 4, 64, 128]);
});
