/** Loading a model in Hugging Face format, training all of it with checkpointing, and saving it again. */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { applyActivationCheckpointing, backward, item, scope, tensor } from 'retune';
import { BatchStream, ByteTokenizer, PackedDataset, tokenizeCorpus } from 'retune/data';
import { byteLlama, loadModel, saveModel } from 'retune/models';
import { AdamW, clipGradNorm } from 'retune/optim';

const folder = await mkdtemp(join(tmpdir(), 'retune-example-'));

// Stands for a model from the Hugging Face Hub: a folder with config.json and safetensors.
const made = byteLlama({ hidden: 64, layers: 4 });
await saveModel(made, join(folder, 'base'));
made.dispose();

const model = await loadModel(join(folder, 'base'));
applyActivationCheckpointing(model, { mode: 'every', every: 2 });
const optimizer = new AdamW(model.namedParameters(), { lr: 3e-3, weightDecay: 0 });

const documents = [{ text: 'A quick brown fox jumps over the lazy dog. '.repeat(60) }];
const corpus = await tokenizeCorpus(() => documents, new ByteTokenizer());
const rows = new PackedDataset(corpus, { sequenceLength: 64 });
const batches = new BatchStream(rows, { batchSize: 4, seed: 1 });

let loss = Number.NaN;
for (let step = 1; step <= 40; step++) {
  const batch = await batches.next();
  scope(() => {
    const shape = [batch.rows, batch.sequenceLength];
    const tokens = tensor(batch.inputs, { shape });
    const result = model.call(tokens, { targets: tensor(batch.targets, { shape }) });
    backward(result);
    clipGradNorm(model.parameters(), 1);
    optimizer.step();
    optimizer.zeroGrad();
    loss = item(result);
  });
  if (step % 10 === 0) console.log(`step ${step}: loss ${loss.toFixed(3)}`);
}

const { files } = await saveModel(model, join(folder, 'tuned'));
console.log(`saved ${files.length} file(s) that transformers can load`);
await rm(folder, { recursive: true });
if (loss > 2) throw new Error('the model did not learn');
