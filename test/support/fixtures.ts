/**
 * Reads the expectations under test/fixtures that scripts/fixtures/make.py wrote with PyTorch and
 * transformers. Uses nothing of the project, its own small safetensors reader included, so that what
 * is tested and what it is tested against never share code.
 *
 * A group is `<path>.json` (the manifest) and, where it has arrays, `<path>.safetensors` beside it:
 *   const ops = loadFixture('ops/matmul');
 *   for (const entry of ops.manifest.cases) { const a = ops.input(entry.inputs[0]); ... }
 */

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type {
  FixtureArray,
  FixtureDType,
  ManifestOf,
  OpInput,
  Tolerance,
} from './fixture-types.ts';

export interface Fixture<M> {
  readonly manifest: M;
  readonly keys: readonly string[];
  has(key: string): boolean;
  array(key: string): FixtureArray;
  /** An operand as the op sees it: a view is materialized row-major in its own shape. */
  input(input: OpInput): FixtureArray;
}

const root = fileURLToPath(new URL('../fixtures/', import.meta.url));

/** Op groups present: `ops/matmul`, ... */
export function opGroups(): `ops/${string}`[] {
  const names = readdirSync(`${root}ops`).filter((name) => name.endsWith('.json'));
  return names.sort().map((name) => `ops/${name.slice(0, -'.json'.length)}` as const);
}

/** Model groups present: `models/llama2`, ... */
export function modelGroups(): `models/${string}`[] {
  return readdirSync(`${root}models`)
    .sort()
    .map((name) => `models/${name}` as const);
}

/** Absolute path of a file or folder of the fixtures, such as a model folder to load from. */
export function fixturePath(relative: string): string {
  return root + relative;
}

/** Loads one group. Throws when the group is not there. */
export function loadFixture<G extends string>(group: G): Fixture<ManifestOf<G>> {
  const base = root + groupFile(group);
  const manifest = JSON.parse(readFileSync(`${base}.json`, 'utf8')) as ManifestOf<G>;
  const arrays = existsSync(`${base}.safetensors`)
    ? readArrays(`${base}.safetensors`)
    : new Map<string, FixtureArray>();
  const array = (key: string): FixtureArray => {
    const found = arrays.get(key);
    if (found === undefined) throw new Error(`loadFixture: ${group} has no array ${key}`);
    return found;
  };
  return {
    manifest,
    keys: [...arrays.keys()],
    has: (key) => arrays.has(key),
    array,
    input: (input) => materialize(array(input.key), input),
  };
}

/** Flat indices of the values sampled from a tensor of `count` elements. */
export function sampleIndices(count: number, samples = 16): number[] {
  if (count <= samples) return Array.from({ length: count }, (_, i) => i);
  return Array.from({ length: samples }, (_, i) => Math.floor((i * (count - 1)) / (samples - 1)));
}

/**
 * Where `got` and `want` disagree most beyond `tolerance`, in words, or null when they agree. NaN
 * agrees with NaN, an infinity with itself, and with both tolerances zero -0 agrees with 0.
 */
export function difference(
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  tolerance: Tolerance,
): string | null {
  if (got.length !== want.length) return `${got.length} values instead of ${want.length}`;
  let scale = 0;
  for (let i = 0; i < want.length; i++) {
    const size = Math.abs(want[i] as number);
    if (Number.isFinite(size) && size > scale) scale = size;
  }
  let worst = 0;
  let text: string | null = null;
  for (let i = 0; i < want.length; i++) {
    const a = got[i] as number;
    const b = want[i] as number;
    if (a === b || (Number.isNaN(a) && Number.isNaN(b))) continue;
    const bound = tolerance.rtol * Math.abs(b) + tolerance.atolScale * scale;
    const off = Math.abs(a - b);
    if (Number.isFinite(b) && off <= bound) continue;
    const size = Number.isFinite(off) ? off : Number.MAX_VALUE;
    if (size > worst) {
      worst = size;
      text = `element ${i} of ${want.length} is ${a}, expected ${b} within ${bound}`;
    }
  }
  return text;
}

function groupFile(group: string): string {
  if (group.startsWith('models/')) return `${group}/expected/expected`;
  if (group.startsWith('tokenizers/')) return `${group}/expected`;
  return group;
}

interface HeaderEntry {
  readonly dtype: string;
  readonly shape: number[];
  readonly data_offsets: [number, number];
}

const storedDTypes: Readonly<Record<string, FixtureDType>> = {
  F64: 'float64',
  F32: 'float32',
  F16: 'float16',
  BF16: 'bfloat16',
  I32: 'int32',
  I8: 'int8',
  BOOL: 'bool',
};

function readArrays(path: string): Map<string, FixtureArray> {
  const file = readFileSync(path);
  const headerBytes = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, 8 + headerBytes)) as Record<
    string,
    HeaderEntry
  >;
  const arrays = new Map<string, FixtureArray>();
  for (const [key, entry] of Object.entries(header)) {
    if (key === '__metadata__') continue;
    const dtype = storedDTypes[entry.dtype];
    if (dtype === undefined) throw new Error(`${path}: ${key} has dtype ${entry.dtype}`);
    const [begin, end] = entry.data_offsets;
    const bytes = Uint8Array.from(file.subarray(8 + headerBytes + begin, 8 + headerBytes + end));
    arrays.set(key, { dtype, shape: entry.shape, bytes, values: valuesOf(dtype, bytes) });
  }
  return arrays;
}

function valuesOf(dtype: FixtureDType, bytes: Uint8Array): Float64Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const fill = (size: number, read: (at: number) => number): Float64Array =>
    Float64Array.from({ length: bytes.length / size }, (_, i) => read(i * size));
  switch (dtype) {
    case 'float64':
      return fill(8, (at) => view.getFloat64(at, true));
    case 'float32':
      return fill(4, (at) => view.getFloat32(at, true));
    case 'float16':
      return fill(2, (at) => halfToNumber(view.getUint16(at, true)));
    case 'bfloat16': {
      // A bfloat16 is the upper half of a float32.
      const scratch = new DataView(new ArrayBuffer(4));
      return fill(2, (at) => {
        scratch.setUint32(0, view.getUint16(at, true) << 16);
        return scratch.getFloat32(0);
      });
    }
    case 'int32':
      return fill(4, (at) => view.getInt32(at, true));
    case 'int8':
      return fill(1, (at) => view.getInt8(at));
    case 'bool':
      return fill(1, (at) => view.getUint8(at));
  }
}

function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : Number.NaN;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

function materialize(base: FixtureArray, input: OpInput): FixtureArray {
  if (input.view === undefined) return base;
  const { strides, offset } = input.view;
  const count = input.shape.reduce((product, size) => product * size, 1);
  const size = base.values.length === 0 ? 0 : base.bytes.length / base.values.length;
  const bytes = new Uint8Array(count * size);
  const index = input.shape.map(() => 0);
  for (let i = 0; i < count; i++) {
    let at = offset;
    for (const [axis, stride] of strides.entries()) at += (index[axis] as number) * stride;
    bytes.set(base.bytes.subarray(at * size, (at + 1) * size), i * size);
    for (let axis = index.length - 1; axis >= 0; axis--) {
      index[axis] = (index[axis] as number) + 1;
      if ((index[axis] as number) < (input.shape[axis] as number)) break;
      index[axis] = 0;
    }
  }
  return { dtype: base.dtype, shape: input.shape, bytes, values: valuesOf(base.dtype, bytes) };
}
