/**
 * Retune's side of the benchmark: answers the requests of driver/protocol.ts on standard output. The
 * matrix multiply and the number of threads come from the environment (RETUNE_MATMUL, RETUNE_THREADS).
 */

import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CpuBackend } from '../../src/runtime/cpu/backend.ts';
import { createCpuBackend } from '../../src/runtime/registry.ts';
import { setBackend } from '../../src/tensor/backend.ts';
import {
  type AnswerOf,
  type Command,
  type RequestOf,
  recordSeparator,
} from '../driver/protocol.ts';
import { timeProducts } from './matmul-job.ts';
import { timeOps } from './op-job.ts';
import { TrainingJob } from './training-job.ts';

type Handlers = { [C in Command]: (request: RequestOf<C>) => AnswerOf<C> };

const backend = createCpuBackend();
setBackend(backend);
await allThreads(backend);

let training: TrainingJob | undefined;

const handlers: Handlers = {
  facts: () => ({ name: 'Retune', ...backend.info }),
  load: ({ config, materials }) => {
    training = new TrainingJob(config, materials);
    return { parameters: training.parameterCount };
  },
  start: ({ variant, steps }) => loaded().start(variant, steps),
  steps: ({ variant, warm, steps }) => loaded().steps(variant, warm, steps),
  memory: ({ variant }) => loaded().memory(variant),
  matmul: (request) => timeProducts(request),
  ops: ({ milliseconds }) => timeOps(milliseconds),
};

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line) as { readonly command: Command | 'quit' };
  if (request.command === 'quit') break;
  answer(respond(request.command, request));
}
backend.dispose();

function respond(command: Command, request: unknown): object {
  try {
    const handle = handlers[command] as (request: unknown) => object;
    return { ok: true, ...handle(request) };
  } catch (error) {
    // A variant that cannot run is a row of the report, not the end of the benchmark.
    const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    console.error(error);
    return { ok: false, error: text.slice(0, 300) };
  }
}

function loaded(): TrainingJob {
  if (!training) throw new RangeError('bench: no model was loaded');
  return training;
}

function answer(value: object): void {
  process.stdout.write(`${recordSeparator}${JSON.stringify(value)}\n`);
}

/** Threads start in the background; until all have, work runs on the calling one. */
async function allThreads(cpu: CpuBackend): Promise<void> {
  const workers = Number(cpu.info.threads) - 1;
  while (cpu.readyWorkers < workers) await sleep(5);
}
