/** Config keys about tokenizers and datasets. */

import * as v from 'valibot';
import { count, flag, fraction, key, oneOf, text, textList } from './key.ts';

const heldOut = v.optional(
  key(fraction, 'Share of the data held out for evaluation, evenly spread.'),
  0.05,
);

/** Keys of a text corpus. */
export const textKeys = {
  files: key(textList, 'Files, folders and globs of UTF-8 text, from the current folder.'),
  extensions: v.optional(key(textList, 'Endings of the files that are taken from folders.'), [
    '.txt',
    '.md',
  ]),
  exclude: v.optional(key(textList, 'Globs of files to leave out.'), []),
  max_bytes: v.optional(key(count, 'Read no more than this many bytes of text.')),
  skip_invalid: v.optional(
    key(flag, 'Leave out files that are not UTF-8 text instead of stopping.'),
    false,
  ),
  validation_fraction: heldOut,
  cache_tokens: v.optional(
    key(flag, 'Keep the encoded text in a file in output_dir instead of in memory.'),
    false,
  ),
};

/** Keys of a file of conversations. */
export const instructionKeys = {
  file: key(
    text,
    'JSONL with { messages }, { prompt, completion } or { instruction, input, output } on each line.',
  ),
  template: v.optional(
    key(
      oneOf(['plain', 'alpaca', 'chatml', 'llama3']),
      'How a conversation becomes text. The tokenizer must have the tokens of the template.',
    ),
    'alpaca',
  ),
  train_on_input: v.optional(key(flag, 'Learn the prompts too, not only the answers.'), false),
  validation_fraction: heldOut,
};

export const tokenizerSchema = v.strictObject({
  type: v.optional(
    key(
      oneOf(['byte', 'huggingface']),
      'byte: the bytes of UTF-8 and one token that ends a document. huggingface: a tokenizer.json.',
    ),
    'byte',
  ),
  path: v.optional(key(text, 'With type huggingface: the file, or the folder it is in.')),
});

export const textSchema = v.strictObject(textKeys);
export const instructionSchema = v.strictObject(instructionKeys);
export type TextConfig = v.InferOutput<typeof textSchema>;
export type InstructionConfig = v.InferOutput<typeof instructionSchema>;
export type TokenizerConfig = v.InferOutput<typeof tokenizerSchema>;
