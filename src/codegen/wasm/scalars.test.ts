import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { sharedMemory, withPointer } from '../../../test/support/wasm-module.ts';
import { ModuleBuilder } from './module.ts';
import { type F32, type F64, I32, I64 } from './scalars.ts';
import { F32x4, F64x2, I32x4, I64x2 } from './vectors.ts';

type Binary<T> = readonly [name: string, oracle: (a: T, b: T) => T | number | boolean];

const u = (x: number): number => x >>> 0;
const i32Ops: readonly Binary<number>[] = [
  ['add', (a, b) => a + b],
  ['sub', (a, b) => a - b],
  ['mul', Math.imul],
  ['divU', (a, b) => Math.floor(u(a) / (u(b) || 1))],
  ['remU', (a, b) => u(a) % (u(b) || 1)],
  ['and', (a, b) => a & b],
  ['or', (a, b) => a | b],
  ['xor', (a, b) => a ^ b],
  ['shl', (a, b) => a << b],
  ['shrS', (a, b) => a >> b],
  ['shrU', (a, b) => a >>> b],
  ['rotl', (a, b) => (a << (b & 31)) | ((u(a) >>> ((32 - (b & 31)) % 32)) * (b & 31 ? 1 : 0))],
  ['eq', (a, b) => a === b],
  ['ne', (a, b) => a !== b],
  ['ltS', (a, b) => a < b],
  ['ltU', (a, b) => u(a) < u(b)],
  ['gtS', (a, b) => a > b],
  ['gtU', (a, b) => u(a) > u(b)],
  ['leS', (a, b) => a <= b],
  ['leU', (a, b) => u(a) <= u(b)],
  ['geS', (a, b) => a >= b],
  ['geU', (a, b) => u(a) >= u(b)],
  ['minS', Math.min],
  ['maxS', Math.max],
];

test('every i32 and i64 operation agrees with JavaScript', () => {
  const module = new ModuleBuilder();
  for (const [name] of i32Ops) {
    module.func(
      name,
      ['i32', 'i32'],
      (_f, a, b) => {
        const guarded = name.startsWith('div') || name.startsWith('rem') ? b.or(b.eqz()) : b;
        return (a as never as Record<string, (x: I32) => I32>)[name]!(guarded);
      },
      { result: 'i32' },
    );
    if (!/^(min|max)/.test(name)) {
      module.func(
        `${name}64`,
        ['i32', 'i32'],
        (_f, a, b) => {
          const left = a.toI64S();
          const right = /^(div|rem)/.test(name) ? b.or(b.eqz()).toI64S() : b.toI64S();
          const result = (left as never as Record<string, (x: I64) => I64 | I32>)[name]!(right);
          return result instanceof I64 ? result.toI32() : result;
        },
        { result: 'i32' },
      );
    }
  }
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(module.bytes()), {
    env: { memory: sharedMemory() },
  });
  const fns = exports as unknown as Record<string, (a: number, b: number) => number>;
  const low64 = new Set([
    'add',
    'sub',
    'mul',
    'and',
    'or',
    'xor',
    'eq',
    'ne',
    'ltS',
    'gtS',
    'leS',
    'geS',
  ]);
  const u64 = (v: number): bigint => BigInt.asUintN(64, BigInt(v));
  const order64: Record<string, (a: bigint, b: bigint) => boolean> = {
    ltU: (a, b) => a < b,
    gtU: (a, b) => a > b,
    leU: (a, b) => a <= b,
    geU: (a, b) => a >= b,
  };
  fc.assert(
    fc.property(fc.integer(), fc.integer(), (a, b) => {
      for (const [name, oracle] of i32Ops) {
        const safe = /^(div|rem)/.test(name) ? b | (b === 0 ? 1 : 0) : b;
        const want = Number(oracle(a, safe)) | 0;
        assert.equal(fns[name]!(a, b), want, `i32.${name}(${a}, ${b})`);
        if (low64.has(name)) assert.equal(fns[`${name}64`]!(a, b), want, `i64.${name}(${a}, ${b})`);
        const compare = order64[name];
        if (compare) assert.equal(fns[`${name}64`]!(a, b), Number(compare(u64(a), u64(b))), name);
        if (name === 'divU' || name === 'remU') {
          const [x, y] = [u64(a), u64(safe)];
          const wide = name === 'divU' ? x / y : x % y;
          assert.equal(fns[`${name}64`]!(a, b), Number(BigInt.asIntN(32, wide)), `i64.${name}`);
        }
        if (['shl', 'shrS', 'shrU', 'rotl'].includes(name)) {
          const s = BigInt(b & 63);
          const x = u64(a);
          const wide = {
            shl: x << s,
            shrS: BigInt(a) >> s,
            shrU: x >> s,
            rotl: (x << s) | (x >> (64n - s)),
          }[name as 'shl'];
          assert.equal(fns[`${name}64`]!(a, b), Number(BigInt.asIntN(32, wide)), `i64.${name}`);
        }
      }
    }),
  );
});

test('float operations agree with JavaScript, rounded to the type', () => {
  const nearest = (x: number): number => {
    if (!Number.isFinite(x) || Math.abs(x) >= 2 ** 52) return x;
    const r = Math.round(x);
    const even = r - x === 0.5 && r % 2 !== 0 ? r - 1 : r;
    return even === 0 ? x * 0 : even;
  };
  const unary: Record<string, (x: number) => number> = {
    abs: Math.abs,
    neg: (x) => -x,
    ceil: Math.ceil,
    floor: Math.floor,
    trunc: Math.trunc,
    nearest,
    sqrt: Math.sqrt,
  };
  const binary: Record<string, (x: number, y: number) => number> = {
    add: (x, y) => x + y,
    sub: (x, y) => x - y,
    mul: (x, y) => x * y,
    div: (x, y) => x / y,
    min: Math.min,
    max: Math.max,
    copysign: (x, y) => (y < 0 || Object.is(y, -0) ? -Math.abs(x) : Math.abs(x)),
    eq: (x, y) => Number(x === y),
    ne: (x, y) => Number(x !== y),
    lt: (x, y) => Number(x < y),
    gt: (x, y) => Number(x > y),
    le: (x, y) => Number(x <= y),
    ge: (x, y) => Number(x >= y),
    pmin: (x, y) => (y < x ? y : x),
    pmax: (x, y) => (x < y ? y : x),
  };
  const names = [...Object.keys(unary), ...Object.keys(binary)];
  const logical = new Set(['eq', 'ne', 'lt', 'gt', 'le', 'ge']);
  // Layout: x at 0, y at 8; results from 64 on, 32 bytes per operation: f32, f64, f32x4 lane, f64x2 lane.
  const { view, run } = withPointer((f, p) => {
    names.forEach((name, i) => {
      const at = 64 + 32 * i;
      const call = <V extends object>(x: V, y: V): unknown =>
        (x as Record<string, (v?: V) => unknown>)[name]!(...(name in unary ? [] : [y]));
      if (name !== 'pmin' && name !== 'pmax') {
        const narrow = call(p.f32(), p.f32(8)) as F32 | I32;
        f.store(p, narrow instanceof I32 ? narrow.toF32S() : narrow, at);
        const wide = call(p.f32().toF64(), p.f32(8).toF64()) as F64 | I32;
        f.store(p, wide instanceof I32 ? wide.toF64S() : wide, at + 8);
      }
      if (name === 'copysign') return;
      const quad = call(p.f32x4Splat(), p.f32x4Splat(8)) as F32x4 | I32x4;
      f.store(
        p,
        quad instanceof I32x4 ? F32x4.convertS(quad.neg()).lane(3) : quad.lane(3),
        at + 16,
      );
      const pair = call(F64x2.promoteLow(p.f32x4Splat()), F64x2.promoteLow(p.f32x4Splat(8)));
      const lane = pair instanceof I64x2 ? pair.neg().lane(1).toF64S() : (pair as F64x2).lane(1);
      f.store(p, lane, at + 24);
    });
  });
  const float = fc.float({ noNaN: false });
  fc.assert(
    fc.property(float, float, (x, y) => {
      view.setFloat32(0, x, true);
      view.setFloat32(8, y, true);
      run(0);
      names.forEach((name, i) => {
        const want = name in unary ? unary[name]!(x) : binary[name]!(x, y);
        const at = 64 + 32 * i;
        const label = `${name}(${x}, ${y})`;
        const narrow = logical.has(name) ? want : Math.fround(want);
        if (name !== 'pmin' && name !== 'pmax') {
          assert.equal(view.getFloat32(at, true), narrow, `f32.${label}`);
          assert.equal(view.getFloat64(at + 8, true), want, `f64.${label}`);
        }
        if (name === 'copysign') return;
        assert.equal(view.getFloat32(at + 16, true), narrow, `f32x4.${label}`);
        assert.equal(view.getFloat64(at + 24, true), want, `f64x2.${label}`);
      });
    }),
    { numRuns: 300 },
  );
});

test('conversions saturate, sign-extend and keep bits', () => {
  const { view, run } = withPointer((f, p) => {
    f.store(p, p.f32().toI32S(), 16);
    f.store(p, p.f32().toI32U(), 20);
    f.store(p, p.f32().toI64S(), 24);
    f.store(p, p.f32().toF64().toI64U(), 32);
    f.store(p, p.f32().reinterpretI32(), 40);
    f.store(p, p.i32(4).reinterpretF32(), 44);
    f.store(p, p.i32(4).extend8S(), 48);
    f.store(p, p.i32(4).extend16S(), 52);
    f.store(p, p.i32(4).toI64U().toF32U(), 56);
    f.store(p, p.i32(4).toI64S().toF64S(), 64);
    f.store(p, p.i32(4).toF32U(), 60);
    f.store(p, p.i64(24).extend8S(), 72);
    f.store(p, p.i64(24).extend32S(), 80);
    f.store(p, p.f32().toF64().reinterpretI64().reinterpretF64().toF32(), 88);
    f.store(p, p.f32().toF64().toI32S(), 92);
    f.store(p, I32x4.truncS(p.f32x4Splat()).lane(2), 96);
    f.store(p, I32x4.truncU(p.f32x4Splat()).lane(2), 100);
    f.store(p, F32x4.convertU(p.i32x4Splat(4)).lane(1), 104);
    f.store(p, F32x4.demote(F64x2.convertLowS(p.i32x4Splat(4))).lane(1), 108);
    f.store(p, I32x4.truncF64x2S(F64x2.promoteLow(p.f32x4Splat())).lane(1), 112);
  });
  const clamp = (x: number, low: number, high: number): number =>
    Number.isNaN(x) ? 0 : Math.min(Math.max(Math.trunc(x), low), high);
  const big = (x: number, low: bigint, high: bigint): bigint => {
    if (Number.isNaN(x)) return 0n;
    if (x >= Number(high)) return high;
    return x <= Number(low) ? low : BigInt(Math.trunc(x));
  };
  fc.assert(
    fc.property(fc.float(), fc.integer(), (x, n) => {
      view.setFloat32(0, x, true);
      view.setInt32(4, n, true);
      run(0);
      const signed = clamp(x, -(2 ** 31), 2 ** 31 - 1);
      assert.equal(view.getInt32(16, true), signed | 0);
      assert.equal(view.getUint32(20, true), u(clamp(x, 0, 2 ** 32 - 1)));
      const wide = big(x, -(2n ** 63n), 2n ** 63n - 1n);
      assert.equal(view.getBigInt64(24, true), wide);
      assert.equal(view.getBigUint64(32, true), big(x, 0n, 2n ** 64n - 1n));
      if (!Number.isNaN(x)) assert.equal(view.getFloat32(88, true), x);
      assert.equal(view.getInt32(48, true), (n << 24) >> 24);
      assert.equal(view.getInt32(52, true), (n << 16) >> 16);
      assert.equal(view.getInt32(44, true), n);
      assert.equal(view.getFloat32(56, true), Math.fround(u(n)));
      assert.equal(view.getFloat32(60, true), Math.fround(u(n)));
      assert.equal(view.getFloat64(64, true), n);
      assert.equal(view.getBigInt64(72, true), BigInt.asIntN(8, wide));
      assert.equal(view.getBigInt64(80, true), BigInt.asIntN(32, wide));
      assert.equal(view.getInt32(92, true), signed | 0);
      assert.equal(view.getInt32(96, true), signed | 0);
      assert.equal(view.getUint32(100, true), u(clamp(x, 0, 2 ** 32 - 1)));
      assert.equal(view.getFloat32(104, true), Math.fround(u(n)));
      assert.equal(view.getFloat32(108, true), Math.fround(n));
      assert.equal(view.getInt32(112, true), signed | 0);
    }),
  );
});
