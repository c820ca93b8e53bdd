/** The validation loss: mean cross entropy over held-out rows, without gradients. */

import { compile } from '../../compile/compile.ts';
import { type Batch, evaluationBatches, splitBatch } from '../../data/corpus/batches.ts';
import type { SequenceDataset } from '../../data/corpus/sequence-dataset.ts';
import type { CausalLm } from '../../models/decoder/causal-lm.ts';
import { noGrad } from '../../tensor/context.ts';
import { item } from '../../tensor/factory.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { scope } from '../../tensor/with-scope.ts';
import { batchTensors } from './training-step.ts';

export interface EvaluatorOptions {
  readonly compile: boolean;
  /** Rows of a batch, which together with maxBatches decides what is read. */
  readonly batchSize: number;
  /** Rows that go through the model at once; divides batchSize, which is the default. */
  readonly rowsAtOnce?: number;
  /** Batches in one evaluation, spread evenly over the rows. */
  readonly maxBatches: number;
}

export interface Evaluator extends Disposable {
  /** Nats per token. */
  run(): Promise<number>;
}

export interface LossSum extends Disposable {
  /** Sum of the cross entropies of a batch's targets, nats. */
  of(batch: Batch): number;
}

/** Evaluates `model` on the same rows each time. */
export function makeEvaluator(
  model: CausalLm,
  rows: SequenceDataset,
  { compile: compiled, batchSize, rowsAtOnce = batchSize, maxBatches }: EvaluatorOptions,
): Evaluator {
  const lossSum = makeLossSum(model, compiled);
  return {
    run: async () => {
      let sum = 0;
      let count = 0;
      for await (const batch of evaluationBatches(rows, batchSize, maxBatches)) {
        for (const part of splitBatch(batch, rowsAtOnce)) sum += lossSum.of(part);
        count += batch.targetCount;
      }
      return sum / count;
    },
    [Symbol.dispose]: () => lossSum[Symbol.dispose](),
  };
}

/** The loss of `model` in evaluation mode, batch by batch. */
export function makeLossSum(model: CausalLm, compiled: boolean): LossSum {
  const total = (tokens: Tensor, targets: Tensor): Tensor =>
    noGrad(() => model.call(tokens, { targets, reduction: 'sum' }));
  const step = compiled ? compile(total) : undefined;
  return {
    of: (batch) => {
      model.eval();
      try {
        return scope(() => {
          const { tokens, targets } = batchTensors(batch);
          return item((step ?? total)(tokens, targets));
        });
      } finally {
        model.train();
      }
    },
    [Symbol.dispose]: () => step?.dispose(),
  };
}
