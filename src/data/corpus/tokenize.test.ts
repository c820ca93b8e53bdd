import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { openSafetensors } from '../safetensors/reader.ts';
import { ByteTokenizer } from '../tokenizer/byte-tokenizer.ts';
import { splitByBlocks, splitByDocument } from './split.ts';
import { MemoryTokens, readAllTokens, SelectedTokens, type TokenSource } from './token-source.ts';
import { type TokenizeOptions, tokenizeCorpus } from './tokenize.ts';

let root = '';
let count = 0;
before(async () => {
  root = await mkdtemp(join(tmpdir(), 'retune-tokenize-'));
});
after(() => rm(root, { recursive: true, force: true }));

const tokenizer = new ByteTokenizer({ specials: ['<s>', '</s>'], bos: '<s>', eos: '</s>' });
const documents =
  (...texts: string[]) =>
  () =>
    texts.map((text) => ({ text }));

/** Tokens 0..n-1 with these document lengths. */
function counting(lengths: number[]): MemoryTokens {
  let end = 0;
  const ends = Float64Array.from(lengths, (length) => (end += length));
  return new MemoryTokens(
    Int32Array.from({ length: end }, (_, i) => i),
    ends,
    'counting',
  );
}

async function tokensOf(source: TokenSource): Promise<number[]> {
  return [...(await readAllTokens(source))];
}

/** Each document's tokens. */
async function documentsOf(source: TokenSource): Promise<number[][]> {
  const all = await tokensOf(source);
  return [...source.documentEnds].map((end, i) => all.slice(source.documentEnds[i - 1] ?? 0, end));
}

describe('tokenizeCorpus', () => {
  test('frames each document with bos and eos unless told not to', async () => {
    const source = await tokenizeCorpus(documents('ab', 'c'), tokenizer);
    assert.deepEqual(await documentsOf(source), [
      [256, 97, 98, 257],
      [256, 99, 257],
    ]);
    const bare = await tokenizeCorpus(documents('ab', 'c'), tokenizer, { bos: false, eos: false });
    assert.deepEqual(await documentsOf(bare), [[97, 98], [99]]);
    assert.notEqual(source.fingerprint, bare.fingerprint);
  });

  test('gives the same from memory, a new cache and an old cache', async () => {
    const cacheFolder = join(root, String(count++), 'deep');
    const all = documents('first text', '', 'second \u00e9', 'x'.repeat(3000));
    await using memory = await tokenizeCorpus(all, tokenizer);
    await using made = await tokenizeCorpus(all, tokenizer, { cacheFolder });
    await using again = await tokenizeCorpus(all, tokenizer, { cacheFolder });
    assert.deepEqual(
      [memory, made, again].map((s) => s.fromCache),
      [false, false, true],
    );
    for (const source of [made, again]) {
      assert.deepEqual(await documentsOf(source), await documentsOf(memory));
      assert.equal(source.fingerprint, memory.fingerprint);
      const part = new Int32Array(5);
      await source.read(7, part);
      assert.deepEqual([...part], (await tokensOf(memory)).slice(7, 12));
    }
    assert.equal((await readdir(cacheFolder)).length, 1);
  });

  test('caches under another key when text, documents, tokenizer or frame change', async () => {
    const cacheFolder = join(root, String(count++));
    const variants: [string[], ByteTokenizer, TokenizeOptions][] = [
      [['ab', 'c'], tokenizer, {}],
      [['a', 'bc'], tokenizer, {}],
      [['ab', 'd'], tokenizer, {}],
      [['ab', 'c'], new ByteTokenizer(), {}],
      [['ab', 'c'], tokenizer, { eos: false }],
    ];
    for (const [texts, each, options] of variants) {
      const source = await tokenizeCorpus(documents(...texts), each, { ...options, cacheFolder });
      assert.equal(source.fromCache, false);
      await source.close();
    }
    assert.equal((await readdir(cacheFolder)).length, variants.length);
  });

  test('keeps the cache in a file that any safetensors reader opens', async () => {
    const cacheFolder = join(root, String(count++));
    await using source = await tokenizeCorpus(documents('hi'), tokenizer, { cacheFolder });
    await using file = await openSafetensors(cacheFolder);
    assert.deepEqual(file.info('tokens').shape, [4]);
    assert.deepEqual(file.info('lengths').shape, [1]);
    assert.equal(source.length, 4);
  });

  test('makes a damaged cache file anew', async () => {
    const cacheFolder = join(root, String(count++));
    const all = documents('some text', 'more');
    await (await tokenizeCorpus(all, tokenizer, { cacheFolder })).close();
    const [name = ''] = await readdir(cacheFolder);
    const path = join(cacheFolder, name);
    const good = await readFile(path);
    await truncate(path, good.length - 9);
    const damaged = await tokenizeCorpus(all, tokenizer, { cacheFolder });
    assert.equal(damaged.fromCache, false);
    await damaged.close();
    assert.deepEqual(await readFile(path), good);
  });

  test('refuses an empty corpus and one that changes meanwhile', async () => {
    await assert.rejects(tokenizeCorpus(documents(), tokenizer), /there is no text to encode/);
    let reads = 0;
    const changing = () => [{ text: `version ${reads++}` }];
    const cacheFolder = join(root, String(count++));
    await assert.rejects(tokenizeCorpus(changing, tokenizer, { cacheFolder }), /corpus changed/);
    assert.deepEqual(await readdir(cacheFolder), []);
  });

  test('reports progress and an unwritable cache folder', async () => {
    const seen: number[][] = [];
    const onProgress = (...args: number[]) => seen.push(args);
    await tokenizeCorpus(documents('ab', 'c'), tokenizer, { onProgress });
    assert.deepEqual(seen, [
      [1, 4],
      [2, 7],
    ]);
    const file = join(root, 'a-file');
    await writeFile(file, '');
    const inside = tokenizeCorpus(documents('x'), tokenizer, { cacheFolder: join(file, 'x') });
    await assert.rejects(inside, { name: 'FileError' });
  });
});

describe('SelectedTokens', () => {
  test('reads across ranges and cuts documents at them', async () => {
    const part = new SelectedTokens(
      counting([3, 4, 5]),
      [
        { start: 1, end: 4 },
        { start: 6, end: 7 },
        { start: 9, end: 12 },
      ],
      'part',
    );
    assert.deepEqual(await documentsOf(part), [[1, 2], [3], [6], [9, 10, 11]]);
    const middle = new Int32Array(3);
    await part.read(2, middle);
    assert.deepEqual([...middle], [3, 6, 9]);
    await assert.rejects(part.read(5, middle), { name: 'InternalError' });
  });
});

describe('splits', () => {
  const lengths = fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 30 });
  const fraction = fc.constantFrom(0, 0.1, 0.25, 0.5);

  test('put every token on exactly one side, in order', async () => {
    await fc.assert(
      fc.asyncProperty(lengths, fraction, fc.integer({ min: 1, max: 9 }), async (ls, f, blocks) => {
        const source = counting(ls);
        for (const split of [splitByBlocks(source, f, blocks), await splitByDocument(source, f)]) {
          const train = await tokensOf(split.train);
          const validation = await tokensOf(split.validation);
          assert.deepEqual(
            train,
            train.toSorted((a, b) => a - b),
          );
          assert.deepEqual(
            [...train, ...validation].sort((a, b) => a - b),
            await tokensOf(source),
          );
        }
      }),
      { numRuns: 50 },
    );
  });

  test('by blocks takes the end of each block', async () => {
    const { train, validation } = splitByBlocks(counting([20]), 0.2, 2);
    assert.deepEqual(await tokensOf(validation), [8, 9, 18, 19]);
    assert.equal(train.length, 16);
    assert.notEqual(train.fingerprint, validation.fingerprint);
  });

  test('by document keeps documents whole, and their side when others are added', async () => {
    const texts = Array.from({ length: 200 }, (_, i) => `document ${i}`);
    const side = async (list: string[]) => {
      const split = await splitByDocument(await tokenizeCorpus(documents(...list), tokenizer), 0.3);
      const found = await documentsOf(split.validation);
      return found.map((ids) => tokenizer.decode(ids));
    };
    const all = await side(texts);
    assert.ok(all.length > 35 && all.length < 85, `${all.length} of 200`);
    const some = texts.filter((_, i) => i % 3 === 0);
    assert.deepEqual(
      await side(some),
      all.filter((text) => some.includes(text)),
    );
    const other = await splitByDocument(
      await tokenizeCorpus(documents(...texts), tokenizer),
      0.3,
      1,
    );
    assert.notDeepEqual(
      (await documentsOf(other.validation)).map((d) => tokenizer.decode(d)),
      all,
    );
  });

  test('refuse impossible fractions', async () => {
    assert.throws(() => splitByBlocks(counting([5]), 1), /below 1 \(got 1\)/);
    assert.throws(() => splitByBlocks(counting([5]), 0.5, 0), /blocks must be a positive integer/);
    await assert.rejects(splitByDocument(counting([5]), -0.1), /at least 0/);
  });
});
