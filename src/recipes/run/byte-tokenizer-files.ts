/**
 * The byte tokenizer in Hugging Face's format, so that a model trained on bytes can be used with
 * transformers and with `retune generate` like any other: byte-level BPE without merges, in which the
 * id of each of the 256 one-character tokens is its byte.
 */

/** Contents of the files by name. `special` gives the names of the ids from 256 on, in order. */
export function byteTokenizerFiles(
  special: readonly string[],
  eos: string,
): Readonly<Record<string, object>> {
  const level = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true };
  const vocab: Record<string, number> = {};
  byteCharacters().forEach((character, byte) => {
    vocab[character] = byte;
  });
  return {
    'tokenizer.json': {
      version: '1.0',
      truncation: null,
      padding: null,
      added_tokens: special.map((content, i) => ({
        id: 256 + i,
        content,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
      })),
      normalizer: null,
      pre_tokenizer: { ...level, use_regex: false },
      post_processor: null,
      decoder: { ...level, use_regex: false },
      model: {
        type: 'BPE',
        dropout: null,
        unk_token: null,
        continuing_subword_prefix: null,
        end_of_word_suffix: null,
        fuse_unk: false,
        byte_fallback: false,
        ignore_merges: false,
        vocab,
        merges: [],
      },
    },
    'tokenizer_config.json': {
      tokenizer_class: 'PreTrainedTokenizerFast',
      eos_token: eos,
      clean_up_tokenization_spaces: false,
    },
  };
}

/**
 * The character that stands for each byte in byte-level BPE: printable Latin-1 characters stand for
 * themselves, the others are moved to U+0100 and up (the table of GPT-2's tokenizer).
 */
function byteCharacters(): string[] {
  let moved = 0;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable =
      (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xff && byte !== 0xad);
    return String.fromCharCode(printable ? byte : 256 + moved++);
  });
}
