/**
 * A first look, in under three minutes on two cores: trains a small byte-level Llama on the TypeScript
 * declarations under node_modules, lets it write, compares it with a model of byte triples, and
 * shows what activation checkpointing does to the memory and the time of its training step.
 *
 *     npm start
 */

import * as v from 'valibot';
import { type Batch, BatchStream } from '../data/corpus/batches.ts';
import { orderTwoByteLoss } from '../data/corpus/order-two.ts';
import { PackedDataset } from '../data/corpus/packed-dataset.ts';
import { readAllTokens } from '../data/corpus/token-source.ts';
import { modelFromConfig } from '../models/from-config.ts';
import { loadModel } from '../models/load.ts';
import { Generator } from '../tensor/generator.ts';
import { textSchema } from './config/data-keys.ts';
import { count, key, positive, text } from './config/key.ts';
import { checkConfig, type PlainObject } from './config/load.ts';
import { checkModel, hubConfig, modelSchema } from './config/model-keys.ts';
import { checkTraining, trainingKeys } from './config/training-keys.ts';
import { continueText } from './generate-text.ts';
import { settleMemory } from './memory/settle.ts';
import type { RecipeIo, RunOutcome, StepShape } from './recipe.ts';
import {
  compareCheckpointing,
  formatComparison,
  unequalLosses,
} from './run/compare-checkpointing.ts';
import { openText, openTokenizer, readTokenizer } from './run/corpus.ts';
import { openRunFolder } from './run/run-folder.ts';
import { train } from './train.ts';

const sampleSchema = v.strictObject({
  prompt: v.optional(key(text, 'The text that the model continues.'), 'interface '),
  max_new_tokens: v.optional(key(count, 'Bytes to write.'), 300),
  temperature: v.optional(key(positive, 'How random the choice of each byte is.'), 0.6),
});

const comparisonSchema = v.strictObject({
  batch_size: v.optional(key(count, 'Rows in a batch; larger ones show more.'), 16),
  steps: v.optional(key(count, 'Steps for each line; the first is not timed.'), 5),
});

export const schema = v.strictObject({
  model: key(modelSchema, 'The shape of the model.'),
  dataset: key(textSchema, 'The text to learn.'),
  ...trainingKeys,
  sample: v.optional(key(sampleSchema, 'What the trained model writes.'), {}),
  comparison: v.optional(
    key(comparisonSchema, 'The table of checkpointing settings at the end.'),
    {},
  ),
});

export type QuickstartConfig = v.InferOutput<typeof schema>;

/** Fills in defaults and checks what can be checked without reading data. Throws ConfigError. */
export function parse(config: PlainObject, name: string): QuickstartConfig {
  const checked = checkConfig(schema, config, name);
  checkModel(checked.model, checked.sequence_length);
  checkTraining(checked);
  return checked;
}

/** Trains, samples, compares; leaves a run folder (run/run-folder.ts). */
export async function main(config: QuickstartConfig, io: RecipeIo): Promise<RunOutcome> {
  const { log } = io;
  const began = performance.now();
  const checkpoint = await openRunFolder(config, log);
  const tokenizer = await openTokenizer({ type: 'byte' }, config.output_dir);
  const shape = await hubConfig(config.model, tokenizer, config.sequence_length);
  const settled = await settleMemory(shape, config, checkpoint, io);
  const split = await openText(config.dataset, tokenizer, config.output_dir);
  log(`text: ${split.summary}`);
  const pack = { sequenceLength: config.sequence_length };
  const rows = new PackedDataset(split.train, pack);
  const validation = new PackedDataset(split.validation, pack);
  const build = () => modelFromConfig(shape, { generator: new Generator(config.seed) });

  using model = checkpoint ? await loadModel(checkpoint.modelFolder) : build();
  const outcome = await train({ ...settled, model, train: rows, validation, checkpoint, io });
  if (outcome.exitCode !== 0) return outcome;

  const { prompt, max_new_tokens: maxNewTokens, temperature } = config.sample;
  const sampled = await continueText(model, tokenizer, prompt, { maxNewTokens, temperature });
  log(`\nThe model writes (after '${prompt}'):\n\n${indent(prompt + sampled)}\n`);

  const heldOut = (await readAllTokens(split.validation)).subarray(
    0,
    validation.length * config.sequence_length + 1,
  );
  const orderTwo = orderTwoByteLoss(await readAllTokens(split.train), heldOut, tokenizer.vocabSize);
  const ours = outcome.validationLoss ?? Number.NaN;
  log(`validation loss of this model     ${ours.toFixed(3)} nats/byte`);
  log(`validation loss of byte triples   ${orderTwo.toFixed(3)} nats/byte (order-2 byte model)`);

  const { steps, batch_size: batchSize } = config.comparison;
  log(
    `\nThis model, ${steps} steps of ${batchSize} x ${config.sequence_length} bytes, with each way of checkpointing:\n`,
  );
  const stream = new BatchStream(rows, { batchSize, seed: config.seed });
  const batches: Batch[] = [];
  while (batches.length < steps) batches.push(await stream.next());
  const table = compareCheckpointing({
    build,
    optimizer: config.optimizer,
    clipGradNorm: config.clip_grad_norm,
    batches,
  });
  await split.close();
  log(formatComparison(table));
  const unequal = unequalLosses(table);
  log(
    unequal.length === 0
      ? '\nLosses are bitwise equal across the rows of each execution: checkpointing changes memory and time, not results.'
      : `\nLosses differ between rows of: ${unequal.join(', ')}. Please report this: checkpointing must not change results.`,
  );
  const seconds = ((performance.now() - began) / 1000).toFixed(0);
  log(`\nAll this took ${seconds} s. The run is in ${config.output_dir}. Next:`);
  log(`  npx retune generate --model ${config.output_dir}/model --prompt "export "`);
  log('  npx retune --help');
  return { ...outcome, exitCode: unequal.length === 0 ? 0 : 1 };
}

/** The step that `main` trains. */
export async function shape(config: QuickstartConfig): Promise<StepShape> {
  const tokenizer = await readTokenizer({ type: 'byte' });
  return {
    model: await hubConfig(config.model, tokenizer, config.sequence_length),
    training: config,
  };
}

function indent(lines: string): string {
  return lines
    .split('\n')
    .map((line) => `    ${line}`)
    .join('\n');
}
