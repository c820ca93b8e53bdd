import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { ByteTokenizer } from './byte-tokenizer.ts';
import { HuggingFaceTokenizer, loadTokenizer } from './hugging-face-tokenizer.ts';
import { StreamingDecoder } from './streaming-decoder.ts';
import type { Tokenizer } from './tokenizer.ts';

const fixtures = new URL('../../../test/fixtures/tokenizers/', import.meta.url).pathname;

let root = '';
before(async () => {
  root = await mkdtemp(join(tmpdir(), 'retune-tokenizer-'));
});
after(() => rm(root, { recursive: true, force: true }));

const specials = ['<s>', '</s>', '<s>x'];

describe('ByteTokenizer', () => {
  test('encodes UTF-8 and special tokens, longest first', () => {
    const tokenizer = new ByteTokenizer({ specials, bos: '<s>', eos: '</s>' });
    assert.equal(tokenizer.vocabSize, 259);
    assert.deepEqual([tokenizer.bosId, tokenizer.eosId], [256, 257]);
    assert.deepEqual([...tokenizer.encode('a\u00e9')], [256, 97, 0xc3, 0xa9]);
    assert.deepEqual([...tokenizer.encode('<s>xy</s>', { addSpecial: false })], [258, 121, 257]);
    assert.equal(tokenizer.tokenToId('</s>'), 257);
    assert.equal(tokenizer.tokenToId('a'), 97);
    assert.equal(tokenizer.tokenToId('ab'), undefined);
  });

  test('decodes, with special tokens or without', () => {
    const tokenizer = new ByteTokenizer({ specials });
    assert.equal(tokenizer.decode([97, 257, 98]), 'ab');
    assert.equal(tokenizer.decode([97, 257, 98], { skipSpecial: false }), 'a</s>b');
    assert.equal(tokenizer.decode([0xff, 97]), '\ufffda');
    assert.throws(() => tokenizer.decode([259]), /outside the vocabulary \(got 259\).*0 to 258/);
  });

  test('gives back every well-formed text', () => {
    const tokenizer = new ByteTokenizer({ specials, bos: '<s>' });
    const text = fc.string({ unit: 'binary' }).filter((s) => s.isWellFormed());
    fc.assert(
      fc.property(text, (s) => {
        const plain = tokenizer.decode(tokenizer.encode(s), { skipSpecial: true });
        assert.equal(plain, s.replaceAll(/<s>x|<s>|<\/s>/g, ''));
      }),
    );
    assert.equal(tokenizer.decode(tokenizer.encode('\ufeffmark')), '\ufeffmark');
  });

  test('refuses specials it cannot tell apart', () => {
    assert.throws(() => new ByteTokenizer({ specials: ['a', 'a'] }), /must be distinct/);
    assert.throws(() => new ByteTokenizer({ specials: [''] }), /not empty/);
    assert.throws(() => new ByteTokenizer({ eos: '</s>' }), /eos is not one of the special tokens/);
  });

  test('has an id that depends on what it encodes to', () => {
    const ids = [
      new ByteTokenizer(),
      new ByteTokenizer({ specials }),
      new ByteTokenizer({ specials, bos: '<s>' }),
      new ByteTokenizer({ specials, eos: '<s>' }),
    ].map((tokenizer) => tokenizer.id());
    assert.equal(new Set(ids).size, 4);
    assert.equal(new ByteTokenizer({ specials }).id(), ids[1]);
  });
});

interface Case {
  readonly text: string;
  readonly ids: number[];
  readonly plain: number[];
  readonly decoded: string;
  readonly withSpecial: string;
}

for (const kind of ['byte-level', 'byte-fallback']) {
  describe(`HuggingFaceTokenizer, ${kind}`, async () => {
    const tokenizer = await loadTokenizer(join(fixtures, kind));
    const expected = JSON.parse(await readFile(join(fixtures, kind, 'expected.json'), 'utf8'));

    test('knows its vocabulary and special tokens', () => {
      assert.equal(tokenizer.vocabSize, expected.vocabSize);
      assert.deepEqual([tokenizer.bosId, tokenizer.eosId], [expected.bosId, expected.eosId]);
      assert.equal(tokenizer.tokenToId('<|end|>'), expected.eosId);
      assert.equal(tokenizer.tokenToId('no such token'), undefined);
    });

    for (const { text, ids, plain, decoded, withSpecial } of expected.cases as Case[]) {
      test(`encodes and decodes ${JSON.stringify(text)} as the Rust library does`, () => {
        assert.deepEqual([...tokenizer.encode(text)], ids);
        assert.deepEqual([...tokenizer.encode(text, { addSpecial: false })], plain);
        assert.equal(tokenizer.decode(ids), decoded);
        assert.equal(tokenizer.decode(ids, { skipSpecial: false }), withSpecial);
      });
    }

    test('refuses ids it has no token for', () => {
      assert.throws(() => tokenizer.decode([0, 100_000]), /outside the vocabulary \(got 100000\)/);
    });
  });
}

describe('loadTokenizer', () => {
  test('says what is missing or malformed', async () => {
    await assert.rejects(loadTokenizer(join(root, 'nowhere')), /does not exist \(got ENOENT/);
    await assert.rejects(loadTokenizer(root), /the tokenizer is missing \(got .*tokenizer\.json/);
    const file = join(root, 'tokenizer.json');
    await writeFile(file, '{');
    await assert.rejects(loadTokenizer(root), /is not JSON/);
    await writeFile(file, '{"model":{"type":"Nonsense"}}');
    await assert.rejects(loadTokenizer(root), {
      name: 'FileError',
      message: /tokenizer\.json: HuggingFaceTokenizer: the tokenizer cannot be used/,
    });
  });

  test('takes special tokens from the caller before those of the config', async () => {
    const folder = join(fixtures, 'byte-level');
    const tokenizer = await loadTokenizer(folder, { eos: '<|begin|>' });
    assert.equal(tokenizer.eosId, tokenizer.bosId);
    await assert.rejects(loadTokenizer(folder, { bos: '<nope>' }), /bos token is not in the vocab/);
  });

  test('gives a different id to a different vocabulary', async () => {
    const json = JSON.parse(await readFile(join(fixtures, 'byte-level', 'tokenizer.json'), 'utf8'));
    const a = new HuggingFaceTokenizer(json).id();
    assert.equal(new HuggingFaceTokenizer(json).id(), a);
    const fewer = { ...json, added_tokens: json.added_tokens.slice(0, 1) };
    assert.notEqual(new HuggingFaceTokenizer(fewer).id(), a);
  });
});

function stream(tokenizer: Tokenizer, ids: Iterable<number>): string[] {
  const decoder = new StreamingDecoder(tokenizer);
  const pieces = [...ids].map((id) => decoder.push(id));
  return [...pieces, decoder.finish()];
}

describe('StreamingDecoder', async () => {
  const bytes = new ByteTokenizer({ specials });
  const llama2 = await loadTokenizer(join(fixtures, 'byte-fallback'));
  const llama3 = await loadTokenizer(join(fixtures, 'byte-level'));

  test('holds a character back until its last byte is there', () => {
    assert.deepEqual(stream(bytes, bytes.encode('a\u{1f600}b')), [
      'a',
      '',
      '',
      '',
      '\u{1f600}',
      'b',
      '',
    ]);
    assert.deepEqual(stream(bytes, [0xe2, 0x82, 97]), ['', '', '\ufffda', '']);
    assert.deepEqual(stream(bytes, [97, 0xf0, 0x9f]), ['a', '', '', '\ufffd']);
  });

  test('gives in pieces what decoding at once gives, and no half characters', () => {
    const text = fc.string({
      unit: fc.constantFrom('a', ' ', '\n', '\u00e9', '\u65e5', '\u{1f680}', '\ufffd'),
    });
    fc.assert(
      fc.property(text, fc.constantFrom<Tokenizer>(bytes, llama2, llama3), (s, tokenizer) => {
        const ids = tokenizer.encode(s);
        const pieces = stream(tokenizer, ids);
        assert.equal(pieces.join(''), tokenizer.decode(ids));
        assert.ok(pieces.every((piece) => piece.isWellFormed()));
        if (!s.includes('\ufffd')) assert.ok(!pieces.join('').includes('\ufffd'));
      }),
    );
  });

  test('gives the same for arbitrary ids, broken bytes included', () => {
    for (const tokenizer of [bytes, llama3]) {
      const id = fc.nat({ max: tokenizer.vocabSize - 1 });
      fc.assert(
        fc.property(fc.array(id, { maxLength: 50 }), (ids) => {
          assert.equal(stream(tokenizer, ids).join(''), tokenizer.decode(ids));
        }),
      );
    }
  });

  test('does a bounded amount of work per token on endless broken bytes', () => {
    let longest = 0;
    const counting: Tokenizer = {
      ...{ vocabSize: 256, bosId: undefined, eosId: undefined, id: () => '' },
      encode: (text) => bytes.encode(text),
      tokenToId: () => undefined,
      decode: (ids) => {
        const list = [...ids];
        longest = Math.max(longest, list.length);
        return bytes.decode(list);
      },
    };
    const pieces = stream(counting, new Array<number>(1000).fill(0xff));
    assert.equal(pieces.join(''), '\ufffd'.repeat(1000));
    assert.ok(longest <= 200, `decoded ${longest} ids at once`);
  });
});
