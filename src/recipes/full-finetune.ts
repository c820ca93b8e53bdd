/**
 * Trains all weights of a model in Hugging Face format, on text or on conversations.
 *
 *     retune run full_finetune --config full_finetune/smollm2_135m model.folder=models/SmolLM2-135M
 *
 * Memory: as for pretrain. `dtype=bf16` halves parameters and optimizer state, at the price of rounding
 * each update to 8 bits of mantissa.
 */

import * as v from 'valibot';
import { ConfigError } from '../core/errors.ts';
import type { Tokenizer } from '../data/tokenizer/tokenizer.ts';
import { readConfig } from '../models/from-config.ts';
import { loadModel, readModelConfig } from '../models/load.ts';
import { instructionSchema, textSchema, tokenizerSchema } from './config/data-keys.ts';
import { key, text } from './config/key.ts';
import { checkConfig, contradiction, type PlainObject } from './config/load.ts';
import { checkTraining, dtypeOf, trainingKeys } from './config/training-keys.ts';
import { settleMemory } from './memory/settle.ts';
import type { RecipeIo, RunOutcome, StepShape } from './recipe.ts';
import {
  checkTokenizer,
  openInstructionRows,
  openTextRows,
  openTokenizer,
  type RowSplit,
} from './run/corpus.ts';
import { openRunFolder } from './run/run-folder.ts';
import { train } from './train.ts';

const modelSchema = v.strictObject({
  folder: key(text, 'A folder with config.json and safetensors files, as on the Hugging Face Hub.'),
});

export const schema = v.strictObject({
  model: key(modelSchema, 'The model to train.'),
  tokenizer: v.optional(
    key(tokenizerSchema, 'How text becomes tokens. Default: the tokenizer in model.folder.'),
  ),
  text: v.optional(key(textSchema, 'Plain text to learn. Give this or instructions.')),
  instructions: v.optional(
    key(instructionSchema, 'Conversations to learn the answers of. Give this or text.'),
  ),
  ...trainingKeys,
});

export type FullFinetuneConfig = v.InferOutput<typeof schema>;

/** Fills in defaults and checks what can be checked without reading data. Throws ConfigError. */
export function parse(config: PlainObject, name: string): FullFinetuneConfig {
  const checked = checkConfig(schema, config, name);
  if (checked.text && checked.instructions) {
    throw contradiction(
      ['text', checked.text.files],
      ['instructions', checked.instructions.file],
      'A run learns from one kind of data; keep one of them.',
    );
  }
  if (!checked.text && !checked.instructions) {
    throw new ConfigError(
      'config: there is no data (got neither text nor instructions). Give one of them.',
      { key: 'text', keys: ['text', 'instructions'] },
    );
  }
  if (checked.tokenizer) checkTokenizer(checked.tokenizer);
  checkTraining(checked);
  return checked;
}

/** Trains and leaves a run folder (run/run-folder.ts). */
export async function main(config: FullFinetuneConfig, io: RecipeIo): Promise<RunOutcome> {
  const checkpoint = await openRunFolder(config, io.log);
  const tokenizer = await openTokenizer(
    config.tokenizer ?? { type: 'huggingface', path: config.model.folder },
    config.output_dir,
  );
  const folder = checkpoint?.modelFolder ?? config.model.folder;
  const raw = await readModelConfig(folder);
  checkFit(config, tokenizer, readConfig(raw));
  const settled = await settleMemory(raw, config, checkpoint, io);
  const rows = await openRows(config, tokenizer);
  io.log(rows.summary);
  using model = await loadModel(folder, { dtype: dtypeOf(config) });
  try {
    const { train: training, validation } = rows;
    return await train({ ...settled, model, train: training, validation, checkpoint, io });
  } finally {
    await rows.close();
  }
}

/** The step that `main` trains. */
export async function shape(config: FullFinetuneConfig): Promise<StepShape> {
  return { model: await readModelConfig(config.model.folder), training: config };
}

function openRows(config: FullFinetuneConfig, tokenizer: Tokenizer): Promise<RowSplit> {
  const sequenceLength = config.sequence_length;
  if (config.instructions) {
    return openInstructionRows(config.instructions, tokenizer, {
      sequenceLength,
      seed: config.seed,
    });
  }
  if (config.text) {
    return openTextRows(config.text, tokenizer, { sequenceLength, outputDir: config.output_dir });
  }
  throw new ConfigError('config: there is no data (got neither text nor instructions). Give one.');
}

function checkFit(
  config: FullFinetuneConfig,
  tokenizer: Tokenizer,
  model: { readonly vocabSize: number; readonly maxPositions: number },
): void {
  if (tokenizer.vocabSize > model.vocabSize) {
    throw new ConfigError(
      `config: the tokenizer does not belong to the model (got ${tokenizer.vocabSize} tokens, the model has ` +
        `${model.vocabSize}). Leave tokenizer out to use the model's own.`,
      { key: 'tokenizer' },
    );
  }
  if (config.sequence_length > model.maxPositions) {
    throw contradiction(
      ['sequence_length', config.sequence_length],
      ["the model's max_position_embeddings", model.maxPositions],
      'Use rows that the model has positions for.',
    );
  }
}
