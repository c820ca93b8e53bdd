/** Continuing a text with a saved model, piece by piece. */

import { loadTokenizer } from '../data/tokenizer/hugging-face-tokenizer.ts';
import { StreamingDecoder } from '../data/tokenizer/streaming-decoder.ts';
import type { Tokenizer } from '../data/tokenizer/tokenizer.ts';
import type { CausalLm } from '../models/decoder/causal-lm.ts';
import { generate } from '../models/generate.ts';
import { loadModel } from '../models/load.ts';
import type { SamplingOptions } from '../models/sampling.ts';
import { Generator } from '../tensor/generator.ts';

export interface GenerateTextOptions extends SamplingOptions {
  readonly maxNewTokens?: number;
  /** Default 0. */
  readonly seed?: number;
  /** Gets the text as it is made, whole characters at a time. */
  readonly onText?: (piece: string) => void;
}

/** Loads the model in `folder` with its tokenizer and continues `prompt`; returns the new text. */
export async function generateText(
  folder: string,
  prompt: string,
  options: GenerateTextOptions = {},
): Promise<string> {
  using model = await loadModel(folder);
  const tokenizer = await loadTokenizer(folder);
  // Awaited here: the model is disposed when this function is left.
  return await continueText(model, tokenizer, prompt, options);
}

/**
 * As generateText, with a model at hand. A text longer than the model's positions goes on from the last
 * half of them: what lies further back is forgotten.
 */
export async function continueText(
  model: CausalLm,
  tokenizer: Tokenizer,
  prompt: string,
  options: GenerateTextOptions = {},
): Promise<string> {
  const { seed = 0, onText, maxNewTokens = 128, ...sampling } = options;
  const { maxPositions } = model.config;
  const generator = new Generator(seed);
  const decoder = new StreamingDecoder(tokenizer);
  let text = '';
  const emit = (piece: string): void => {
    text += piece;
    if (piece !== '') onText?.(piece);
  };
  const ids = [...tokenizer.encode(prompt)];
  let left = maxNewTokens;
  while (left > 0) {
    const context = ids.length < maxPositions ? ids : ids.slice(-Math.ceil(maxPositions / 2));
    const { tokens, reason } = await generate(model, context, {
      ...sampling,
      generator,
      maxNewTokens: Math.min(left, maxPositions - context.length),
      onToken: (token) => emit(decoder.push(token)),
      ...(tokenizer.eosId === undefined ? {} : { eosId: tokenizer.eosId }),
    });
    ids.push(...tokens);
    left -= tokens.length;
    if (reason !== 'length') break;
  }
  emit(decoder.finish());
  return text;
}
