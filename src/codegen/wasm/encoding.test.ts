import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { withPointer } from '../../../test/support/wasm-module.ts';
import { i32Leb, i64Leb, signedLeb, unsignedLeb } from './encoding.ts';
import { F32, F64, I32, I64 } from './scalars.ts';

test('unsigned LEB128 reads back over the whole range', () => {
  fc.assert(
    fc.property(fc.bigInt(0n, 2n ** 64n - 1n), (value) => {
      let result = 0n;
      unsignedLeb(value).forEach((byte, i) => {
        result |= BigInt(byte & 127) << BigInt(7 * i);
      });
      assert.equal(result, value);
    }),
  );
  assert.deepEqual(unsignedLeb(624485), [0xe5, 0x8e, 0x26]);
});

test('signed LEB128 is shortest and sign-extends', () => {
  assert.deepEqual(signedLeb(-123456), [0xc0, 0xbb, 0x78]);
  assert.deepEqual(signedLeb(63), [63]);
  assert.deepEqual(signedLeb(64), [0xc0, 0]);
  assert.deepEqual(signedLeb(-64), [0x40]);
  assert.deepEqual(i32Leb(0xffffffff), [0x7f]);
  assert.deepEqual(i64Leb(2n ** 63n), i64Leb(-(2n ** 63n)));
  assert.throws(() => i32Leb(2 ** 32), /32-bit/);
});

test('constants of every width come back from compiled code', () => {
  const check = (value: bigint): void => {
    const { view, run } = withPointer((f, p) => f.store(p, I64.of(value)));
    run(8);
    assert.equal(view.getBigInt64(8, true), BigInt.asIntN(64, value));
  };
  for (const v of [
    0n,
    -1n,
    63n,
    64n,
    -64n,
    -65n,
    2n ** 31n,
    -(2n ** 31n),
    2n ** 63n - 1n,
    -(2n ** 63n),
  ])
    check(v);
  const { view, run } = withPointer((f, p) => {
    for (const [i, v] of [0x7fffffff, -0x80000000, 0xdeadbeef, 127, 128].entries()) {
      f.store(p, I32.of(v), 4 * i);
    }
    f.store(p, F64.of(Math.PI), 32);
    f.store(p, F32.of(-0.1), 40);
  });
  run(0);
  assert.deepEqual(
    [0, 1, 2, 3, 4].map((i) => view.getInt32(4 * i, true)),
    [0x7fffffff, -0x80000000, 0xdeadbeef | 0, 127, 128],
  );
  assert.equal(view.getFloat64(32, true), Math.PI);
  assert.equal(view.getFloat32(40, true), Math.fround(-0.1));
});
