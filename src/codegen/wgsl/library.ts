/**
 * WGSL functions that generated kernels call, each with the functions it needs in turn. WGSL's own
 * transcendentals are too loose for training (sin and cos are only specified on [-pi, pi], exp loses
 * bits with growing |x|, log near 1) and differ between drivers, so they are written out here:
 * argument reduction, then a minimax polynomial fitted for these ranges, about 2 ulp of float32.
 * WGSL lets an implementation assume that NaN and infinity do not occur; where they matter the
 * functions test bits, which no implementation may optimize away.
 */

import { invariant } from '../../core/errors.ts';

interface LibraryFunction {
  readonly needs?: readonly string[];
  readonly code: string;
}

const functions: Readonly<Record<string, LibraryFunction>> = {
  // The detour through a parameter keeps the value from being a constant, which may not be infinite.
  f32FromBits: { code: 'fn f32FromBits(bits: u32) -> f32 { return bitcast<f32>(bits); }' },
  isNanF32: {
    code: 'fn isNanF32(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }',
  },
  isNonzeroF32: {
    code: 'fn isNonzeroF32(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) != 0u; }',
  },
  signF32: {
    needs: ['isNanF32'],
    code: 'fn signF32(x: f32) -> f32 { return select(sign(x), x, isNanF32(x)); }',
  },
  maxF32: {
    needs: ['isNanF32'],
    code: `fn maxF32(a: f32, b: f32) -> f32 {
  return select(select(max(a, b), b, isNanF32(b)), a, isNanF32(a));
}`,
  },
  minF32: {
    needs: ['isNanF32'],
    code: `fn minF32(a: f32, b: f32) -> f32 {
  return select(select(min(a, b), b, isNanF32(b)), a, isNanF32(a));
}`,
  },
  divI32: {
    code: 'fn divI32(a: i32, b: i32) -> i32 { return select(a / select(b, 1i, b == 0i), 0i, b == 0i); }',
  },
  divU32: {
    code: 'fn divU32(a: u32, b: u32) -> u32 { return select(a / select(b, 1u, b == 0u), 0u, b == 0u); }',
  },
  // a - quotient * b, because drivers disagree on the sign of % for negative operands.
  remI32: {
    needs: ['divI32'],
    code: 'fn remI32(a: i32, b: i32) -> i32 { return select(a - divI32(a, b) * b, 0i, b == 0i); }',
  },
  remU32: {
    needs: ['divU32'],
    code: 'fn remU32(a: u32, b: u32) -> u32 { return select(a - divU32(a, b) * b, 0u, b == 0u); }',
  },
  i32FromF32: {
    needs: ['isNanF32'],
    code: `fn i32FromF32(x: f32) -> i32 {
  if (isNanF32(x)) { return 0i; }
  if (x >= 2147483648.0) { return 2147483647i; }
  if (x <= -2147483648.0) { return i32(-2147483648); }
  return i32(x);
}`,
  },
  u32FromF32: {
    needs: ['isNanF32'],
    code: `fn u32FromF32(x: f32) -> u32 {
  if (isNanF32(x) || x <= 0.0) { return 0u; }
  if (x >= 4294967296.0) { return 4294967295u; }
  return u32(x);
}`,
  },
  // 2^n for -126 <= n <= 127.
  powerOfTwo: {
    code: 'fn powerOfTwo(n: i32) -> f32 { return bitcast<f32>(u32(n + 127i) << 23u); }',
  },
  // x = n ln 2 + r with |r| <= ln(2) / 2; returns (n, r, e^r - 1). ln 2 is split so that n times its
  // first part is exact.
  expParts: {
    code: `fn expParts(x: f32) -> vec3<f32> {
  let n = round(x * 1.44269502);
  let r = (x - n * 0.693359375) + n * 0.000212194442;
  let p = ((((0.000199182308 * r + 0.00139463809) * r + 0.00833326485) * r + 0.0416662656) * r
    + 0.166666672) * r + 0.5;
  return vec3<f32>(n, r, r * r * p + r);
}`,
  },
  expF32: {
    needs: ['expParts', 'powerOfTwo', 'isNanF32', 'f32FromBits'],
    code: `fn expF32(x: f32) -> f32 {
  if (isNanF32(x)) { return x; }
  if (x > 88.7228394) { return f32FromBits(0x7f800000u); }
  if (x < -103.972084) { return 0.0; }
  let parts = expParts(x);
  let n = i32(parts.x);
  let half = n / 2i;
  return ((1.0 + parts.z) * powerOfTwo(half)) * powerOfTwo(n - half);
}`,
  },
  expm1F32: {
    needs: ['expF32', 'expParts', 'powerOfTwo', 'isNanF32'],
    code: `fn expm1F32(x: f32) -> f32 {
  if (isNanF32(x)) { return x; }
  if (x > 40.0) { return expF32(x); }
  if (x < -18.0) { return -1.0; }
  let parts = expParts(x);
  let scale = powerOfTwo(i32(parts.x));
  return parts.z * scale + (scale - 1.0);
}`,
  },
  // ln(1 + f) for sqrt(1/2) - 1 <= f <= sqrt(2) - 1, less its first term f.
  logTail: {
    code: `fn logTail(f: f32) -> f32 {
  let p = (((((((0.0691514686 * f - 0.117896952) * f + 0.118730165) * f - 0.1238437) * f
    + 0.142186552) * f - 0.166692495) * f + 0.200022265) * f - 0.249999866) * f + 0.333333105;
  let square = f * f;
  return square * f * p - 0.5 * square;
}`,
  },
  logF32: {
    needs: ['logTail', 'isNanF32', 'f32FromBits'],
    code: `fn logF32(x: f32) -> f32 {
  if (isNanF32(x)) { return x; }
  if (x < 0.0) { return f32FromBits(0x7fc00000u); }
  var bits = bitcast<u32>(x);
  if (bits == 0x7f800000u) { return x; }
  if ((bits & 0x7fffffffu) == 0u) { return f32FromBits(0xff800000u); }
  var exponent = 0i;
  if (bits < 0x00800000u) {
    bits = bitcast<u32>(f32(bits));
    exponent = -149i;
  }
  let steps = (bits - 0x3f3504f3u) >> 23u;
  let n = bitcast<i32>(steps << 23u) >> 23u;
  exponent += n;
  let f = bitcast<f32>(bits - (steps << 23u)) - 1.0;
  let e = f32(exponent);
  return ((logTail(f) - e * 0.000212194442) + f) + e * 0.693359375;
}`,
  },
  log1pF32: {
    needs: ['logTail', 'logF32'],
    code: `fn log1pF32(x: f32) -> f32 {
  if (abs(x) < 0.2928932) { return x + logTail(x); }
  return logF32(1.0 + x);
}`,
  },
  sigmoidF32: {
    needs: ['expF32'],
    code: `fn sigmoidF32(x: f32) -> f32 {
  let e = expF32(-abs(x));
  return select(e, 1.0, x >= 0.0) / (1.0 + e);
}`,
  },
  tanhF32: {
    needs: ['expF32', 'isNanF32'],
    code: `fn tanhF32(x: f32) -> f32 {
  if (isNanF32(x)) { return x; }
  let a = abs(x);
  if (a < 0.65) {
    let z = x * x;
    let p = (((-0.00552862464 * z + 0.0204833057) * z - 0.053692963) * z + 0.133308992) * z
      - 0.333332628;
    return x + x * z * p;
  }
  let t = select(1.0 - 2.0 / (expF32(2.0 * a) + 1.0), 1.0, a > 10.0);
  return select(t, -t, x < 0.0);
}`,
  },
  // Below 1 an odd polynomial; above it 1 - exp(-g(|x|)) with g = -ln erfc fitted on [1, 4].
  erfF32: {
    needs: ['expF32', 'isNanF32'],
    code: `fn erfF32(x: f32) -> f32 {
  if (isNanF32(x)) { return x; }
  let a = abs(x);
  if (a < 1.0) {
    let z = x * x;
    let p = ((((((-0.00000968013683 * z + 0.000112705409) * z - 0.000848471129) * z
      + 0.00522107491) * z - 0.0268654451) * z + 0.112837829) * z - 0.376126379) * z + 1.12837923;
    return x * p;
  }
  let g = ((((((0.0000216868138 * a - 0.000441335898) * a + 0.00420455914) * a - 0.0252082478) * a
    + 0.108418562) * a + 0.633219898) * a + 1.12957847) * a - 0.000188038175;
  let t = select(1.0 - expF32(-g), 1.0, a >= 4.0);
  return select(t, -t, x < 0.0);
}`,
  },
  // (sin x, cos x). pi / 2 is split into parts of 8 bits: n times each part is exact for |x| < 1e5.
  sinCosF32: {
    needs: ['f32FromBits'],
    code: `fn sinCosF32(x: f32) -> vec2<f32> {
  if ((bitcast<u32>(x) & 0x7f800000u) == 0x7f800000u) {
    return vec2<f32>(f32FromBits(0x7fc00000u));
  }
  let n = round(x * 0.636619772);
  let r = (((x - n * 1.5703125) - n * 0.0004825592041015625) - n * 0.0000012665987014770508)
    - n * 9.92093630e-10;
  let z = r * r;
  let s = r + r * z * (((0.00000271816271 * z - 0.000198393187) * z + 0.00833332911) * z - 0.166666672);
  let c = 1.0 - 0.5 * z
    + z * z * (((-2.72088556e-7 * z + 0.0000247995031) * z - 0.00138888834) * z + 0.0416666679);
  let quadrant = i32(n) & 3i;
  let swapped = (quadrant & 1i) == 1i;
  let sine = select(s, c, swapped);
  let cosine = select(c, s, swapped);
  return vec2<f32>(
    select(sine, -sine, quadrant >= 2i),
    select(cosine, -cosine, quadrant == 1i || quadrant == 2i),
  );
}`,
  },
  // C's pow. The base-2 logarithm would lose bits for large results, so this loses about y ln|x| ulp.
  powF32: {
    needs: ['expF32', 'logF32', 'isNanF32', 'f32FromBits'],
    code: `fn powF32(x: f32, y: f32) -> f32 {
  if (y == 0.0 || x == 1.0) { return 1.0; }
  if (isNanF32(x) || isNanF32(y)) { return f32FromBits(0x7fc00000u); }
  if (y == 1.0) { return x; }
  if (y == 2.0) { return x * x; }
  let a = abs(x);
  if (a == 1.0 && (bitcast<u32>(y) & 0x7fffffffu) == 0x7f800000u) { return 1.0; }
  let size = expF32(y * logF32(a));
  if (bitcast<u32>(x) < 0x80000000u) { return size; }
  let whole = floor(y) == y;
  let odd = whole && abs(y) < 16777216.0 && (i32(clamp(y, -16777216.0, 16777216.0)) & 1i) == 1i;
  if (odd) { return -size; }
  let finite = (bitcast<u32>(x) & 0x7fffffffu) < 0x7f800000u && a != 0.0;
  return select(size, f32FromBits(0x7fc00000u), finite && !whole);
}`,
  },
  // High word of a 32 x 32 bit product, by 16-bit halves.
  mulHighU32: {
    code: `fn mulHighU32(a: u32, b: u32) -> u32 {
  let aLow = a & 0xffffu;
  let aHigh = a >> 16u;
  let bLow = b & 0xffffu;
  let bHigh = b >> 16u;
  let middle = aHigh * bLow + ((aLow * bLow) >> 16u);
  let carry = aLow * bHigh + (middle & 0xffffu);
  return aHigh * bHigh + (middle >> 16u) + (carry >> 16u);
}`,
  },
  // Philox 4x32-10; equal to philox() of core/random.ts.
  philox: {
    needs: ['mulHighU32'],
    code: `fn philox(counter: vec4<u32>, seed: vec2<u32>) -> vec4<u32> {
  var c = counter;
  var k = seed;
  for (var round = 0u; round < 10u; round++) {
    let high0 = mulHighU32(0xd2511f53u, c.x);
    let high1 = mulHighU32(0xcd9e8d57u, c.z);
    c = vec4<u32>(high1 ^ c.y ^ k.x, 0xcd9e8d57u * c.z, high0 ^ c.w ^ k.y, 0xd2511f53u * c.x);
    k += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
  }
  return c;
}`,
  },
  randomWord: {
    needs: ['philox'],
    code: `fn randomWord(state: vec4<u32>, draw: u32, index: u32) -> u32 {
  let low = state.z + draw;
  let high = state.w + select(0u, 1u, low < draw);
  let words = philox(vec4<u32>(index >> 2u, 0u, low, high), state.xy);
  return words[index & 3u];
}`,
  },
  // IEEE half to float by bits: unpack2x16float may flush subnormals and leaves infinities open.
  f32FromHalf: {
    code: `fn f32FromHalf(h: u32) -> f32 {
  let sign = (h & 0x8000u) << 16u;
  let exponent = h & 0x7c00u;
  let fraction = h & 0x03ffu;
  if (exponent == 0u) {
    return bitcast<f32>(sign | bitcast<u32>(f32(fraction) * 5.9604644775390625e-8));
  }
  if (exponent == 0x7c00u) { return bitcast<f32>(sign | 0x7f800000u | (fraction << 13u)); }
  return bitcast<f32>(sign | (((h & 0x7fffu) << 13u) + 0x38000000u));
}`,
  },
  // Round to nearest even, with subnormals; 65520 and above become infinite.
  halfFromF32: {
    code: `fn halfFromF32(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  let sign = (bits >> 16u) & 0x8000u;
  let size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) { return sign | 0x7e00u; }
  if (size >= 0x477ff000u) { return sign | 0x7c00u; }
  if (size < 0x38800000u) { return sign | u32(round(bitcast<f32>(size) * 16777216.0)); }
  return sign | (((size + 0xfffu + ((size >> 13u) & 1u)) >> 13u) - 0x1c000u);
}`,
  },
  brainFromF32: {
    code: `fn brainFromF32(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) { return (bits >> 16u) | 0x40u; }
  return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}`,
  },
};

/** Which library functions a kernel calls; prints them once each, callees first. */
export class UsedFunctions {
  readonly #order: string[] = [];

  /** Marks a function as used and returns its name. */
  use(name: string): string {
    if (this.#order.includes(name)) return name;
    const entry = functions[name];
    invariant(entry !== undefined, () => `the WGSL library has no function ${name}`);
    for (const needed of entry.needs ?? []) this.use(needed);
    this.#order.push(name);
    return name;
  }

  /** Marks every library function that `text` calls by name; for hand-written pieces. */
  useNamesIn(text: string): string {
    for (const match of text.matchAll(/\b(\w+)\(/g)) {
      const name = match[1] ?? '';
      if (Object.hasOwn(functions, name)) this.use(name);
    }
    return text;
  }

  definitions(): string[] {
    return this.#order.map((name) => functions[name]!.code);
  }
}

/** All function names, for tests that compile the whole library. */
export const libraryNames: readonly string[] = Object.keys(functions);
