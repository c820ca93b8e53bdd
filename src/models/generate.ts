/** Generating text with a model: one forward over the prompt, then one per token on a key/value cache. */

import { ArgumentError } from '../core/errors.ts';
import { hostTensor, hostValues } from '../core/host-tensor.ts';
import { noGrad } from '../tensor/context.ts';
import { fromHost, toHostAsync } from '../tensor/factory.ts';
import { type Generator, defaultGenerator } from '../tensor/generator.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import type { CausalLm } from './decoder/causal-lm.ts';
import {
  type SamplingOptions,
  checkSampling,
  penalizeRepetition,
  sampleToken,
} from './sampling.ts';

export interface GenerateOptions extends SamplingOptions {
  /** Default 128, or what the model's positions leave room for. */
  readonly maxNewTokens?: number;
  /** Source of the draws; default the default generator. */
  readonly generator?: Generator;
  /** Ends the generation; default the model's own. An empty list never ends it. */
  readonly eosId?: number | readonly number[];
  /** Called with each new token as it is chosen; returning false ends the generation. */
  readonly onToken?: (token: number) => unknown;
}

export interface Generated {
  /** The new tokens, without the prompt and without the end token. */
  readonly tokens: Int32Array;
  /** Why it ended: an end token, the limit, or onToken. */
  readonly reason: 'eos' | 'length' | 'stopped';
}

/**
 * Continues `prompt`. Runs in eval mode and without gradients, whatever mode the model is in. The same
 * generator state gives the same tokens. Throws ArgumentError for an empty prompt, tokens outside the
 * vocabulary, options out of range, and a prompt that leaves no position for a new token.
 */
export async function generate(
  model: CausalLm,
  prompt: readonly number[] | Int32Array,
  options: GenerateOptions = {},
): Promise<Generated> {
  checkSampling(options);
  checkPrompt(model, prompt);
  const { vocabSize, maxPositions } = model.config;
  const room = maxPositions - prompt.length;
  const limit = Math.min(options.maxNewTokens ?? 128, room);
  const { generator = defaultGenerator, repetitionPenalty = 1 } = options;
  const ends = new Set([options.eosId ?? model.config.eosIds].flat());
  const seen = [...prompt];
  const made: number[] = [];
  const finish = (reason: Generated['reason']): Generated => ({
    tokens: Int32Array.from(made),
    reason,
  });
  if (limit <= 0) return finish('length');

  const wasTraining = model.training;
  if (wasTraining) model.eval();
  const cache = model.makeCache(1, prompt.length + limit);
  try {
    let input: readonly number[] | Int32Array = prompt;
    for (;;) {
      const logits = nextLogits(model, input, cache);
      const host = await toHostAsync(logits).finally(() => logits.dispose());
      const values = hostValues(host).subarray(0, vocabSize);
      const scores =
        repetitionPenalty === 1 ? values : penalizeRepetition(values, seen, repetitionPenalty);
      const token = sampleToken(scores, options, generator);
      if (ends.has(token)) return finish('eos');
      made.push(token);
      seen.push(token);
      if (options.onToken?.(token) === false) return finish('stopped');
      if (made.length === limit) return finish('length');
      input = [token];
    }
  } finally {
    cache.dispose();
    if (wasTraining) model.train();
  }
}

/** Logits [1, 1, V] after `tokens`, which the cache takes in. */
function nextLogits(
  model: CausalLm,
  tokens: readonly number[] | Int32Array,
  cache: ReturnType<CausalLm['makeCache']>,
): Tensor {
  return noGrad(() =>
    scope(() => {
      const ids = fromHost(hostTensor(tokens, [1, tokens.length], 'int32'));
      return model.call(ids, { cache, lastOnly: true });
    }),
  ).keep();
}

function checkPrompt(model: CausalLm, prompt: readonly number[] | Int32Array): void {
  const { vocabSize, maxPositions } = model.config;
  if (prompt.length === 0) {
    throw new ArgumentError(
      'generate: the prompt is empty (got 0 tokens). Start with a begin-of-text token.',
    );
  }
  const bad = prompt.find((token) => !Number.isInteger(token) || token < 0 || token >= vocabSize);
  if (bad !== undefined) {
    throw new ArgumentError(
      `generate: a token is outside the vocabulary (got ${bad}, ${vocabSize} tokens). Use the model's own tokenizer.`,
      { token: bad, vocabSize },
    );
  }
  if (prompt.length >= maxPositions) {
    throw new ArgumentError(
      `generate: the prompt fills all positions (got ${prompt.length} tokens of ${maxPositions}). Shorten it.`,
      { length: prompt.length, maxPositions },
    );
  }
}
