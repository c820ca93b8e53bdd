import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { withPointer } from '../../../test/support/wasm-module.ts';
import { flatten } from './encoding.ts';
import { hasRelaxedSimd } from './features.ts';
import { F32x4, F64x2, I8x16, I16x8, I32x4, I64x2 } from './vectors.ts';

const u = (x: number): number => x >>> 0;

test('integer vector operations agree lane by lane', () => {
  const shapes = [
    { Class: I8x16, bits: 8, name: 'i8x16' },
    { Class: I16x8, bits: 16, name: 'i16x8' },
    { Class: I32x4, bits: 32, name: 'i32x4' },
    { Class: I64x2, bits: 64, name: 'i64x2' },
  ] as const;
  const minimum = (a: bigint, b: bigint): bigint => (a < b ? a : b);
  const maximum = (a: bigint, b: bigint): bigint => (a > b ? a : b);
  const signed: Record<string, (a: bigint, b: bigint) => bigint | boolean> = {
    add: (a, b) => a + b,
    sub: (a, b) => a - b,
    and: (a, b) => a & b,
    andnot: (a, b) => a & ~b,
    or: (a, b) => a | b,
    xor: (a, b) => a ^ b,
    eq: (a, b) => a === b,
    ne: (a, b) => a !== b,
    ltS: (a, b) => a < b,
    gtS: (a, b) => a > b,
    leS: (a, b) => a <= b,
    geS: (a, b) => a >= b,
    minS: minimum,
    maxS: maximum,
    mul: (a, b) => a * b,
    abs: (a) => (a < 0n ? -a : a),
    neg: (a) => -a,
    not: (a) => ~a,
  };
  const unsigned: Record<string, (a: bigint, b: bigint) => bigint | boolean> = {
    ltU: (a, b) => a < b,
    gtU: (a, b) => a > b,
    leU: (a, b) => a <= b,
    geU: (a, b) => a >= b,
    minU: minimum,
    maxU: maximum,
  };
  const missing: Record<string, RegExp> = { i8x16: /^mul$/, i64x2: /U$|^(min|max)S$/ };
  for (const { Class, bits, name } of shapes) {
    const has = (op: string): boolean => !missing[name]?.test(op);
    const ops = [...Object.keys(signed), ...Object.keys(unsigned)].filter(has);
    const { view, run } = withPointer((f, p) => {
      const load = (at: number) =>
        (p as unknown as Record<string, (o: number) => I32x4>)[name]!(at);
      ops.forEach((op, i) => {
        const x = load(0) as unknown as Record<string, (y?: unknown) => I32x4>;
        const args = ['abs', 'neg', 'not'].includes(op) ? [] : [load(16)];
        f.store(p, x[op]!(...args), 128 + 16 * i);
      });
      f.store(p, load(0).shl(3), 32);
      f.store(p, load(0).shrS(3), 48);
      f.store(p, load(0).shrU(3), 64);
      f.store(p, load(0).bitmask(), 80);
      f.store(p, load(0).allTrue(), 84);
      f.store(p, load(0).anyTrue(), 88);
    });
    const lanes = 128 / bits;
    const lane = (at: number, i: number): bigint => {
      let value = 0n;
      for (let b = bits / 8 - 1; b >= 0; b--) {
        value = (value << 8n) | BigInt(view.getUint8(at + (i * bits) / 8 + b));
      }
      return BigInt.asIntN(bits, value);
    };
    const bytes = fc.uint8Array({ minLength: 32, maxLength: 32 });
    fc.assert(
      fc.property(bytes, fc.boolean(), (data, same) => {
        for (const [i, byte] of data.entries()) view.setUint8(i, byte);
        if (same) for (let i = 0; i < 8; i++) view.setUint8(16 + i, data[i]!);
        run(0);
        for (let i = 0; i < lanes; i++) {
          const [a, b] = [lane(0, i), lane(16, i)];
          ops.forEach((op, o) => {
            const oracle = signed[op] ?? unsigned[op]!;
            const wrap = (v: bigint): bigint => (op in unsigned ? BigInt.asUintN(bits, v) : v);
            const want = oracle(wrap(a), wrap(b));
            const word = typeof want === 'boolean' ? (want ? -1n : 0n) : BigInt.asIntN(bits, want);
            assert.equal(lane(128 + 16 * o, i), word, `${name}.${op}(${a}, ${b})`);
          });
          assert.equal(lane(32, i), BigInt.asIntN(bits, a << 3n));
          assert.equal(lane(48, i), a >> 3n);
          assert.equal(lane(64, i), BigInt.asIntN(bits, BigInt.asUintN(bits, a) >> 3n));
          assert.equal((view.getUint32(80, true) >> i) & 1, a < 0n ? 1 : 0);
        }
        const all = Array.from({ length: lanes }, (_, i) => lane(0, i));
        assert.equal(view.getInt32(84, true), Number(all.every((v) => v !== 0n)));
        assert.equal(view.getInt32(88, true), Number(all.some((v) => v !== 0n)));
      }),
      { numRuns: 60 },
    );
    assert.equal(flatten(Class.of(1).code).length, 18);
  }
});

test('lanes: splat, extract, replace, shuffle, swizzle, widen, narrow, widening products', () => {
  const { view, run } = withPointer((f, p) => {
    const a = f.let(p.i32x4());
    f.store(p, a.shuffle(p.i32x4(16), [3, 4, 1, 6]), 32);
    f.store(p, a.withLane(2, 77).lane(2), 48);
    f.store(p, I16x8.splat(-2).laneU(5), 52);
    f.store(p, I8x16.splat(200).laneS(15), 56);
    f.store(p, a.as(I8x16).swizzle(I8x16.constant([15, 0, 99, 1, ...Array(12).fill(16)])), 64);
    f.store(p, I64x2.extmulLowU(a, p.i32x4(16)), 80);
    f.store(p, I64x2.extmulHighU(a, p.i32x4(16)), 96);
    f.store(p, I32x4.extendHighS(a.as(I16x8)), 112);
    f.store(p, I16x8.narrowS(a, a), 128);
    f.store(p, p.i32x4FromI16U(), 144);
    f.store(p, p.i16x8FromI8S(), 160);
    f.store(p, p.lane(I32x4.of(5), 1, 4), 176);
    f.storeLane(p, a, 3, 192);
    f.store(p, p.i32x4Zero(4), 208);
    f.storeLow(p, a, 224);
    f.store(p, I32x4.dotS(a.as(I16x8), a.as(I16x8)), 240);
    f.store(p, f.laneSelect(a.gtS(0), a, a.neg()), 256);
    f.store(p, I32x4.constant([1, -1, 2, -2]), 272);
    f.store(p, F32x4.constant([0.5, 1, 2, 4]).withLane(1, -3), 288);
  });
  const input = [0x12345678, -5, 0x7fff0001, 9, 11, 13, -0x80000000, 17];
  input.forEach((v, i) => {
    view.setInt32(4 * i, v, true);
  });
  run(0);
  const ints = (at: number, n = 4): number[] =>
    Array.from({ length: n }, (_, i) => view.getInt32(at + 4 * i, true));
  assert.deepEqual(ints(32), [9, 11, -5, -0x80000000]);
  assert.deepEqual(
    [view.getInt32(48, true), view.getInt32(52, true), view.getInt32(56, true)],
    [77, 65534, -56],
  );
  assert.deepEqual([...new Uint8Array(view.buffer, 64, 5)], [0, 0x78, 0, 0x56, 0]);
  const product = (i: number): bigint => BigInt(u(input[i]!)) * BigInt(u(input[4 + i]!));
  for (const i of [0, 1, 2, 3]) assert.equal(view.getBigUint64(80 + 8 * i, true), product(i));
  assert.deepEqual(ints(112), [1, 0x7fff, 9, 0]);
  assert.deepEqual([view.getInt16(128, true), view.getInt16(130, true)], [32767, -5]);
  assert.deepEqual(ints(144), [0x5678, 0x1234, 0xfffb, 0xffff]);
  assert.equal(view.getInt16(160 + 8, true), -5);
  assert.deepEqual(ints(176), [5, -5, 5, 5]);
  assert.deepEqual(ints(192, 2), [9, 0]);
  assert.deepEqual(ints(208), [-5, 0, 0, 0]);
  assert.deepEqual(ints(224), [0x12345678, -5, 0, 0]);
  assert.equal(ints(240)[0], (0x5678 * 0x5678 + 0x1234 * 0x1234) | 0);
  assert.deepEqual(ints(256), [0x12345678, 5, 0x7fff0001, 9]);
  assert.deepEqual(ints(272), [1, -1, 2, -2]);
  assert.deepEqual(
    [0, 1, 2, 3].map((i) => view.getFloat32(288 + 4 * i, true)),
    [0.5, -3, 2, 4],
  );
});

test('fused multiply-add rounds once with relaxed SIMD and twice without', () => {
  const x = 1 + 2 ** -12;
  for (const relaxed of [false, true]) {
    if (relaxed && !hasRelaxedSimd()) continue;
    const { view, run } = withPointer(
      (f, p) => {
        f.store(p, f.madd(F32x4.of(x), F32x4.of(x), F32x4.of(-1)));
        f.store(p, f.nmadd(F32x4.of(2), F32x4.of(3), F32x4.of(1)), 16);
        f.store(p, f.nmadd(F64x2.of(2), F64x2.of(3), F64x2.of(1)), 32);
        f.store(p, f.laneSelect(I32x4.constant([-1, 0, -1, 0]), F32x4.of(1), F32x4.of(2)), 48);
      },
      { relaxed },
    );
    run(0);
    const fused = Math.fround(x * x - 1);
    const rounded = Math.fround(Math.fround(x * x) - 1);
    const got = view.getFloat32(0, true);
    assert.ok(relaxed ? got === fused || got === rounded : got === rounded);
    assert.equal(view.getFloat32(16, true), -5);
    assert.equal(view.getFloat64(32, true), -5);
    assert.deepEqual(
      [0, 1, 2, 3].map((i) => view.getFloat32(48 + 4 * i, true)),
      [1, 2, 1, 2],
    );
  }
});
