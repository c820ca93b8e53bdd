import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { flatten, i32Leb, i64Leb, signedLeb, unsignedLeb } from './encoding.ts';
import { hasMemory64, hasRelaxedSimd } from './features.ts';
import type { FunctionBuilder } from './function.ts';
import { kernelFunction } from './kernel-function.ts';
import type { ModuleOptions } from './module.ts';
import { ModuleBuilder } from './module.ts';
import type { Ptr } from './pointer.ts';
import { F32, F64, I32, I64, select } from './scalars.ts';
import { F32x4, F64x2, I8x16, I16x8, I32x4, I64x2 } from './vectors.ts';

interface Bench {
  readonly memory: WebAssembly.Memory;
  readonly view: DataView;
  run(...args: (number | bigint)[]): unknown;
}

function sharedMemory(pages = 2): WebAssembly.Memory {
  return new WebAssembly.Memory({ initial: pages, maximum: 65536, shared: true });
}

function instantiate(module: ModuleBuilder, memory = sharedMemory(), name = 'run'): Bench {
  const instance = new WebAssembly.Instance(new WebAssembly.Module(module.bytes()), {
    env: { memory },
  });
  const run = instance.exports[name] as unknown as Bench['run'];
  return { memory, view: new DataView(memory.buffer), run };
}

/** A module with `run(p)` whose body is `body`; memory starts zeroed. */
function withPointer(body: (f: FunctionBuilder, p: Ptr) => void, options?: ModuleOptions): Bench {
  const module = new ModuleBuilder(options);
  module.func('run', ['ptr'], body);
  return instantiate(module);
}

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

test('structured control: loops, branches, early return, calls', () => {
  const module = new ModuleBuilder();
  const square = module.func('square', ['i32'], (_f, x) => x.mul(x), {
    result: 'i32',
    export: false,
  });
  module.func(
    'run',
    ['i32'],
    (f, n) => {
      const total = f.local('i32');
      const i = f.local('i32');
      f.forRange(i, 0, n, 1, () => total.set(total.add(f.call(square, [i]))));
      f.whileLoop(
        () => total.gtS(1000),
        () => total.set(total.sub(1000)),
      );
      f.block((end) => {
        f.loop((again) => {
          f.brIf(end, total.geS(100));
          f.brIf(end, n.eqz());
          total.set(total.add(7));
          f.br(again);
        });
      });
      f.if(
        total.and(1),
        () => total.set(total.neg()),
        (end) => {
          f.brIf(end, total.ltS(200));
          f.return(I32.of(-1));
        },
      );
      return select(total.eqz(), I32.of(42), total);
    },
    { result: 'i32' },
  );
  const { run } = instantiate(module);
  const oracle = (n: number): number => {
    let total = 0;
    for (let i = 0; i < n; i++) total += i * i;
    while (total > 1000) total -= 1000;
    while (!(total >= 100 || n === 0)) total += 7;
    if (total & 1) total = -total;
    else if (!(total < 200)) return -1;
    return total === 0 ? 42 : total;
  };
  for (let n = 0; n < 40; n++) assert.equal(run(n), oracle(n), `n = ${n}`);
});

test('bulk memory, atomics and pointer arithmetic work in both address widths', () => {
  for (const address of ['i32', 'i64'] as const) {
    if (address === 'i64' && !hasMemory64()) continue;
    const module = new ModuleBuilder({ address });
    module.func('run', ['ptr', 'i32'], (f, p, n) => {
      const cursor = f.local('ptr');
      f.fill(p, 7, n);
      f.copy(p.add(64), p, 8);
      f.forRange(cursor, p.add(128), p.at(n.add(120), 1), 4, () => f.store(cursor, cursor.toI32()));
      f.store(p.at(I32.of(-1), 12).add(256), I32.of(5));
      f.store(p, p.add(3).alignUp(16).sub(p).toI32(), 300);
      f.atomicStore(p, I32.of(10), 304);
      f.store(p, f.atomicRmw('add', p, I32.of(5), 304), 308);
      f.store(p, f.atomicCompareExchange(p, I32.of(15), I32.of(99), 304), 312);
      f.store(p, p.atomicI32(304), 316);
      f.store(p, f.atomicRmw('xchg', p, I64.of(-3), 320), 328);
      f.store(p, p.atomicI64(320), 336);
      f.store(p, f.atomicWait(p, 1, -1, 304), 344);
      f.store(p, f.atomicWait(p, 99, 1000, 304), 348);
      f.store(p, f.atomicNotify(p, 1, 304), 352);
      f.fence();
      f.store(p, p, 360);
      f.store(p, p.ptr(360).i32(304), 368);
    });
    const wide = address === 'i64';
    const memory = wide
      ? new WebAssembly.Memory({ initial: 2n, maximum: 65536n, shared: true, address })
      : sharedMemory();
    const { view, run } = instantiate(module, memory);
    run(wide ? 1024n : 1024, 16);
    const i32 = (offset: number): number => view.getInt32(1024 + offset, true);
    assert.equal(i32(0), 0x07070707);
    assert.equal(i32(16), 0);
    assert.equal(i32(68), 0x07070707);
    assert.equal(i32(72), 0);
    assert.deepEqual([i32(128), i32(132), i32(136)], [1152, 1156, 0]);
    assert.equal(i32(244), 5);
    assert.equal(i32(300), 16);
    assert.deepEqual([i32(304), i32(308), i32(312), i32(316)], [99, 10, 15, 99]);
    assert.equal(view.getBigInt64(1024 + 336, true), -3n);
    assert.deepEqual([i32(344), i32(348), i32(352)], [1, 2, 0]);
    assert.equal(i32(368), 99);
  }
});

test('the parts of a kernel cover the range once, on any number of threads', () => {
  const module = new ModuleBuilder({ relaxed: hasRelaxedSimd() });
  kernelFunction(module, 'run', (f, k) => {
    const y = k.ptr(0);
    const [begin, end] = k.share(k.i32(1), 4);
    const i = f.local('i32');
    f.forRange(i, begin, end, 1, () => {
      const at = f.let(y.at(i, 4));
      f.store(at, at.i32().add(k.thread.add(1)));
    });
  });
  const { view, run } = instantiate(module);
  for (const [n, threads] of [
    [0, 1],
    [1, 4],
    [17, 1],
    [17, 3],
    [64, 7],
    [1000, 16],
  ] as const) {
    new Uint8Array(view.buffer).fill(0);
    view.setInt32(0, 4096, true);
    view.setInt32(8, n, true);
    for (let t = 0; t < threads; t++) run(0, t, threads);
    const owners = Array.from({ length: n }, (_, i) => view.getInt32(4096 + 4 * i, true));
    assert.ok(owners.every((owner, i) => owner >= 1 && owner >= (owners[i - 1] ?? 1)));
    assert.ok(owners.every((owner, i) => i % 4 === 0 || owner === owners[i - 1]));
    assert.equal(view.getInt32(4096 + 4 * n, true), 0);
  }
});
