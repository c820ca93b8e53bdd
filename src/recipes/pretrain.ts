/**
 * Trains a language model from scratch on a text corpus.
 *
 *     retune run pretrain --config pretrain/byte_llama output_dir=runs/first
 *
 * Memory: parameters and two AdamW averages (12 bytes a parameter in fp32), and the step memory that the
 * progress line shows, which `activation_checkpointing` lowers.
 */

import * as v from 'valibot';
import { modelFromConfig } from '../models/from-config.ts';
import { loadModel } from '../models/load.ts';
import { Generator } from '../tensor/generator.ts';
import { textSchema, tokenizerSchema } from './config/data-keys.ts';
import { key } from './config/key.ts';
import { checkConfig, type PlainObject } from './config/load.ts';
import { checkModel, hubConfig, modelSchema } from './config/model-keys.ts';
import { checkTraining, dtypeOf, trainingKeys } from './config/training-keys.ts';
import { settleMemory } from './memory/settle.ts';
import type { RecipeIo, RunOutcome, StepShape } from './recipe.ts';
import { checkTokenizer, openTextRows, openTokenizer, readTokenizer } from './run/corpus.ts';
import { openRunFolder } from './run/run-folder.ts';
import { train } from './train.ts';

export const schema = v.strictObject({
  model: key(modelSchema, 'The shape of the model.'),
  tokenizer: v.optional(key(tokenizerSchema, 'How text becomes tokens.'), {}),
  dataset: key(textSchema, 'The text to learn.'),
  ...trainingKeys,
});

export type PretrainConfig = v.InferOutput<typeof schema>;

/** Fills in defaults and checks what can be checked without reading data. Throws ConfigError. */
export function parse(config: PlainObject, name: string): PretrainConfig {
  const checked = checkConfig(schema, config, name);
  checkModel(checked.model, checked.sequence_length);
  checkTokenizer(checked.tokenizer);
  checkTraining(checked);
  return checked;
}

/** Trains and leaves a run folder (run/run-folder.ts). */
export async function main(config: PretrainConfig, io: RecipeIo): Promise<RunOutcome> {
  const checkpoint = await openRunFolder(config, io.log);
  const tokenizer = await openTokenizer(config.tokenizer, config.output_dir);
  const shape = await hubConfig(config.model, tokenizer, config.sequence_length);
  const settled = await settleMemory(shape, config, checkpoint, io);
  const rows = await openTextRows(config.dataset, tokenizer, {
    sequenceLength: config.sequence_length,
    outputDir: config.output_dir,
  });
  io.log(rows.summary);
  const dtype = dtypeOf(config);
  const generator = new Generator(config.seed);
  using model = checkpoint
    ? await loadModel(checkpoint.modelFolder, { dtype })
    : modelFromConfig(shape, { dtype, generator });
  try {
    const { train: training, validation } = rows;
    return await train({ ...settled, model, train: training, validation, checkpoint, io });
  } finally {
    await rows.close();
  }
}

/** The step that `main` trains. */
export async function shape(config: PretrainConfig): Promise<StepShape> {
  const tokenizer = await readTokenizer(config.tokenizer);
  return {
    model: await hubConfig(config.model, tokenizer, config.sequence_length),
    training: config,
  };
}
