/** `retune explain`: what a training step keeps and computes again, and what is alive at its peak. */

import { type CliCommand, listOf } from '../command.ts';
import { configOptions, overridesArgument, stepRequestOf } from '../step-config.ts';

export const explain: CliCommand = {
  name: 'explain',
  summary: 'show where the memory of a training step goes',
  arguments: [overridesArgument],
  options: [...configOptions, { flags: '--json', doc: 'the whole report as JSON' }],
  examples: [
    {
      command: 'retune explain --config pretrain/byte_llama',
      doc: 'needs neither weights nor data nor the memory it talks about',
    },
    {
      command:
        'retune explain --config my.yaml activation_checkpointing="{ mode: budget, budget: 40% }"',
      doc: 'what a budget would keep and compute again',
    },
    {
      command:
        'retune explain --config my.yaml activation_checkpointing="{ mode: auto, memory: 2GiB }"',
      doc: 'how this would be trained within 2 GiB',
    },
  ],
  run: async ([overrides], options) => {
    const { shape, choice } = await stepRequestOf('explain', options, listOf(overrides));
    const { describeChoice } = await import('../../recipes/memory/describe.ts');
    const asJson = options.json === true;
    if (choice && !asJson) for (const line of describeChoice(choice)) console.log(line);
    // An eager step has no plan to show beside what was chosen.
    if (choice && !shape.training.compile) {
      if (asJson) process.stdout.write(`${JSON.stringify({ memory: choice }, undefined, 2)}\n`);
      return 0;
    }
    const { withPlannedStep } = await import('../../recipes/step-plan.ts');
    const { explainPlan } = await import('../../compile/explain.ts');
    const { formatStepReport } = await import('../../compile/explain-text.ts');
    const { formatBytes } = await import('../../core/bytes.ts');
    withPlannedStep(shape, ({ plan, parameterBytes, optimizerBytes, checkpointing }) => {
      const report = explainPlan(plan.plan);
      if (asJson) {
        process.stdout.write(
          `${JSON.stringify({ memory: choice, parameterBytes, optimizerBytes, ...report }, undefined, 2)}\n`,
        );
        return;
      }
      const { batch_size, sequence_length, gradient_accumulation_steps: micro } = shape.training;
      const what = micro > 1 ? `one of ${micro} micro-batches` : 'a step';
      console.log(`${what} of ${batch_size} x ${sequence_length} tokens; ${checkpointing}`);
      console.log(
        `beside it: parameters ${formatBytes(parameterBytes)}, optimizer state ${formatBytes(optimizerBytes)}`,
      );
      console.log(formatStepReport(report));
    });
    return 0;
  },
};
