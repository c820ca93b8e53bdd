/** `retune plan-graph`: plans what to keep and what to compute again in a graph of any system. */

import type { Plan } from '../../plan/graph.ts';
import type { CliCommand } from '../command.ts';
import { CliUsageError, numberOption, textOf } from '../command.ts';

export const planGraph: CliCommand = {
  name: 'plan-graph',
  summary: 'plan what a traced graph keeps and recomputes within a budget of bytes',
  arguments: [{ spec: '<file>', doc: 'a graph in joint-graph-v1 JSON, plain or gzip' }],
  options: [
    {
      flags: '-b, --budget <bytes>',
      doc: 'most memory alive at once: 512MiB, or 40% of the peak without a budget',
    },
    {
      flags: '-s, --soft-share <share>',
      doc: 'what time counts outside matmul and attention, which fusion may hide (default: 1)',
      parse: numberOption(
        'soft-share',
        'a number above 0 and at most 1',
        (value) => value > 0 && value <= 1,
      ),
    },
    { flags: '-f, --frontier', doc: 'plan 20 budgets, from the smallest that is feasible up' },
    { flags: '-j, --json', doc: 'print JSON for programs, with the whole schedule of a plan' },
  ],
  examples: [
    {
      command: 'retune plan-graph step.json.gz --budget 40%',
      doc: 'what the budget costs, what runs again, what fills the peak',
    },
    {
      command: 'retune plan-graph step.json.gz --budget 2GiB --json > plan.json',
      doc: 'the schedule: ["run", node] and ["free", node, output], in order',
    },
    { command: 'retune plan-graph step.json.gz --frontier', doc: 'memory against time' },
  ],
  run: async ([file], options) => {
    const { budgetBytes, budgetForms, isByteBudget } = await import('../../core/byte-budget.ts');
    const { readJointGraphFile } = await import('../../plan/joint-graph-file.ts');
    const { baseSchedule, simulate } = await import('../../plan/simulate.ts');
    const { planFrontier, planGraph: plan } = await import('../../plan/plan.ts');
    const { describeFrontier, describePlan } = await import('../plan-graph/report.ts');
    const { Wait } = await import('../wait.ts');
    const isFrontier = options.frontier === true;
    if (isFrontier === (options.budget !== undefined)) {
      throw new CliUsageError(
        'plan-graph: give either --budget, such as --budget 40%, or --frontier.',
      );
    }
    const { budget } = options;
    if (!isFrontier && !isByteBudget(budget)) {
      throw new CliUsageError(`plan-graph: --budget must be ${budgetForms} (got '${budget}').`);
    }
    const graph = await readJointGraphFile(textOf(file));
    const wait = new Wait();
    const softShare = typeof options.softShare === 'number' ? options.softShare : 1;
    const onProgress = (what: string, done: number): void => wait.show(what, done);
    const began = performance.now();
    const seconds = (): number => (performance.now() - began) / 1000;
    const print = (json: object, text: () => string): void =>
      console.log(options.json === true ? JSON.stringify(json) : text());
    try {
      if (!isByteBudget(budget)) {
        const frontier = planFrontier(graph, { onProgress, softShare });
        const took = seconds();
        wait.stop();
        const points = frontier.points.map((point) => ({
          budgetBytes: point.budgetBytes,
          ...figures(point.plan),
        }));
        print({ basePeakBytes: frontier.basePeakBytes, seconds: took, points }, () =>
          describeFrontier(graph, frontier, took),
        );
        return 0;
      }
      const basePeak = simulate(graph, baseSchedule(graph)).peakBytes;
      const bytes = budgetBytes(budget, () => basePeak);
      const found = plan(graph, { budgetBytes: bytes, onProgress, softShare });
      const took = seconds();
      wait.stop();
      print({ ...figures(found), seconds: took, schedule: found.schedule }, () =>
        describePlan(graph, found, basePeak, bytes, took),
      );
      return 0;
    } finally {
      wait.stop();
    }
  },
};

/** The numbers of a plan that programs read; `feasible: false` for none. */
function figures(plan: Plan | undefined): object {
  if (!plan) return { feasible: false };
  const { peakBytes, baseNs, extraNs, extraHardNs, lowerBoundNs, gap } = plan;
  return { peakBytes, baseNs, extraNs, extraHardNs, lowerBoundNs, gap };
}
