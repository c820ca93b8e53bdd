/**
 * One model trained for the same few steps under several settings of activation checkpointing, eager and
 * compiled: what each takes in memory and time, and that the numbers do not depend on it.
 */

import { applyActivationCheckpointing } from '../../checkpoint/apply.ts';
import type { CheckpointingSpec } from '../../checkpoint/apply-spec.ts';
import type { Batch } from '../../data/corpus/batches.ts';
import type { CausalLm } from '../../models/decoder/causal-lm.ts';
import { formatBytes } from '../../core/bytes.ts';
import type { OptimizerConfig } from '../config/training-keys.ts';
import { makeOptimizer } from './optimizer.ts';
import { formatCount } from './progress.ts';
import { makeTrainingStep, type TrainingStep } from './training-step.ts';

export interface Comparison {
  /** Builds the model with its initial weights, equal each time. */
  build(): CausalLm;
  readonly optimizer: OptimizerConfig;
  readonly clipGradNorm: number | null;
  /** One for each step. The first step is not timed. */
  readonly batches: readonly Batch[];
}

export interface ComparedSetting {
  readonly execution: 'eager' | 'compiled';
  /** In words, as in the table. */
  readonly setting: string;
  /** Bytes, the most of any step. */
  readonly measuredPeak: number;
  /** Bytes the plan says; compiled only. */
  readonly plannedPeak: number | undefined;
  readonly tokensPerSecond: number;
  /** Time of a step, as a multiple of that without checkpointing. */
  readonly timeFactor: number;
  /** After the last step. */
  readonly loss: number;
}

export const comparedSettings: readonly (readonly [string, CheckpointingSpec])[] = [
  ['none', { mode: 'none' }],
  ['every 2', { mode: 'every', every: 2 }],
  ['full', { mode: 'full' }],
];

/**
 * Runs every setting. The settings of one execution take turns, step by step, so that a change in what
 * else the machine does meets all of them.
 */
export function compareCheckpointing(comparison: Comparison): ComparedSetting[] {
  return (['eager', 'compiled'] as const).flatMap((execution) => {
    using stack = new DisposableStack();
    const contestants = comparedSettings.map(([setting, spec]) => {
      const contestant = stack.use(new Contestant(comparison, spec, execution === 'compiled'));
      return { setting, contestant };
    });
    for (const batch of comparison.batches) {
      for (const { contestant } of contestants) contestant.run(batch);
    }
    const baseline = contestants[0]?.contestant.seconds() ?? Number.NaN;
    return contestants.map(({ setting, contestant }): ComparedSetting => {
      const seconds = contestant.seconds();
      return {
        execution,
        setting,
        measuredPeak: contestant.measuredPeak,
        plannedPeak: contestant.plannedPeak(),
        tokensPerSecond: tokensOf(comparison.batches) / seconds,
        timeFactor: seconds / baseline,
        loss: contestant.loss,
      };
    });
  });
}

/** Executions whose settings did not all end with the same bits; empty when all is well. */
export function unequalLosses(rows: readonly ComparedSetting[]): string[] {
  const byExecution = Map.groupBy(rows, (row) => row.execution);
  return [...byExecution].flatMap(([execution, members]) =>
    members.every((row) => Object.is(row.loss, members[0]?.loss)) ? [] : [execution],
  );
}

/** The table as text, a line for each row. */
export function formatComparison(rows: readonly ComparedSetting[]): string {
  const header = [
    'execution',
    'checkpointing',
    'measured peak',
    'planned peak',
    'tokens/s',
    'extra time',
    'loss',
  ];
  const cells = rows.map((row) => [
    row.execution,
    row.setting,
    formatBytes(row.measuredPeak),
    row.plannedPeak === undefined ? '-' : formatBytes(row.plannedPeak),
    formatCount(row.tokensPerSecond),
    row.timeFactor === 1 ? '-' : `${signed(100 * (row.timeFactor - 1))}%`,
    row.loss.toFixed(6),
  ]);
  const widths = header.map((title, i) =>
    Math.max(title.length, ...cells.map((row) => row[i]?.length ?? 0)),
  );
  const line = (row: readonly string[]): string =>
    row
      .map((cell, i) => (i < 2 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
      .join('  ');
  return [header, widths.map((width) => '-'.repeat(width)), ...cells].map(line).join('\n');
}

/** The model under one setting, and what was seen of it. */
class Contestant implements Disposable {
  measuredPeak = 0;
  /** Of the last step. */
  loss = Number.NaN;
  readonly #resources = new DisposableStack();
  readonly #step: TrainingStep;
  readonly #seconds: number[] = [];

  constructor(comparison: Comparison, spec: CheckpointingSpec, compiled: boolean) {
    const model = this.#resources.use(comparison.build());
    applyActivationCheckpointing(model, spec, { logger: () => {} });
    const optimizer = this.#resources.use(makeOptimizer(model, comparison.optimizer));
    this.#step = this.#resources.use(
      makeTrainingStep(model, optimizer, {
        compile: compiled,
        accumulation: 1,
        clipGradNorm: comparison.clipGradNorm,
      }),
    );
  }

  run(batch: Batch): void {
    const began = performance.now();
    const { stepMemory, loss } = this.#step.run([batch]);
    this.#seconds.push((performance.now() - began) / 1000);
    this.measuredPeak = Math.max(this.measuredPeak, stepMemory);
    this.loss = loss;
  }

  /** Median time of a step but the first. */
  seconds(): number {
    return median(this.#seconds.slice(1));
  }

  plannedPeak(): number | undefined {
    return this.#step.plannedBytes();
  }

  [Symbol.dispose](): void {
    this.#resources.dispose();
  }
}

function tokensOf(batches: readonly Batch[]): number {
  const [first] = batches;
  return first ? first.rows * first.sequenceLength : 0;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? upper) + upper) / 2;
}

function signed(percent: number): string {
  const rounded = percent.toFixed(0);
  return percent >= 0 && !rounded.startsWith('-') ? `+${rounded}` : rounded;
}
