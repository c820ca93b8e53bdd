import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { type DType, dtypeNames, dtypes } from '../../core/dtype.ts';
import { FileError } from '../../core/errors.ts';
import { type HostTensor, hostTensor, hostValues } from '../../core/host-tensor.ts';
import { numElements } from '../../core/shape.ts';
import { nodeFileSystem } from '../files/file-system.ts';
import { maxHeaderBytes } from './header.ts';
import { openSafetensors } from './reader.ts';
import { type SafetensorsEntry, saveSafetensors } from './writer.ts';

const fixtures = new URL('../../../test/fixtures/safetensors/', import.meta.url).pathname;

let root = '';
let count = 0;
before(async () => {
  root = await mkdtemp(join(tmpdir(), 'retune-safetensors-'));
});
after(() => rm(root, { recursive: true, force: true }));

async function emptyFolder(): Promise<string> {
  const folder = join(root, String(count++));
  await mkdir(folder);
  return folder;
}

interface Expected {
  readonly dtype: DType;
  readonly shape: number[];
  readonly values: number[];
}

const expected: Record<string, Record<string, Expected>> = JSON.parse(
  await readFile(join(fixtures, 'expected.json'), 'utf8'),
);

/** A file with this header text (or object) and this many zero bytes of data. */
async function writeRaw(header: unknown, dataBytes: number): Promise<string> {
  const path = join(await emptyFolder(), 'raw.safetensors');
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.byteLength));
  await writeFile(path, Buffer.concat([length, json, Buffer.alloc(dataBytes)]));
  return path;
}

async function rejectsOpen(path: string, message: RegExp): Promise<void> {
  await assert.rejects(openSafetensors(path), (error) => {
    assert.ok(error instanceof FileError, String(error));
    assert.match(error.message, message);
    return true;
  });
}

const f32 = (values: number[], shape: number[] = [values.length]) =>
  hostTensor(values, shape, 'float32');

describe('reading', () => {
  for (const file of ['plain', 'wide']) {
    test(`gives the values that PyTorch stored in ${file}.safetensors`, async () => {
      await using opened = await openSafetensors(join(fixtures, `${file}.safetensors`));
      const wanted = expected[file] ?? {};
      assert.deepEqual([...opened.names].sort(), Object.keys(wanted).sort());
      for (const [name, want] of Object.entries(wanted)) {
        const tensor = await opened.read(name, { shape: want.shape });
        assert.equal(tensor.dtype, want.dtype, name);
        assert.equal(opened.info(name).dtype, want.dtype, name);
        assert.deepEqual(tensor.shape, want.shape, name);
        assert.deepEqual([...hostValues(tensor)], want.values, name);
      }
    });
  }

  test('gives metadata and facts about a tensor without reading it', async () => {
    await using opened = await openSafetensors(join(fixtures, 'plain.safetensors'));
    assert.deepEqual(opened.metadata, { format: 'pt' });
    const info = opened.info('brain.weight');
    assert.deepEqual([info.stored, info.dtype, info.bytes], ['BF16', 'bfloat16', 10]);
  });

  test('refuses an int64 that int32 cannot hold, naming the element', async () => {
    await using opened = await openSafetensors(join(fixtures, 'long-out-of-range.safetensors'));
    await assert.rejects(opened.read('long'), {
      name: 'FileError',
      message: /element 1 of tensor 'long' does not fit int32 \(got 2147483648, stored as I64\)/,
    });
  });

  test('names the nearest tensors when one is missing', async () => {
    await using opened = await openSafetensors(join(fixtures, 'plain.safetensors'));
    await assert.rejects(opened.read('half.wieght'), {
      name: 'FileError',
      message: /plain\.safetensors has no tensor 'half\.wieght' .*'half\.weight'/,
    });
  });

  test('states both shapes when they differ', async () => {
    await using opened = await openSafetensors(join(fixtures, 'plain.safetensors'));
    await assert.rejects(opened.read('weight', { shape: [4, 3] }), {
      name: 'FileError',
      message: /'weight' has another shape \(expected \[4, 3\], got \[3, 4\]\)/,
    });
  });

  test('opens files with dtypes it cannot read, and says so when asked to', async () => {
    const path = await writeRaw({ q: { dtype: 'F8_E4M3', shape: [4], data_offsets: [0, 4] } }, 4);
    await using opened = await openSafetensors(path);
    assert.equal(opened.info('q').dtype, undefined);
    await assert.rejects(opened.read('q'), /'q' has a dtype that cannot be read \(got F8_E4M3\)/);
  });

  test('refuses bytes other than 0 and 1 in a bool tensor', async () => {
    const path = await writeRaw({ m: { dtype: 'BOOL', shape: [2], data_offsets: [0, 2] } }, 2);
    const bytes = await readFile(path);
    bytes[bytes.length - 1] = 7;
    await writeFile(path, bytes);
    await using opened = await openSafetensors(path);
    await assert.rejects(opened.read('m'), /element 1 of tensor 'm' does not fit bool \(got 7/);
  });

  test('notices that a file shrank after it was opened', async () => {
    const path = join(await emptyFolder(), 'm.safetensors');
    const { totalBytes } = await saveSafetensors(path, [{ name: 'a', tensor: f32([1, 2, 3]) }]);
    await using opened = await openSafetensors(path);
    const { length } = await readFile(path);
    await truncate(path, length - totalBytes + 5);
    await assert.rejects(opened.read('a'), /'a' is cut off \(expected 12 bytes, got 5\)/);
  });
});

describe('a malformed file is refused', () => {
  const good = { dtype: 'F32', shape: [2], data_offsets: [0, 8] };
  const cases: [string, unknown, number, RegExp][] = [
    ['a header that is no JSON', '{"a":', 0, /the header is not JSON/],
    ['a header that is no object', '[]', 0, /the header is not a JSON object/],
    ['a truncated tensor', { a: good }, 5, /truncated in tensor 'a' \(its data ends at 8, .* 5 by/],
    ['bytes after the last tensor', { a: good }, 9, /1 bytes follow the last tensor/],
    [
      'a hole',
      { a: { ...good, data_offsets: [4, 12] } },
      12,
      /'a' leaves a hole .*at 4, expected 0/,
    ],
    ['overlap', { a: good, b: { ...good, data_offsets: [4, 12] } }, 12, /'b' overlaps the tensor/],
    ['size unlike shape', { a: { ...good, shape: [3] } }, 8, /F32 \[3\] needs 12 bytes, .*hold 8/],
    ['an unknown dtype', { a: { ...good, dtype: 'X9' } }, 8, /'a' has an unknown dtype \(got 'X9'/],
    ['no dtype', { a: { shape: [2], data_offsets: [0, 8] } }, 8, /'a' has no dtype/],
    ['a negative size', { a: { ...good, shape: [-2] } }, 8, /impossible shape \(got \[-2\]\)/],
    ['backward offsets', { a: { ...good, data_offsets: [8, 0] } }, 8, /hold -8/],
    ['too many offsets', { a: { ...good, data_offsets: [0, 8, 8] } }, 8, /impossible data_offsets/],
    ['an overflowing shape', { a: { ...good, shape: [2 ** 40, 2 ** 40] } }, 8, /another size/],
    ['metadata that is no text', { __metadata__: { a: 1 }, a: good }, 8, /key 'a' is not a string/],
  ];
  for (const [what, header, dataBytes, message] of cases) {
    test(what, async () => rejectsOpen(await writeRaw(header, dataBytes), message));
  }

  test('shorter than its length field', async () => {
    const path = join(await emptyFolder(), 'x.safetensors');
    await writeFile(path, 'abc');
    await rejectsOpen(path, /ends inside the length field \(got 3 bytes/);
  });

  test('truncated inside its header', async () => {
    const path = await writeRaw({ a: good }, 8);
    await truncate(path, 20);
    await rejectsOpen(path, /truncated inside its header \(expected at least \d+ bytes, got 20\)/);
  });

  test('longer header than the format allows', async () => {
    const path = join(await emptyFolder(), 'x.safetensors');
    await writeFile(path, Buffer.alloc(64, 0xff));
    await rejectsOpen(path, new RegExp(`too long to be one .*at most ${maxHeaderBytes}`));
  });

  test('a missing file or a folder without weights', async () => {
    const folder = await emptyFolder();
    await rejectsOpen(join(folder, 'no.safetensors'), /does not exist \(got ENOENT at .*no\.saf/);
    await rejectsOpen(folder, /has no model\.safetensors .*\(got none\)/);
    await writeFile(join(folder, 'a.safetensors'), '');
    await writeFile(join(folder, 'b.safetensors'), '');
    await rejectsOpen(folder, /got a\.safetensors, b\.safetensors/);
  });
});

describe('writing', () => {
  test('makes the same bytes as the reference implementation', async () => {
    const source = join(fixtures, 'plain.safetensors');
    await using opened = await openSafetensors(source);
    const entries: SafetensorsEntry[] = [];
    for (const name of opened.names) entries.push({ name, tensor: await opened.read(name) });
    const path = join(await emptyFolder(), 'copy.safetensors');
    await saveSafetensors(path, entries.reverse(), { metadata: opened.metadata });
    assert.deepEqual(await readFile(path), await readFile(source));
  });

  const anyTensor: fc.Arbitrary<HostTensor> = fc
    .tuple(fc.constantFrom(...dtypeNames), fc.array(fc.nat({ max: 4 }), { maxLength: 4 }))
    .chain(([dtype, shape]) => {
      const bytes = numElements(shape) * dtypes[dtype].bytes;
      const max = dtype === 'bool' ? 1 : 255;
      return fc
        .uint8Array({ minLength: bytes, maxLength: bytes, max })
        .map((data) => ({ dtype, shape, data }));
    });

  test('whatever is written is read back bit for bit, in one file or many', async () => {
    const named = fc.dictionary(fc.string({ unit: 'binary', maxLength: 12 }), anyTensor, {
      noNullPrototype: true,
    });
    const property = fc.asyncProperty(named, fc.integer({ min: 1, max: 200 }), async (all, max) => {
      const entries = Object.entries(all)
        .filter(([name]) => name !== '__metadata__' && name.isWellFormed())
        .map(([name, tensor]) => ({ name, tensor }));
      const folder = await emptyFolder();
      await saveSafetensors(join(folder, 'model.safetensors'), entries, { maxShardBytes: max });
      await using opened = await openSafetensors(folder);
      assert.deepEqual(opened.names.toSorted(), entries.map(({ name }) => name).toSorted());
      for (const { name, tensor } of entries) {
        assert.deepEqual(await opened.read(name), {
          ...tensor,
          data: Uint8Array.from(tensor.data),
        });
      }
    });
    await fc.assert(property, { numRuns: 60 });
  });

  test('shards by size in the given order and writes an index', async () => {
    const folder = await emptyFolder();
    const entries = ['a', 'b', 'c', 'd'].map((name, i) => ({ name, tensor: f32([i, i, i]) }));
    const saved = await saveSafetensors(join(folder, 'model.safetensors'), entries, {
      maxShardBytes: 24,
    });
    assert.deepEqual((await readdir(folder)).sort(), [
      'model-00001-of-00002.safetensors',
      'model-00002-of-00002.safetensors',
      'model.safetensors.index.json',
    ]);
    assert.equal(saved.totalBytes, 48);
    const index = JSON.parse(await readFile(join(folder, 'model.safetensors.index.json'), 'utf8'));
    assert.deepEqual(index, {
      metadata: { total_size: 48 },
      weight_map: {
        a: 'model-00001-of-00002.safetensors',
        b: 'model-00001-of-00002.safetensors',
        c: 'model-00002-of-00002.safetensors',
        d: 'model-00002-of-00002.safetensors',
      },
    });
  });

  test('loads tensors one at a time, when their turn comes', async () => {
    const path = join(await emptyFolder(), 'm.safetensors');
    const loaded: string[] = [];
    const lazy = (name: string, dtype: DType): SafetensorsEntry => ({
      name,
      dtype,
      shape: [2],
      load: async () => {
        loaded.push(name);
        return hostTensor([1, 2], [2], dtype);
      },
    });
    await saveSafetensors(path, [lazy('h', 'float16'), lazy('f', 'float32'), lazy('e', 'float32')]);
    assert.deepEqual(loaded, ['e', 'f', 'h']);
    await using opened = await openSafetensors(path);
    assert.deepEqual(opened.names, ['e', 'f', 'h']);
    assert.deepEqual([...hostValues(await opened.read('h'))], [1, 2]);
  });

  test('removes the files of an earlier save that a reader would mix up', async () => {
    const folder = await emptyFolder();
    const path = join(folder, 'model.safetensors');
    const entries = ['a', 'b', 'c'].map((name) => ({ name, tensor: f32([1]) }));
    await writeFile(join(folder, 'model-card.md'), 'kept');
    await saveSafetensors(path, entries);
    await saveSafetensors(path, entries, { maxShardBytes: 4 });
    assert.equal((await readdir(folder)).includes('model.safetensors'), false);
    await saveSafetensors(path, entries, { maxShardBytes: 8 });
    assert.equal((await readdir(folder)).length, 4);
    await saveSafetensors(path, entries);
    assert.deepEqual((await readdir(folder)).sort(), ['model-card.md', 'model.safetensors']);
  });

  test('a full disk keeps the previous file whole', async () => {
    const path = join(await emptyFolder(), 'm.safetensors');
    await saveSafetensors(path, [{ name: 'a', tensor: f32([1]) }]);
    const before = await readFile(path);
    const full = Object.assign(new Error('full'), { code: 'ENOSPC' });
    const fs = {
      ...nodeFileSystem,
      async create(file: string) {
        const real = await nodeFileSystem.create(file);
        let appends = 0;
        return {
          ...real,
          append: (bytes: Uint8Array) =>
            appends++ === 1 ? Promise.reject(full) : real.append(bytes),
        };
      },
    };
    await assert.rejects(saveSafetensors(path, [{ name: 'a', tensor: f32([2]) }], { fs }), {
      name: 'FileError',
      message: /^saveSafetensors: the disk is full/,
    });
    assert.deepEqual(await readFile(path), before);
  });

  test('bad entries are refused before anything is written', async () => {
    const folder = await emptyFolder();
    const path = join(folder, 'm.safetensors');
    const a = { name: 'a', tensor: f32([1]) };
    await assert.rejects(saveSafetensors(path, [a, a]), /given twice \(got 'a'\)/);
    await assert.rejects(
      saveSafetensors(path, [{ ...a, name: '__metadata__' }]),
      /name that the format reserves/,
    );
    await assert.rejects(saveSafetensors(join(folder, 'm.bin'), [a]), /must end in \.safetensors/);
    await assert.rejects(saveSafetensors(path, [a], { maxShardBytes: 0 }), /must be positive/);
    const liar = { name: 'a', dtype: 'float32' as const, shape: [2], load: () => f32([1]) };
    await assert.rejects(
      saveSafetensors(path, [liar]),
      /expected float32 \[2\] in 8 bytes, got float32 \[1\] in 4/,
    );
    assert.deepEqual(await readdir(folder), []);
  });
});

describe('an index that disagrees with its shards is refused', () => {
  async function sharded(): Promise<{ folder: string; index: string }> {
    const folder = await emptyFolder();
    const entries = ['a', 'b'].map((name) => ({ name, tensor: f32([1]) }));
    await saveSafetensors(join(folder, 'model.safetensors'), entries, { maxShardBytes: 4 });
    return { folder, index: join(folder, 'model.safetensors.index.json') };
  }
  const one = 'model-00001-of-00002.safetensors';
  const two = 'model-00002-of-00002.safetensors';
  const cases: [string, unknown, RegExp][] = [
    ['no weight_map', {}, /has no weight_map object/],
    ['a tensor that is not there', { a: one, b: two, c: two }, /'c' in .*, which has none/],
    ['a tensor in another shard', { a: two, b: one }, /'a' in .*but it is in /],
    ['a path outside the folder', { a: '../x.safetensors' }, /names no plain file for tensor 'a'/],
    ['a shard that is not there', { a: one, b: 'model-3.safetensors' }, /does not exist/],
  ];
  for (const [what, map, message] of cases) {
    test(what, async () => {
      const { folder, index } = await sharded();
      const text = what === 'no weight_map' ? map : { weight_map: map };
      await writeFile(index, JSON.stringify(text));
      await rejectsOpen(folder, message);
    });
  }

  test('a tensor of a shard that the index leaves out', async () => {
    const folder = await emptyFolder();
    const entries = ['a', 'b', 'c'].map((name) => ({ name, tensor: f32([1]) }));
    await saveSafetensors(join(folder, 'model.safetensors'), entries, { maxShardBytes: 8 });
    const index = join(folder, 'model.safetensors.index.json');
    await writeFile(index, JSON.stringify({ weight_map: { a: one, c: two } }));
    await rejectsOpen(folder, /does not list tensor 'b' of its files/);
  });

  test('a tensor that two shards hold', async () => {
    const { folder, index } = await sharded();
    await saveSafetensors(join(folder, two), [{ name: 'a', tensor: f32([1]) }]);
    await writeFile(index, JSON.stringify({ weight_map: { a: one, b: two } }));
    await rejectsOpen(folder, /tensor 'a' is in two files/);
  });
});
