/** The validation loss: mean cross entropy over held-out rows, without gradients. */

import { compile } from '../../compile/compile.ts';
import { evaluationBatches } from '../../data/corpus/batches.ts';
import type { SequenceDataset } from '../../data/corpus/sequence-dataset.ts';
import type { CausalLm } from '../../models/decoder/causal-lm.ts';
import { noGrad } from '../../tensor/context.ts';
import { item } from '../../tensor/factory.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { scope } from '../../tensor/with-scope.ts';
import { batchTensors } from './training-step.ts';

export interface EvaluatorOptions {
  readonly compile: boolean;
  readonly batchSize: number;
  /** Batches in one evaluation, spread evenly over the rows. */
  readonly maxBatches: number;
}

export interface Evaluator extends Disposable {
  /** Nats per token. */
  run(): Promise<number>;
}

/** Evaluates `model` on the same rows each time. */
export function makeEvaluator(
  model: CausalLm,
  rows: SequenceDataset,
  options: EvaluatorOptions,
): Evaluator {
  const total = (tokens: Tensor, targets: Tensor): Tensor =>
    noGrad(() => model.call(tokens, { targets, reduction: 'sum' }));
  const compiled = options.compile ? compile(total) : undefined;
  return {
    run: async () => {
      model.eval();
      let sum = 0;
      let count = 0;
      for await (const batch of evaluationBatches(rows, options.batchSize, options.maxBatches)) {
        sum += scope(() => {
          const { tokens, targets } = batchTensors(batch);
          return item((compiled ?? total)(tokens, targets));
        });
        count += batch.targetCount;
      }
      model.train();
      return sum / count;
    },
    [Symbol.dispose]: () => compiled?.dispose(),
  };
}
