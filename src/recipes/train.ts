/**
 * The training loop that recipes share: batches, steps, logging, evaluation, checkpoints and resuming. A
 * recipe decides what is trained on what; this file decides when things happen. Read `loop` for the order.
 *
 * A run that is resumed computes exactly what it would have computed without the interruption: a
 * checkpoint holds all that the next step depends on.
 */

import { setImmediate } from 'node:timers/promises';
import { applyActivationCheckpointing } from '../checkpoint/apply.ts';
import type { OffloadStats } from '../checkpoint/offload-store.ts';
import { ConfigError } from '../core/errors.ts';
import { type Batch, BatchStream } from '../data/corpus/batches.ts';
import { Prefetcher } from '../data/corpus/prefetch.ts';
import type { SequenceDataset } from '../data/corpus/sequence-dataset.ts';
import type { CausalLm } from '../models/decoder/causal-lm.ts';
import { saveModel } from '../models/save.ts';
import { LrScheduler } from '../optim/schedule.ts';
import { formatBytes } from '../core/bytes.ts';
import { type Generator, defaultGenerator } from '../tensor/generator.ts';
import { checkpointingSpec } from './config/checkpointing-keys.ts';
import type { TrainingConfig } from './config/training-keys.ts';
import { evaluationRows, type MemoryChoice } from './memory/choice.ts';
import type { RecipeIo, RunOutcome } from './recipe.ts';
import { makeEvaluator } from './run/evaluate.ts';
import { InterruptWatch } from './run/interrupt.ts';
import { MetricsFile } from './run/metrics.ts';
import { findNonFinite, nonFiniteError } from './run/nan-check.ts';
import { makeOptimizer, makeSchedule } from './run/optimizer.ts';
import { formatCount, Progress } from './run/progress.ts';
import { saveFinalModel, tokenizerFolder } from './run/run-folder.ts';
import { runTraced, writeTrace } from './run/trace-memory.ts';
import { makeTrainingStep, type StepResult } from './run/training-step.ts';
import { checkSettings, type LoadedCheckpoint, saveCheckpoint } from './run/training-state.ts';

/** What a recipe trains. `checkpoint` is what it resumes from; the model then holds its weights already. */
export interface TrainingJob {
  /** Mode auto is settled in it. */
  readonly config: TrainingConfig;
  /** What mode auto chose; undefined for another mode. */
  readonly memory: MemoryChoice | undefined;
  readonly model: CausalLm;
  readonly train: SequenceDataset;
  readonly validation: SequenceDataset | undefined;
  readonly checkpoint: LoadedCheckpoint | undefined;
  readonly io: RecipeIo;
}

/** Trains to the last step or until interrupted, then saves. Throws on a step that is not finite. */
export async function train(job: TrainingJob): Promise<RunOutcome> {
  const { config, memory, model, checkpoint, io } = job;
  const { log } = io;
  const { offload, compileOptions } = applyActivationCheckpointing(
    model,
    checkpointingSpec(config),
    {
      logger: log,
      compiled: config.compile,
    },
  );
  using optimizer = makeOptimizer(model, config.optimizer);
  // A run that mode auto began keeps its choice on record in every mode that it goes on in.
  const recorded = memory ?? checkpoint?.state.memory;
  const stream = new BatchStream(job.train, {
    batchSize: config.batch_size,
    seed: config.seed,
    // The rows of a step do not depend on how mode auto divides them.
    ...(recorded?.asked.adapt_batch && {
      epochMultiple: config.batch_size * config.gradient_accumulation_steps,
    }),
  });
  const totalSteps = stepCount(config, stream.batchesPerEpoch);
  const scheduler = new LrScheduler(optimizer, makeSchedule(config.lr_scheduler, totalSteps));
  const settings = decisiveSettings(config, totalSteps);
  if (checkpoint) {
    checkSettings(checkpoint.state, settings, checkpoint.folder);
    optimizer.loadStateDict(checkpoint.optimizer);
    scheduler.loadStateDict(checkpoint.state.schedule);
    stream.restore(checkpoint.state.data);
    for (const [name, generator] of Object.entries(generators)) {
      const state = checkpoint.state.generators[name];
      if (state) generator.setState(state);
    }
  } else {
    defaultGenerator.manualSeed(config.seed);
  }
  const metrics = new MetricsFile(config.output_dir);
  const start = checkpoint?.state.step ?? 0;
  await metrics.begin(start);
  if (memory && memory !== checkpoint?.state.memory) metrics.append({ step: start, memory });
  using step = makeTrainingStep(model, optimizer, {
    compile: config.compile,
    ...(compileOptions && { compileOptions }),
    accumulation: config.gradient_accumulation_steps,
    clipGradNorm: config.clip_grad_norm,
    ...(offload && { afterBackward: () => offload.assertEmpty() }),
  });
  using evaluator = job.validation
    ? makeEvaluator(model, job.validation, {
        compile: config.compile,
        batchSize: memory?.asked.batch_size ?? config.batch_size,
        ...(memory && { rowsAtOnce: evaluationRows(memory.asked, memory.chosen) }),
        maxBatches: config.eval_batches,
      })
    : undefined;
  await using batches = new Prefetcher(stream);

  const parameters = [...model.parameters()].reduce((sum, { size }) => sum + size, 0);
  log(
    `training ${formatCount(parameters)} parameters for ${totalSteps} steps of ` +
      `${formatCount(tokensPerStep(config))} tokens`,
  );
  const bar = io.progress ? new Progress({ total: totalSteps, start }) : undefined;
  using interrupt = new InterruptWatch(() => {
    const note = 'stopping after this step and saving; press Ctrl-C again to quit at once';
    if (bar) bar.note(note);
    else log(note);
  });

  const save = (done: number): Promise<string> =>
    saveCheckpoint(
      config.output_dir,
      {
        state: {
          step: done,
          data: batches.state(),
          generators: Object.fromEntries(
            Object.entries(generators).map(([name, generator]) => [name, generator.getState()]),
          ),
          schedule: scheduler.stateDict(),
          settings,
          ...(recorded && { memory: recorded }),
        },
        optimizer: optimizer.stateDict(),
        saveModel: async (folder) => {
          await saveModel(model, folder, { copyFrom: tokenizerFolder(config.output_dir) });
        },
      },
      { keepLast: config.keep_last_n_checkpoints },
    );

  const began = performance.now();
  const secondsSince = (from: number): number => (performance.now() - from) / 1000;
  let lastSaved = checkpoint?.folder;
  let done = start;
  let result: StepResult | undefined;
  let validationLoss: number | undefined;
  let interrupted = false;

  try {
    while (done < totalSteps) {
      const stepBegan = performance.now();
      const micro: Batch[] = [];
      while (micro.length < config.gradient_accumulation_steps) micro.push(await batches.next());

      const lr = optimizer.lr;
      // The first step also makes optimizer state; the second is like all that follow.
      if (io.traceMemory !== undefined && done === start + 1) {
        const traced = runTraced(step, micro, `step ${done + 1} of ${config.output_dir}`);
        result = traced.result;
        await writeTrace(io.traceMemory, traced.trace);
        log(`memory trace of step ${done + 1} written to ${io.traceMemory}`);
      } else result = step.run(micro);
      if (!result.finite) {
        throw nonFiniteError(done + 1, result, findNonFinite(model, micro), lastSaved);
      }
      scheduler.step();
      done++;

      const tokensPerSecond = tokensPerStep(config) / secondsSince(stepBegan);
      const { loss, gradNorm, stepMemory } = result;
      bar?.update({ step: done, loss, tokensPerSecond, stepMemory });
      if (done % config.log_every_n_steps === 0 || done === totalSteps) {
        metrics.append({
          step: done,
          loss,
          lr,
          grad_norm: gradNorm,
          tokens_per_second: Math.round(tokensPerSecond),
          step_memory: stepMemory,
          seconds: secondsSince(began),
        });
      }
      if (evaluator && (isDue(config.eval_every_n_steps, done) || done === totalSteps)) {
        validationLoss = await evaluator.run();
        metrics.append({ step: done, validation_loss: validationLoss });
        const line = `step ${done}: validation loss ${validationLoss.toFixed(4)}`;
        if (bar) bar.note(line);
        else log(line);
      }
      if (isDue(config.save_every_n_steps, done)) lastSaved = await save(done);
      // Lets signals in: everything else in this loop may run without giving up the thread.
      await setImmediate();
      if (interrupt.requested) {
        interrupted = done < totalSteps;
        break;
      }
    }
  } finally {
    bar?.stop();
  }

  if (interrupted) {
    if (!isDue(config.save_every_n_steps, done)) lastSaved = await save(done);
    log(`interrupted after step ${done}; saved ${lastSaved}`);
    log('continue with the same command and resume_from_checkpoint=true');
  } else {
    log(`model saved in ${await saveFinalModel(model, config.output_dir)}`);
  }
  const planned = step.plannedBytes();
  if (planned !== undefined) log(`planned step memory ${formatBytes(planned)}`);
  if (offload) log(describeOffload(offload.stats));
  return {
    steps: done,
    loss: result?.loss ?? Number.NaN,
    validationLoss,
    outputDir: config.output_dir,
    exitCode: interrupted ? interrupt.exitCode : 0,
  };
}

function describeOffload({ bytesOut, bytesIn, peakStoredBytes, waitMs }: OffloadStats): string {
  return (
    `offload: ${formatBytes(bytesOut)} moved out and ${formatBytes(bytesIn)} back, at most ` +
    `${formatBytes(peakStoredBytes)} at once; waited ${(waitMs / 1000).toFixed(1)} s`
  );
}

/** Random state that a checkpoint keeps. */
const generators: Readonly<Record<string, Generator>> = { default: defaultGenerator };

function isDue(every: number, done: number): boolean {
  return every > 0 && done % every === 0;
}

/** Tokens that one optimizer step reads. */
function tokensPerStep(config: TrainingConfig): number {
  return config.batch_size * config.sequence_length * config.gradient_accumulation_steps;
}

function stepCount(config: TrainingConfig, batchesPerEpoch: number): number {
  const { max_steps, epochs = 1, gradient_accumulation_steps: accumulation } = config;
  if (max_steps !== undefined) return max_steps;
  const steps = Math.floor((epochs * batchesPerEpoch) / accumulation);
  if (steps > 0) return steps;
  throw new ConfigError(
    `train: the data does not fill one step (got ${epochs} epochs of ${batchesPerEpoch} batches, ` +
      `${accumulation} batches a step). Use more data, more epochs, or fewer gradient_accumulation_steps.`,
  );
}

/** What a resumed run must share with the run it continues, or the numbers would differ. */
function decisiveSettings(config: TrainingConfig, totalSteps: number): Record<string, unknown> {
  const { type, ...schedule } = config.lr_scheduler;
  return {
    optimizer: config.optimizer,
    lr_scheduler: type === 'constant' ? config.lr_scheduler : { type, ...schedule, totalSteps },
    batch_size: config.batch_size,
    sequence_length: config.sequence_length,
    gradient_accumulation_steps: config.gradient_accumulation_steps,
    clip_grad_norm: config.clip_grad_norm,
    seed: config.seed,
    dtype: config.dtype,
    compile: config.compile,
  };
}
