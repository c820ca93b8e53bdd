import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { ByteTokenizer } from '../../data/tokenizer/byte-tokenizer.ts';
import { HuggingFaceTokenizer } from '../../data/tokenizer/hugging-face-tokenizer.ts';
import { byteTokenizerFiles } from './byte-tokenizer-files.ts';

const end = '<|end|>';
const files = byteTokenizerFiles([end], end);
const saved = new HuggingFaceTokenizer(
  files['tokenizer.json'] ?? {},
  files['tokenizer_config.json'] ?? {},
);
const bytes = new ByteTokenizer({ specials: [end], eos: end });

describe('the byte tokenizer in the format of tokenizer.json', () => {
  test('encodes every text as its bytes and decodes it again', () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 60 }),
      fc.constantFrom(`a${end}b`, '  two  spaces\n\ttab ', '\u0000\u007f\u00ad\u0100', '\ufeffx'),
    );
    fc.assert(
      fc.property(text, (value) => {
        const ids = bytes.encode(value);
        assert.deepEqual(saved.encode(value), ids);
        assert.equal(
          saved.decode(ids, { skipSpecial: false }),
          bytes.decode(ids, { skipSpecial: false }),
        );
      }),
    );
  });

  test('has the vocabulary and the end token of the byte tokenizer', () => {
    assert.equal(saved.vocabSize, bytes.vocabSize);
    assert.equal(saved.eosId, 256);
    assert.equal(saved.bosId, undefined);
  });
});
